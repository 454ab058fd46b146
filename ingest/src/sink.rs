//! Where admitted records go: the raw topics, on a cluster or in the process's own log.

use bytes::Bytes;
use schemas::topic::Topic;
use std::future::Future;

/// A raw record, ready to be written: one conversation, privacy applied. The sink adds the `tacho-wall` header at
/// each attempt and computes the partition (murmur2 of the key over the pinned count).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord {
    /// `RawLogs`, `RawTraces` or `RawMetrics`.
    pub topic: Topic,
    /// `tenant/routing id`, never empty.
    pub key: String,
    /// An OTLP request message.
    pub value: Bytes,
    /// Which part of the request it is: the rank of its last item among all of the request, in the order of parts. Rises, and
    /// does not depend on where a large request is cut.
    pub part: u32,
    /// The epoch of the privacy policy under which it was cleaned: header `tacho-policy`. None: all texts are kept.
    pub policy: Option<i64>,
    /// The environment that it goes to: 0 is the main prefix, see [`crate::environment`].
    pub environment: u8,
}

/// Why records are not durable.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The log did not confirm in time: the sender may have to send again.
    #[error("the log did not confirm in time: {0}")]
    Unavailable(String),
    /// There is no room left.
    #[error("the log is full: {0}")]
    Full(String),
    /// The record is larger than the log takes.
    #[error("the record is too large for the log: {0}")]
    TooLarge(String),
}

/// A durable place for raw records.
pub trait Sink: Send + Sync + 'static {
    /// Resolves once every record is durable: on all in-sync replicas, or fsynced.
    fn append(&self, records: Vec<RawRecord>) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Whether records would be taken now: topics there, partition counts as pinned.
    fn ready(&self) -> bool;
}
