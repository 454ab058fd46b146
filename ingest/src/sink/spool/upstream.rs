//! The log behind a spool, as the spool uses it.

use crate::sink::{Fate, RawRecord, SinkError};
use rdkafka::error::KafkaError;
use std::future::Future;
use std::sync::atomic::AtomicBool;
use tokio::time::Instant;

/// The log that records go to in the end.
pub trait Upstream: Send + Sync + 'static {
    /// A record that was handed over. It always resolves: when the record is durable, or given up.
    type Flight: Future<Output = Result<(), SinkError>> + Unpin + Send + 'static;
    /// The way into the log for what was spooled.
    type Outlet: Outlet;

    /// Hands records over in order, waiting for room up to `until`; gives the fate of each.
    fn launch(
        &self,
        records: &[RawRecord],
        until: Instant,
    ) -> impl Future<Output = Vec<Fate<Self::Flight>>> + Send;
    /// Is called after a record that was handed over has failed.
    fn after_failure(&self);
    /// Whether records would be taken now, as far as is known.
    fn ready(&self) -> bool;
    /// Whether records would be taken now, looked up. May block for seconds.
    fn look_again(&self) -> bool;
    /// A new outlet.
    ///
    /// # Errors
    /// No outlet can be made now.
    fn outlet(&self) -> Result<Self::Outlet, OutletError>;
}

/// Writes what was spooled into the log, on each partition as a run without a hole.
pub trait Outlet {
    /// Returns once all of the numbered records are durable. Blocks for as long as that takes, or until `stop`. The records
    /// are of the spool that `source` names.
    ///
    /// # Errors
    /// Some records may not be durable. This outlet must not be used again.
    fn write(
        &mut self,
        source: &str,
        records: &[(u64, RawRecord)],
        stop: &AtomicBool,
    ) -> Result<(), OutletError>;
}

/// Why spooled records are not in the log.
#[derive(Debug, thiserror::Error)]
pub enum OutletError {
    /// No producer can be made.
    #[error("no producer for the spool")]
    Connect(#[source] KafkaError),
    /// A record was not written, and those behind it are not.
    #[error("a spooled record could not be written")]
    Write(#[source] KafkaError),
    /// The producer reaches no broker any more.
    #[error("its producer reaches no broker")]
    CutOff,
    /// The process ends; the next one writes what is left.
    #[error("the process ends before all is written")]
    Ending,
}
