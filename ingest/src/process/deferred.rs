//! A sink that exists before its cluster does. Requests are answered with "try again" until the settings in the control
//! topic have been read; with a spool that remembers the settings of an earlier run, requests are spooled from the start.

use crate::control::follow::{Control, NotYet};
use crate::control::policy::Policies;
use crate::control::remembered::Remembered;
use crate::inbox::Target;
use crate::sink::kafka::{ConnectError, KafkaSink};
use crate::sink::routed::Routed;
use crate::sink::spool::{SpoolError, Spooled, Taken};
use crate::sink::{RawRecord, Sink, SinkError};
use processor_log::cluster::Cluster;
use settings::process::chain;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinError;

/// The pause between two attempts to read the settings.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How long the producers may take at the end of the process to send what they still hold.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// One prefix that records go to, and its spool.
pub struct Destination {
    /// The cluster, with the prefix of the destination.
    pub cluster: Cluster,
    /// The spool in which records wait while Kafka does not answer; `None` without a spool directory.
    pub spool: Option<Taken>,
}

/// Why the destinations can't be used yet.
#[derive(Debug, thiserror::Error)]
enum ConnectingError {
    /// The settings in a control topic can't be read.
    #[error(transparent)]
    Settings(#[from] NotYet),
    /// A producer can't be made.
    #[error(transparent)]
    Producer(#[from] ConnectError),
    /// A spool can't be started.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The settings can't be read, and those of the last run can't be used either.
    #[error("{}; the settings of the last run can't be used either", chain(settings))]
    Remembered {
        settings: NotYet,
        #[source]
        source: Box<ConnectingError>,
    },
    /// The task that reads the settings panicked.
    #[error("the task that reads the settings failed")]
    Panicked(#[from] JoinError),
}

/// The sink of one prefix: its producer, with a spool before it where there is one.
enum PrefixSink {
    Kafka(KafkaSink),
    Spooled(Spooled<KafkaSink>),
}

impl PrefixSink {
    fn kafka(&self) -> &KafkaSink {
        match self {
            Self::Kafka(sink) => sink,
            Self::Spooled(spool) => spool.upstream(),
        }
    }
}

impl Sink for PrefixSink {
    async fn append(&self, records: Vec<RawRecord>) -> Result<(), SinkError> {
        match self {
            Self::Kafka(sink) => sink.append(records).await,
            Self::Spooled(spool) => spool.append(records).await,
        }
    }

    fn ready(&self) -> bool {
        match self {
            Self::Kafka(sink) => sink.ready(),
            Self::Spooled(spool) => spool.ready(),
        }
    }
}

/// The sink of a process that may start before its topics exist.
pub struct DeferredSink {
    sinks: OnceLock<Routed<PrefixSink>>,
    ending: watch::Receiver<bool>,
}

impl DeferredSink {
    /// A sink without a cluster yet; it is not ready once `ending` is true.
    pub fn new(ending: watch::Receiver<bool>) -> Self {
        Self {
            sinks: OnceLock::new(),
            ending,
        }
    }

    /// Why no records would be taken now; `None` if they would be.
    pub fn not_ready(&self) -> Option<&'static str> {
        match self.sinks.get() {
            _ if *self.ending.borrow() => Some("the process is ending"),
            None => Some("the settings in tacho.control are not read yet: the log says why"),
            Some(sinks) if !sinks.ready() => {
                Some("Kafka does not take records: no broker answers, or a topic is not as it must be")
            }
            Some(_) => None,
        }
    }

    fn sinks(&self) -> &[PrefixSink] {
        self.sinks.get().map_or(&[], Routed::sinks)
    }

    /// Updates the metrics of the spools from what the spools hold now.
    pub fn observe(&self) {
        for sink in self.sinks() {
            if let PrefixSink::Spooled(spool) = sink {
                spool.observe();
            }
        }
    }

    /// Ends the sink: what the producers hold is sent if Kafka answers in time, what is spooled stays on disk. Blocks for
    /// a few seconds at most.
    pub fn end(&self) {
        std::thread::scope(|scope| {
            for sink in self.sinks() {
                scope.spawn(move || {
                    sink.kafka().flush(FLUSH_MAX);
                    if let PrefixSink::Spooled(spool) = sink {
                        spool.end();
                    }
                });
            }
        });
    }
}

impl Sink for DeferredSink {
    async fn append(&self, records: Vec<RawRecord>) -> Result<(), SinkError> {
        match self.sinks.get() {
            Some(sinks) => sinks.append(records).await,
            None => Err(SinkError::Unavailable(
                "the settings in tacho.control are not read yet".to_owned(),
            )),
        }
    }

    fn ready(&self) -> bool {
        self.not_ready().is_none()
    }
}

/// Where the settings of one prefix are read from, and the spool directory in which they are remembered.
#[derive(Clone)]
struct SettingsSource {
    cluster: Cluster,
    directory: Option<PathBuf>,
}

impl From<&Destination> for SettingsSource {
    fn from(destination: &Destination) -> Self {
        Self {
            cluster: destination.cluster.clone(),
            directory: destination.spool.as_ref().map(|spool| spool.path().to_owned()),
        }
    }
}

/// Makes the sinks of a [`DeferredSink`], once.
struct Opening<'a> {
    sink: &'a DeferredSink,
    destinations: Vec<Destination>,
}

impl Opening<'_> {
    /// Connects to all destinations, unless that has happened; `raw_partitions` are in the order of the destinations.
    async fn open(&mut self, raw_partitions: &[i32]) -> Result<(), ConnectingError> {
        if self.sink.sinks.get().is_some() {
            self.compare(raw_partitions);
            return Ok(());
        }
        let mut producers = Vec::with_capacity(self.destinations.len());
        for (destination, &raw_partitions) in self.destinations.iter().zip(raw_partitions) {
            producers.push(match destination.spool {
                Some(_) => KafkaSink::connect_before_spool(&destination.cluster, raw_partitions).await?,
                None => KafkaSink::connect(&destination.cluster, raw_partitions).await?,
            });
        }
        let mut sinks = Vec::with_capacity(producers.len());
        for (destination, producer) in self.destinations.iter_mut().zip(producers) {
            sinks.push(match destination.spool.take() {
                Some(taken) => {
                    PrefixSink::Spooled(Spooled::start(taken, producer, &destination.cluster.prefix)?)
                }
                None => PrefixSink::Kafka(producer),
            });
        }
        let sinks = Routed::new(sinks);
        tracing::info!(?raw_partitions, ready = sinks.ready(), "settings read, connected");
        // The sinks are set by this task alone, so they can't have been set by another one meanwhile.
        let _ = self.sink.sinks.set(sinks);
        Ok(())
    }

    /// Says so when the sinks were made for other numbers of raw partitions than the control topics pin.
    fn compare(&self, raw_partitions: &[i32]) {
        let opened = self.sink.sinks().iter().map(|sink| sink.kafka().partitions());
        if opened.ne(raw_partitions.iter().copied()) {
            tracing::error!(
                ?raw_partitions,
                "tacho.control pins another number of raw partitions than was remembered: restart"
            );
        }
    }

    /// Connects with the settings that an earlier run remembered, if every destination has a spool with some.
    async fn open_remembered(&mut self, policies: &Arc<Policies>) -> Result<(), ConnectingError> {
        let remembered = |destination: &Destination| {
            Remembered::load(destination.spool.as_ref()?.path(), &destination.cluster.prefix)
        };
        let Some((main, others)) = self.destinations.split_first() else {
            return Ok(());
        };
        let others: Option<Vec<i32>> = others
            .iter()
            .map(|destination| remembered(destination)?.raw_partitions())
            .collect();
        let (Some(others), Some(main)) = (others, remembered(main)) else {
            return Ok(());
        };
        let Some(raw_partitions) = main.restore(policies) else {
            return Ok(());
        };
        tracing::warn!(
            "the settings of the last run are in force until the cluster answers: requests are spooled"
        );
        self.open(&[&[raw_partitions], others.as_slice()].concat()).await
    }

    /// Reads the control topics once and connects; where they can't be read, what an earlier run remembered serves.
    async fn attempt(
        &mut self,
        sources: &[SettingsSource],
        policies: &Arc<Policies>,
    ) -> Result<(Control, Vec<Target>), ConnectingError> {
        let (asked, shared) = (sources.to_vec(), Arc::clone(policies));
        match tokio::task::spawn_blocking(move || read(&asked, shared)).await? {
            Ok((control, others)) => {
                let counts = others.iter().map(|other| other.raw_partitions);
                let counts: Vec<i32> = std::iter::once(control.raw_partitions).chain(counts).collect();
                self.open(&counts).await?;
                Ok((control, others))
            }
            Err(settings) => match self.open_remembered(policies).await {
                Ok(()) => Err(settings.into()),
                Err(error) => Err(ConnectingError::Remembered {
                    settings,
                    source: Box::new(error),
                }),
            },
        }
    }
}

/// Reads the control topics to their ends and connects to all destinations, the main one first, as often as it takes.
/// Returns the control topic of the main destination, to be followed, and the targets of the others.
pub async fn connect(
    destinations: Vec<Destination>,
    policies: &Arc<Policies>,
    sink: &DeferredSink,
) -> (Control, Vec<Target>) {
    let sources: Vec<SettingsSource> = destinations.iter().map(SettingsSource::from).collect();
    let mut opening = Opening { sink, destinations };
    let mut logged = String::new();
    loop {
        let error = match opening.attempt(&sources, policies).await {
            Ok(connected) => return connected,
            Err(error) => error,
        };
        let reason = chain(&error);
        if reason != logged {
            tracing::warn!(reason, "the cluster can't be used yet: trying again every second");
            logged = reason;
        }
        tokio::time::sleep(RETRY_EVERY).await;
    }
}

/// Reads the control topics of all prefixes; the policy in force is that of the main one, which is the first.
fn read(sources: &[SettingsSource], policies: Arc<Policies>) -> Result<(Control, Vec<Target>), NotYet> {
    let (main, others) = sources.split_first().expect("there always is a main prefix");
    let mut targets = Vec::with_capacity(others.len());
    for SettingsSource { cluster, directory } in others {
        let raw_partitions = Control::raw_partitions(cluster, directory.clone())?;
        targets.push(Target {
            prefix: cluster.prefix.clone(),
            raw_partitions,
        });
    }
    let control = Control::read(&main.cluster, policies, main.directory.clone())?;
    Ok((control, targets))
}
