//! Holds the settings that bound requests and connections, and that say where requests go.

use crate::control::policy::TextSettings;
use crate::prepare::environment::Routes;
use crate::prepare::hash::HashKey;
use std::time::Duration;

/// The settings of connections and of the pipeline; each has a default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Largest body as sent, in bytes; a larger one gets 413.
    pub body_bytes_max: usize,
    /// Largest body after decompression, in bytes; a larger one gets 413.
    pub decoded_bytes_max: usize,
    /// Bytes that one tenant's unanswered requests may hold; a request for which there is no room gets 429.
    pub tenant_bytes_in_flight_max: u64,
    /// Bytes that all unanswered requests may hold; a request for which there is no room gets 429.
    pub bytes_in_flight_max: u64,
    /// Open connections of all listeners; a new one waits until another ends. The process's limit of open files lowers it.
    pub connections_max: usize,
    /// How long a request's head may take to come in.
    pub header_time_max: Duration,
    /// How long a request's body may take to come in.
    pub body_time_max: Duration,
    /// How long a connection without a request stays open. Clients close theirs sooner (90 s is common), so that none sends
    /// into a connection that is being closed.
    pub idle_time_max: Duration,
    /// Stores prompts, arguments, outputs and answers as they came, whatever the privacy policy says. Off by default; a
    /// process with it on warns about it.
    pub keep_text: bool,
    /// The key of hashes; without one, what a policy wants hashed is dropped.
    pub hash_key: Option<HashKey>,
    /// Which raw records go to topics of another prefix.
    pub routes: Routes,
}

impl Config {
    /// What these settings say of texts, which the privacy policy has to go by.
    #[must_use]
    pub const fn text_settings(&self) -> TextSettings {
        TextSettings {
            keep_text: self.keep_text,
            has_hash_key: self.hash_key.is_some(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            body_bytes_max: 16 << 20,
            decoded_bytes_max: 64 << 20,
            tenant_bytes_in_flight_max: 80 << 20,
            bytes_in_flight_max: 112 << 20,
            connections_max: 4096,
            header_time_max: Duration::from_secs(5),
            body_time_max: Duration::from_secs(30),
            idle_time_max: Duration::from_secs(120),
            keep_text: false,
            hash_key: None,
            routes: Routes::default(),
        }
    }
}
