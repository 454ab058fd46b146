//! A sink that is there before its cluster is: until then records are refused, and senders told to come again. With a spool
//! that remembers the settings of an earlier run, records are taken before there is a cluster.

use crate::control::follow::{Control, NotYet};
use crate::control::policy::Policies;
use crate::control::remembered::Remembered;
use crate::inbox::Target;
use crate::sink::kafka::KafkaSink;
use crate::sink::routed::Routed;
use crate::sink::spool::{Spooled, Taken};
use crate::sink::{RawRecord, Sink, SinkError};
use processor_log::cluster::Cluster;
use settings::process::chain;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// How long between two tries to read the settings.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// At the end, what the producers still have may take that long.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// A prefix that records go to.
pub struct Place {
    /// The cluster, with that prefix.
    pub cluster: Cluster,
    /// Where records wait while Kafka does not answer.
    pub spool: Option<Taken>,
}

/// Where records of one prefix go.
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
}

impl Sink for Way {
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

/// The sink of a process that may start before the topics are there.
pub struct Late {
    ways: OnceLock<Routed<Way>>,
    ending: watch::Receiver<bool>,
}

impl Late {
    /// Without a cluster yet; not ready once `ending` says so.
    pub fn new(ending: watch::Receiver<bool>) -> Self {
        Self {
            ways: OnceLock::new(),
            ending,
        }
    }

    /// Why no records would be taken now.
    pub fn not_ready(&self) -> Option<&'static str> {
        match self.ways.get() {
            _ if *self.ending.borrow() => Some("the process is ending"),
            None => Some("the settings in tacho.control are not read yet: the log says why"),
            Some(ways) if !ways.ready() => {
                Some("Kafka does not take records: no broker answers, or a topic is not as it must be")
            }
            Some(_) => None,
        }
    }

    fn ways(&self) -> &[Way] {
        self.ways.get().map_or(&[], Routed::sinks)
    }

    /// Shows in metrics what is in the spools.
    pub fn observe(&self) {
        for way in self.ways() {
            if let Way::Spooled(spool) = way {
                spool.observe();
            }
        }
    }

    /// Ends: what the producers have goes out if it can, what is spooled stays. Blocks for a few seconds at most.
    pub fn end(&self) {
        std::thread::scope(|scope| {
            for way in self.ways() {
                scope.spawn(move || {
                    way.kafka().flush(FLUSH_MAX);
                    if let Way::Spooled(spool) = way {
                        spool.end();
                    }
                });
            }
        });
    }
}

impl Sink for Late {
    async fn append(&self, records: Vec<RawRecord>) -> Result<(), SinkError> {
        match self.ways.get() {
            Some(ways) => ways.append(records).await,
            None => Err(SinkError::Unavailable(
                "the settings in tacho.control are not read yet".to_owned(),
            )),
        }
    }

    fn ready(&self) -> bool {
        self.not_ready().is_none()
    }
}

/// A prefix, and the directory of its spool.
#[derive(Clone)]
struct Known {
    cluster: Cluster,
    directory: Option<PathBuf>,
}

/// Makes the ways, once.
struct Opening<'a> {
    late: &'a Late,
    places: Vec<Place>,
}

impl Opening<'_> {
    /// The numbers of raw partitions are in the order of the places.
    async fn open(&mut self, raw_partitions: &[i32]) -> Result<(), String> {
        if self.late.ways.get().is_some() {
            if self
                .late
                .ways()
                .iter()
                .map(|way| way.kafka().partitions())
                .ne(raw_partitions.iter().copied())
            {
                tracing::error!(
                    ?raw_partitions,
                    "tacho.control pins another number of raw partitions than was remembered: restart"
                );
            }
            return Ok(());
        }
        let mut sinks = Vec::with_capacity(self.places.len());
        for (place, &raw_partitions) in self.places.iter().zip(raw_partitions) {
            let sink = match place.spool {
                Some(_) => KafkaSink::connect_before_spool(&place.cluster, raw_partitions).await,
                None => KafkaSink::connect(&place.cluster, raw_partitions).await,
            };
            sinks.push(sink.map_err(|error| chain(&error))?);
        }
        let mut ways = Vec::with_capacity(sinks.len());
        for (place, sink) in self.places.iter_mut().zip(sinks) {
            ways.push(match place.spool.take() {
                Some(taken) => Way::Spooled(
                    Spooled::start(taken, sink, &place.cluster.prefix).map_err(|error| chain(&error))?,
                ),
                None => Way::Kafka(sink),
            });
        }
        let ways = Routed::new(ways);
        tracing::info!(?raw_partitions, ready = ways.ready(), "settings read, connected");
        // Nobody else sets it.
        let _ = self.late.ways.set(ways);
        Ok(())
    }

    /// With what an earlier run has remembered, where there is a spool and the cluster does not answer.
    async fn open_remembered(&mut self, policies: &Arc<Policies>) -> Result<(), String> {
        let remembered =
            |place: &Place| Remembered::load(place.spool.as_ref()?.path(), &place.cluster.prefix);
        let Some((main, others)) = self.places.split_first() else {
            return Ok(());
        };
        let others: Option<Vec<i32>> = others
            .iter()
            .map(|place| remembered(place)?.raw_partitions())
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
}

/// Reads the control topics to their ends, as often as it takes, and connects to all prefixes, of which the main one is the
/// first; gives its control topic, to be followed, and what the others are.
pub async fn connect(places: Vec<Place>, policies: &Arc<Policies>, late: &Late) -> (Control, Vec<Target>) {
    let known = |place: &Place| Known {
        cluster: place.cluster.clone(),
        directory: place.spool.as_ref().map(|spool| spool.path().to_owned()),
    };
    let known: Vec<Known> = places.iter().map(known).collect();
    let mut opening = Opening { late, places };
    let mut told = String::new();
    loop {
        let (asked, shared) = (known.clone(), Arc::clone(policies));
        let why = match tokio::task::spawn_blocking(move || read(&asked, shared)).await {
            Ok(Ok((control, others))) => {
                let counts = others.iter().map(|other| other.raw_partitions);
                let counts: Vec<i32> = std::iter::once(control.raw_partitions).chain(counts).collect();
                match opening.open(&counts).await {
                    Ok(()) => return (control, others),
                    Err(error) => error,
                }
            }
            Ok(Err(error)) => {
                let why = chain(&error);
                opening
                    .open_remembered(policies)
                    .await
                    .err()
                    .map_or(why.clone(), |more| format!("{why}; {more}"))
            }
            Err(panic) => panic.to_string(),
        };
        if why != told {
            tracing::warn!(
                reason = why,
                "the cluster can't be used yet: trying again every second"
            );
            told = why;
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

/// Reads the control topics of all prefixes; the policy is that of the main one.
fn read(known: &[Known], policies: Arc<Policies>) -> Result<(Control, Vec<Target>), NotYet> {
    let (main, others) = known.split_first().expect("there always is a main prefix");
    let mut targets = Vec::with_capacity(others.len());
    for Known { cluster, directory } in others {
        let raw_partitions = Control::raw_partitions(cluster, directory.clone())?;
        targets.push(Target {
            prefix: cluster.prefix.clone(),
            raw_partitions,
        });
    }
    Ok((
        Control::read(&main.cluster, policies, main.directory.clone())?,
        targets,
    ))
}
