//! What bounds requests, and where they go.

use crate::environment::Routes;
use crate::hash::HashKey;

/// Settings of the doors; every field has a default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Largest body as sent, in bytes; a larger one gets 413.
    pub body_bytes_max: usize,
    /// Largest body after decompression, in bytes; a larger one gets 413.
    pub decoded_bytes_max: usize,
    /// Bytes that one tenant's unanswered requests may hold; more gets 429.
    pub tenant_bytes_in_flight_max: u64,
    /// Stores prompts, arguments, outputs and answers as they came, whatever the privacy policy says. Off by default, and
    /// loud when on.
    pub keep_text: bool,
    /// The key of hashes; without one, what a policy wants hashed is dropped.
    pub hash_key: Option<HashKey>,
    /// Which raw records go to topics of another prefix.
    pub routes: Routes,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            body_bytes_max: 16 << 20,
            decoded_bytes_max: 64 << 20,
            tenant_bytes_in_flight_max: 256 << 20,
            keep_text: false,
            hash_key: None,
            routes: Routes::default(),
        }
    }
}
