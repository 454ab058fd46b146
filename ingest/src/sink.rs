//! Where admitted records go: the raw topics, on a cluster or in the process's own log.

pub(crate) mod gapless;
pub mod kafka;
pub(crate) mod linger;
pub mod partition;
mod patience;
pub mod spool;

use crate::telemetry;
use bytes::Bytes;
use schemas::signal::Signal;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// A log request is held for that long, in all; then it is refused. (Clients that send once give up after 5 s, or 10.)
pub const HOLD_LOGS: Duration = Duration::from_secs(4);
/// And requests of the other signals, so that they are answered within 0.5 s: a client that ends posts them first, and its logs
/// wait behind them.
pub const HOLD_OTHERS: Duration = Duration::from_millis(400);

/// A raw record, ready to be written: one conversation, privacy applied. The sink adds the `tacho-wall` header at
/// each attempt and computes the partition (murmur2 of the key over the pinned count).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord {
    /// The signal of the request, which decides the raw topic.
    pub signal: Signal,
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

impl SinkError {
    /// The same error once more.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Unavailable(why) => Self::Unavailable(why.clone()),
            Self::Full(why) => Self::Full(why.clone()),
            Self::TooLarge(why) => Self::TooLarge(why.clone()),
        }
    }
}

/// A durable place for raw records.
pub trait Sink: Send + Sync + 'static {
    /// Resolves once every record is durable: on all in-sync replicas, or fsynced.
    fn append(&self, records: Vec<RawRecord>) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Whether records would be taken now: topics there, partition counts as pinned.
    fn ready(&self) -> bool;
}

/// How long a request is held at most: [`HOLD_LOGS`] or [`HOLD_OTHERS`].
pub(crate) fn hold(records: &[RawRecord]) -> Duration {
    match records.first().map(|first| first.signal) {
        Some(Signal::Traces | Signal::Metrics) => HOLD_OTHERS,
        Some(Signal::Logs) | None => HOLD_LOGS,
    }
}

/// What is known of a record that was handed over.
pub enum Fate<F> {
    /// Not known yet; resolves when it is.
    Open(F),
    /// Durable, or not.
    Known(Result<(), SinkError>),
}

impl<F: Future<Output = Result<(), SinkError>> + Unpin> Fate<F> {
    /// Waits until it is known, or until then.
    pub(crate) async fn wait(&mut self, until: Instant) {
        if let Self::Open(flight) = self
            && let Ok(known) = timeout_at(until, flight).await
        {
            *self = Self::Known(known);
        }
    }

    /// Whether it is durable for certain.
    pub(crate) const fn is_durable(&self) -> bool {
        matches!(self, Self::Known(Ok(())))
    }
}

/// The answer to a request, of the fates of its records. A refusal of a request that was handed over is counted: it may be
/// in the log all the same, and if it comes again, its records are told by their marks.
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
