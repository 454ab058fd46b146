//! Identifiers: partitions and positions of the log, epochs, and the keys of raw records.

use crate::topic::Topic;
use serde::{Deserialize, Serialize};

/// The offset to read **next**, never the one read last (that is named `last_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position(pub i64);

impl Position {
    /// The position after the record at `offset`.
    #[must_use]
    pub const fn after(offset: i64) -> Self {
        Self(offset + 1)
    }
}

/// The position of a record in `tacho.control` that governs other records; 0 is the seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub i64);

/// One partition of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Topic,
    /// The partition, from 0.
    pub partition: i32,
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic.name(), self.partition)
    }
}

/// The only tenant until tenants come from tokens.
pub const DEFAULT_TENANT: &str = "default";

/// The key of a raw record: `tenant/conversation`, or `tenant/` and another stable id where there is no
/// conversation.
#[must_use]
pub fn raw_key(tenant: &str, routed_by: &str) -> String {
    format!("{tenant}/{routed_by}")
}

/// The most bytes of a routing id.
pub const ROUTING_ID_BYTES_MAX: usize = 128;

/// Whether an id can stand in a key as it is: short, without slashes and control characters.
///
/// Ingest puts a hash in the place of an id that can't, so the processor does not count a record as misrouted
/// for having such an id.
#[must_use]
pub fn can_route(id: &str) -> bool {
    id.len() <= ROUTING_ID_BYTES_MAX && !id.chars().any(|c| c == '/' || c.is_control())
}

/// Splits a raw record's key into tenant and routing id; a key of another form belongs to the empty tenant.
#[must_use]
pub fn split_raw_key(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}
