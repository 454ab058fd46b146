//! A sink that is there before its cluster is: until then records are refused, and senders told to come again. With a spool
//! that remembers the settings of an earlier run, records are taken before there is a cluster.

use super::control::Control;
use super::remembered::Remembered;
use crate::kafka::KafkaSink;
use crate::policy::Policies;
use crate::sink::{RawRecord, Sink, SinkError};
use crate::spool::{Spooled, Taken};
use schemas::cluster::Cluster;
use shell::process::chain;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// How long between two tries to read the settings.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// At the end, what the producer still has may take that long.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Where records go.
enum Way {
    Kafka(KafkaSink),
    Spooled(Spooled<KafkaSink>),
}

impl Way {
    fn kafka(&self) -> &KafkaSink {
        match self {
            Self::Kafka(sink) => sink,
            Self::Spooled(spool) => spool.upstream(),
        }
    }

    fn ready(&self) -> bool {
        match self {
            Self::Kafka(sink) => sink.ready(),
            Self::Spooled(spool) => spool.ready(),
        }
    }
}

/// The sink of a process that may start before the topics are there.
pub struct Late {
    way: OnceLock<Way>,
    ending: watch::Receiver<bool>,
}

impl Late {
    /// Without a cluster yet; not ready once `ending` says so.
    pub fn new(ending: watch::Receiver<bool>) -> Self {
        Self { way: OnceLock::new(), ending }
    }

    /// Why no records would be taken now.
    pub fn not_ready(&self) -> Option<&'static str> {
        match self.way.get() {
            _ if *self.ending.borrow() => Some("the process is ending"),
            None => Some("the settings in tacho.control are not read yet: the log says why"),
            Some(way) if !way.ready() => Some("Kafka does not take records: no broker answers, or a topic is not as it must be"),
            Some(_) => None,
        }
    }

    /// Shows in metrics what is in the spool.
    pub fn observe(&self) {
        if let Some(Way::Spooled(spool)) = self.way.get() {
            spool.observe();
        }
    }

    /// Ends: what the producer has goes out if it can, what is spooled stays. Blocks for a few seconds at most.
    pub fn end(&self) {
        let Some(way) = self.way.get() else { return };
        way.kafka().flush(FLUSH_MAX);
        if let Way::Spooled(spool) = way {
            spool.end();
        }
    }
}

impl Sink for Late {
    async fn append(&self, records: Vec<RawRecord>) -> Result<(), SinkError> {
        match self.way.get() {
            Some(Way::Kafka(sink)) => sink.append(records).await,
            Some(Way::Spooled(spool)) => spool.append(records).await,
            None => Err(SinkError::Unavailable("the settings in tacho.control are not read yet".to_owned())),
        }
    }

    fn ready(&self) -> bool {
        self.not_ready().is_none()
    }
}

/// Makes the way, once.
struct Opening<'a> {
    cluster: &'a Cluster,
    late: &'a Late,
    spool: Option<Taken>,
}

impl Opening<'_> {
    async fn open(&mut self, raw_partitions: i32) -> Result<(), String> {
        if let Some(way) = self.late.way.get() {
            if way.kafka().partitions() != raw_partitions {
                tracing::error!(raw_partitions, "tacho.control pins another number of raw partitions than was remembered: restart");
            }
            return Ok(());
        }
        let sink = KafkaSink::connect(self.cluster, raw_partitions).await.map_err(|error| chain(&error))?;
        let way = match self.spool.take() {
            Some(taken) => Way::Spooled(Spooled::start(taken, sink).map_err(|error| chain(&error))?),
            None => Way::Kafka(sink),
        };
        tracing::info!(raw_partitions, ready = way.ready(), "settings read, connected");
        // Nobody else sets it.
        let _ = self.late.way.set(way);
        Ok(())
    }

    /// With what an earlier run has remembered, where there is a spool and the cluster does not answer.
    async fn open_remembered(&mut self, policies: &Arc<Policies>) -> Result<(), String> {
        let Some(directory) = self.spool.as_ref().map(|taken| taken.path().to_owned()) else { return Ok(()) };
        let Some(remembered) = Remembered::load(&directory, &self.cluster.prefix) else { return Ok(()) };
        let Some(raw_partitions) = remembered.restore(policies) else { return Ok(()) };
        tracing::warn!("the settings of the last run are in force until the cluster answers: requests are spooled");
        self.open(raw_partitions).await
    }
}

/// Reads the control topic to its end, as often as it takes, and connects; gives that topic, to be followed.
pub async fn connect(cluster: &Cluster, policies: &Arc<Policies>, late: &Late, spool: Option<Taken>) -> Control {
    let directory: Option<PathBuf> = spool.as_ref().map(|taken| taken.path().to_owned());
    let mut opening = Opening { cluster, late, spool };
    let mut told = String::new();
    loop {
        let (asked, shared, remember) = (cluster.clone(), Arc::clone(policies), directory.clone());
        let why = match tokio::task::spawn_blocking(move || Control::read(&asked, shared, remember)).await {
            Ok(Ok(control)) => match opening.open(control.raw_partitions).await {
                Ok(()) => return control,
                Err(error) => error,
            },
            Ok(Err(error)) => {
                let why = chain(&error);
                opening.open_remembered(policies).await.err().map_or(why.clone(), |more| format!("{why}; {more}"))
            }
            Err(panic) => panic.to_string(),
        };
        if why != told {
            tracing::warn!(reason = why, "the cluster can't be used yet: trying again every second");
            told = why;
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}
