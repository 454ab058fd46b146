//! A sink that is there before its cluster is: until then records are refused, and senders told to come again.

use super::control::{Control, NotYet};
use crate::environment::Routed;
use crate::inbox::Target;
use crate::kafka::{ConnectError, KafkaSink};
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
    sink: OnceLock<Routed<KafkaSink>>,
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

/// Reads the control topic to its end, as often as it takes, and connects, to the other `prefixes` too; gives that topic,
/// to be followed, and what the others are.
pub async fn connect(cluster: &Cluster, prefixes: &[String], policies: &Arc<Policies>, late: &Late) -> (Control, Vec<Target>) {
    let mut told = String::new();
    loop {
        let (asked, others, shared) = (cluster.clone(), prefixes.to_vec(), Arc::clone(policies));
        let why = match tokio::task::spawn_blocking(move || read(&asked, &others, shared)).await {
            Ok(Ok((control, others))) => match connect_all(cluster, control.raw_partitions, &others).await {
                Ok(sink) => {
                    tracing::info!(raw_partitions = control.raw_partitions, ready = sink.ready(), "settings read, connected");
                    // Nobody else sets it.
                    let _ = late.sink.set(sink);
                    return (control, others);
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

/// Reads the control topics of all prefixes; the policy is that of the main one.
fn read(cluster: &Cluster, prefixes: &[String], policies: Arc<Policies>) -> Result<(Control, Vec<Target>), NotYet> {
    let mut others = Vec::with_capacity(prefixes.len());
    for prefix in prefixes {
        let raw_partitions = Control::raw_partitions(&with_prefix(cluster, prefix))?;
        others.push(Target { prefix: prefix.clone(), raw_partitions });
    }
    Ok((Control::read(cluster, policies)?, others))
}

async fn connect_all(cluster: &Cluster, raw_partitions: i32, others: &[Target]) -> Result<Routed<KafkaSink>, ConnectError> {
    let mut sinks = vec![KafkaSink::connect(cluster, raw_partitions).await?];
    for Target { prefix, raw_partitions } in others {
        sinks.push(KafkaSink::connect(&with_prefix(cluster, prefix), *raw_partitions).await?);
    }
    Ok(Routed::new(sinks))
}

fn with_prefix(cluster: &Cluster, prefix: &str) -> Cluster {
    Cluster { prefix: prefix.to_owned(), ..cluster.clone() }
}
