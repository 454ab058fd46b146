//! The tables of the settings file that ingest alone has.

use crate::inbox::SESSION_TIMEOUT;
use crate::prepare::config::Config;
use crate::prepare::hash::HashKey;
use serde::{Deserialize, Serialize};
use settings::units::{Listen, Secret, Size, Span};
use std::path::PathBuf;

/// How this process takes part in draining the inbox topics, which foreign writers fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct InboxSection {
    /// Whether this process drains its share of the inbox topics, where they are there.
    pub enabled: bool,
    /// How long a process may be silent before it loses its share.
    pub session_timeout: Span,
}

/// What the privacy policy needs beside itself: a key for hashes, given here or in a file. Without one, what a policy wants
/// hashed is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrivacySection {
    /// The key for hashes itself.
    pub hash_key: Option<Secret>,
    /// A file that holds the key; white space around it does not count.
    pub hash_key_file: Option<PathBuf>,
}

impl PrivacySection {
    /// The key, if one is given. What is wrong with it is added to `faults`.
    pub fn key(&self, faults: &mut Vec<String>) -> Option<HashKey> {
        let (name, read) = match (&self.hash_key, &self.hash_key_file) {
            (None, None) => return None,
            (Some(key), None) => ("hash_key".to_owned(), HashKey::new(key.reveal().as_bytes())),
            (None, Some(file)) => (
                format!("hash_key_file: {}", file.display()),
                HashKey::from_file(file),
            ),
            (Some(_), Some(_)) => {
                faults.push("privacy.hash_key and hash_key_file: give one of them".to_owned());
                return None;
            }
        };
        read.map_err(|error| faults.push(format!("privacy.{name}: {error}")))
            .ok()
    }
}

/// Where requests wait while Kafka does not answer: see [`crate::sink::spool`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolSection {
    /// A directory of this process's own, on a volume that outlives it; without one there is no spool.
    pub directory: Option<PathBuf>,
    /// How much each prefix's spool may hold; when one is full, requests are refused.
    pub bytes_max: Size,
}

impl Default for SpoolSection {
    fn default() -> Self {
        Self {
            directory: None,
            bytes_max: Size(1 << 30),
        }
    }
}

/// A listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The address and port that it listens on.
    pub listen: Listen,
}

/// What bounds requests: see [`Config`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The largest body as sent.
    pub body_bytes_max: Size,
    /// The largest body after decompression.
    pub decoded_bytes_max: Size,
    /// How much one tenant's unanswered requests may hold.
    pub tenant_bytes_in_flight_max: Size,
    /// How much all unanswered requests may hold.
    pub bytes_in_flight_max: Size,
    /// How many connections of all listeners may be open.
    pub connections_max: usize,
    /// How long a request's head may take to come in.
    pub header_time_max: Span,
    /// How long a request's body may take to come in.
    pub body_time_max: Span,
    /// How long a connection without a request stays open.
    pub idle_time_max: Span,
}

impl Port {
    /// A listener for this host alone.
    pub(super) fn local(port: u16) -> Self {
        Self {
            listen: Listen(([127, 0, 0, 1], port).into()),
        }
    }
}

impl Default for InboxSection {
    fn default() -> Self {
        Self {
            enabled: true,
            session_timeout: Span(SESSION_TIMEOUT),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let config = Config::default();
        Self {
            body_bytes_max: Size(config.body_bytes_max as u64),
            decoded_bytes_max: Size(config.decoded_bytes_max as u64),
            tenant_bytes_in_flight_max: Size(config.tenant_bytes_in_flight_max),
            bytes_in_flight_max: Size(config.bytes_in_flight_max),
            connections_max: config.connections_max,
            header_time_max: Span(config.header_time_max),
            body_time_max: Span(config.body_time_max),
            idle_time_max: Span(config.idle_time_max),
        }
    }
}
