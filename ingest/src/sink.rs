//! Makes raw records durable: on a Kafka cluster, in a spool before it, or wherever a process has its log.
//!
//! ```text
//! Routed ─► Spooled ─► KafkaSink          one of each per environment; the spool is optional
//! ```
//!
//! **Invariant:** [`Sink::append`] succeeds only when every record is durable.

pub(crate) mod headers;
pub mod kafka;
mod linger;
pub mod partition;
mod patience;
pub mod routed;
pub mod spool;
mod telemetry;

use bytes::Bytes;
use schemas::signal::Signal;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long a log request is held before it is refused. (Clients that send once give up after 5 s, or 10 s.)
pub const HOLD_LOGS: Duration = Duration::from_secs(4);
/// How long a trace or metric request is held before it is refused, so that it is answered within 0.5 s: a client that ends
/// posts these first, and its logs wait behind them.
pub const HOLD_OTHERS: Duration = Duration::from_millis(400);

/// A raw record, ready to be written: part of one conversation, cleaned by the privacy policy.
///
/// A sink computes the partition (murmur2 of the key, over the pinned number of partitions) and adds header `tacho-wall` at
/// each attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord {
    /// The signal of the request, which decides the raw topic.
    pub signal: Signal,
    /// The key, `tenant/routing id`, which is never empty.
    pub key: String,
    /// The value, an OTLP request message.
    pub value: Bytes,
    /// The number of the part of the request: the rank of its last item among all items of the request, in the order of
    /// parts. Numbers rise, and where a large request is cut does not change them.
    pub part: u32,
    /// The epoch of the privacy policy that the record was cleaned under, for header `tacho-policy`; none where all texts are
    /// kept.
    pub policy: Option<i64>,
    /// The environment that the record goes to: 0 is the main prefix, other numbers count the prefixes of the
    /// environments table.
    pub environment: u8,
}

/// Why records are not durable.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The log did not confirm the records in time, so the sender may have to send them again.
    #[error("the log did not confirm in time: {0}")]
    Unavailable(String),
    /// The log has no room left.
    #[error("the log is full: {0}")]
    Full(String),
    /// A record is larger than the log takes.
    #[error("the record is too large for the log: {0}")]
    TooLarge(String),
}

impl SinkError {
    /// A copy of the error, for another sender.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Unavailable(why) => Self::Unavailable(why.clone()),
            Self::Full(why) => Self::Full(why.clone()),
            Self::TooLarge(why) => Self::TooLarge(why.clone()),
        }
    }
}

/// A place where raw records become durable.
pub trait Sink: Send + Sync + 'static {
    /// Resolves once every record is durable: on all in-sync replicas, or written and fsynced.
    fn append(&self, records: Vec<RawRecord>) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Whether records would be taken now, as far as is known: the topics are there, with their pinned numbers of partitions.
    fn ready(&self) -> bool;
}

/// How long a request with these records is held at most.
pub(crate) fn hold(records: &[RawRecord]) -> Duration {
    match records.first().map(|first| first.signal) {
        Some(Signal::Traces | Signal::Metrics) => HOLD_OTHERS,
        Some(Signal::Logs) | None => HOLD_LOGS,
    }
}

/// What is known of a record that was handed to a producer.
pub enum Fate<F> {
    /// The fate is not known yet; the future resolves when it is.
    Open(F),
    /// The record is durable, or not.
    Known(Result<(), SinkError>),
}

impl<F: Future<Output = Result<(), SinkError>> + Unpin> Fate<F> {
    /// Waits until the fate is known, but not longer than to `until`.
    pub(crate) async fn wait(&mut self, until: Instant) {
        if let Self::Open(flight) = self
            && let Ok(known) = timeout_at(until, flight).await
        {
            *self = Self::Known(known);
        }
    }

    /// Whether the record is durable for certain.
    pub(crate) const fn is_durable(&self) -> bool {
        matches!(self, Self::Known(Ok(())))
    }
}

/// The answer to a request, from the fates of its records. A refused request with a record that may be in the log all the same
/// is counted; if it is sent again, its records are recognized by their dedup marks.
pub(crate) fn conclude<F>(records: &[RawRecord], fates: &[Fate<F>]) -> Result<(), SinkError> {
    let mut result = Ok(());
    for fate in fates {
        match fate {
            Fate::Known(Ok(())) => {}
            Fate::Known(Err(SinkError::TooLarge(why))) => return Err(SinkError::TooLarge(why.clone())),
            Fate::Known(Err(error)) if result.is_ok() => result = Err(error.again()),
            Fate::Known(Err(_)) => {}
            Fate::Open(_) => result = Err(SinkError::Unavailable("no broker confirmed it".to_owned())),
        }
    }
    if result.is_err()
        && let Some(first) = records.first()
        && fates.iter().any(|fate| !matches!(fate, Fate::Known(Err(_))))
    {
        telemetry::unsure(first.signal);
    }
    result
}
