//! A sink that is there before its cluster is: until then records are refused, and senders told to come again.

use super::control::Control;
use crate::kafka::KafkaSink;
use crate::policy::Policies;
use crate::sink::{RawRecord, Sink, SinkError};
use schemas::cluster::Cluster;
use shell::process::chain;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// How long between two tries to read the settings.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// The sink of a process that may start before the topics are there.
pub struct Late {
    sink: OnceLock<KafkaSink>,
    ending: watch::Receiver<bool>,
}

impl Late {
    /// Without a cluster yet; not ready once `ending` says so.
    pub fn new(ending: watch::Receiver<bool>) -> Self {
        Self { sink: OnceLock::new(), ending }
    }

    /// Why no records would be taken now.
    pub fn not_ready(&self) -> Option<&'static str> {
        match self.sink.get() {
            _ if *self.ending.borrow() => Some("the process is ending"),
            None => Some("the settings in tacho.control are not read yet: the log says why"),
            Some(sink) if !sink.ready() => Some("Kafka does not take records: no broker answers, or a topic is not as it must be"),
            Some(_) => None,
        }
    }
}

impl Sink for Late {
    async fn append(&self, records: Vec<RawRecord>) -> Result<(), SinkError> {
        match self.sink.get() {
            Some(sink) => sink.append(records).await,
            None => Err(SinkError::Unavailable("the settings in tacho.control are not read yet".to_owned())),
        }
    }

    fn ready(&self) -> bool {
        self.not_ready().is_none()
    }
}

/// Reads the control topic to its end, as often as it takes, and connects; gives that topic, to be followed.
pub async fn connect(cluster: &Cluster, policies: &Arc<Policies>, late: &Late) -> Control {
    let mut told = String::new();
    loop {
        let (asked, shared) = (cluster.clone(), Arc::clone(policies));
        let why = match tokio::task::spawn_blocking(move || Control::read(&asked, shared)).await {
            Ok(Ok(control)) => match KafkaSink::connect(cluster, control.raw_partitions).await {
                Ok(sink) => {
                    tracing::info!(raw_partitions = control.raw_partitions, ready = sink.ready(), "settings read, connected");
                    // Nobody else sets it.
                    let _ = late.sink.set(sink);
                    return control;
                }
                Err(error) => chain(&error),
            },
            Ok(Err(error)) => chain(&error),
            Err(panic) => panic.to_string(),
        };
        if why != told {
            tracing::warn!(reason = why, "not ready: trying again every second");
            told = why;
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}
