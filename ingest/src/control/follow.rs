//! The control topic: the number of raw partitions that is pinned in its seed, and the privacy policy, which later
//! records change.
//!
//! **Architecture Invariant:** where the topic can't be read, the last policy that was read stays in force.

use super::remembered::Remembered;
use crate::control::policy::{FOLLOW_EVERY, Policies, Reading};
use processor_log::cluster::Cluster;
use processor_log::control::CONTROL;
use processor_log::follow::{Follower, Listener, follow};
use processor_log::kafka::KafkaReader;
use processor_log::{LogError, ReadLog};
use schemas::record::Record;
use schemas::settings::SettingsError;
use schemas::topic::Topic;
use settings::process::chain;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The longest time that one request to the brokers may take.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// The pause between two looks for the seed of a log that is new.
const SEED_EVERY: Duration = Duration::from_millis(50);
/// The group id of the client that reads the control topic; the client never joins the group and commits no offsets.
const GROUP: &str = "tacho-ingest";

/// Why there is no number of raw partitions yet, and no policy.
#[derive(Debug, thiserror::Error)]
pub enum NotYet {
    /// The log can't be reached, or does not answer.
    #[error("the control topic can't be read")]
    Log(#[from] LogError),
    /// The control topic does not exist.
    #[error(
        "there is no topic {topic}: make the topics with `tacho topics apply --kafka {bootstrap}{prefix}`"
    )]
    NoTopic {
        /// The control topic's name.
        topic: String,
        /// The cluster.
        bootstrap: String,
        /// The flags that name the prefixes, with a space before each; empty where there are none.
        prefix: String,
    },
    /// The control topic holds no records.
    #[error(
        "topic {0} is empty: `tacho topics apply`, or the first tacho-processor, writes the settings to it"
    )]
    Empty(String),
    /// The first record of the control topic is not a seed.
    #[error("topic {topic} has no settings at offset 0")]
    Seed {
        /// The control topic's name.
        topic: String,
        /// What is wrong.
        #[source]
        source: SettingsError,
    },
}

/// The control topic of a cluster, read to its end.
pub struct Control {
    reader: KafkaReader,
    follower: Follower,
    listener: PolicyListener,
    /// The pinned number of raw partitions.
    pub raw_partitions: i32,
}

impl Control {
    /// Reads the control topic to its end, puts its policy into force and remembers it in `directory`. Blocks for up to
    /// five seconds where no broker answers.
    ///
    /// # Errors
    /// The control topic can't be read now, or holds no settings.
    pub fn read(
        cluster: &Cluster,
        policies: Arc<Policies>,
        directory: Option<PathBuf>,
    ) -> Result<Self, NotYet> {
        let mut control = Self::read_quietly(cluster, policies, directory)?;
        control.listener.caught_up();
        Ok(control)
    }

    /// Reads only the pinned number of raw partitions, and remembers it in `directory`. Blocks as [`Self::read`] does.
    ///
    /// # Errors
    /// The control topic can't be read now, or holds no settings.
    pub fn raw_partitions(cluster: &Cluster, directory: Option<PathBuf>) -> Result<i32, NotYet> {
        Self::read_quietly(cluster, Arc::default(), directory).map(|control| control.raw_partitions)
    }

    /// Reads the control topic to its end and puts nothing into force.
    fn read_quietly(
        cluster: &Cluster,
        policies: Arc<Policies>,
        directory: Option<PathBuf>,
    ) -> Result<Self, NotYet> {
        let mut reader = KafkaReader::connect_within(cluster, GROUP, REQUEST_MAX)?;
        reader
            .partitions(Topic::Control)
            .map_err(|error| not_there(cluster, error))?;
        let topic = format!("{}{}", cluster.prefix, Topic::Control.name());
        let memory = directory.map(|directory| Memory {
            remembered: Remembered::new(&cluster.prefix),
            directory,
            is_stale: false,
        });
        let mut listener = PolicyListener::new(topic, policies, memory);
        let mut follower = Follower::new(CONTROL);
        follower.catch_up(&mut reader, |record| listener.record(record))?;
        let raw_partitions = listener
            .reading
            .raw_partitions()
            .ok_or_else(|| NotYet::Empty(listener.topic.clone()))?;
        listener.remember();
        Ok(Self {
            reader,
            follower,
            listener,
            raw_partitions,
        })
    }

    /// Puts each new policy into force, until the process ends. Blocks.
    pub fn follow(mut self, ending: &watch::Receiver<bool>) {
        let is_over = |pause| {
            std::thread::sleep(pause);
            *ending.borrow()
        };
        follow(self.follower, &mut self.reader, &mut self.listener, is_over);
    }
}

/// Puts each policy of a log into force, from its last one on, until `is_over` says so after a pause. Blocks.
pub fn follow_policy(
    log: &mut (impl ReadLog + ?Sized),
    policies: Arc<Policies>,
    is_over: impl FnMut(Duration) -> bool,
) {
    let mut listener = PolicyListener::new(Topic::Control.name().to_owned(), policies, None);
    follow(Follower::new(CONTROL), log, &mut listener, is_over);
}

/// The error of a topic that is not there, with the command that makes it for this cluster.
fn not_there(cluster: &Cluster, error: LogError) -> NotYet {
    let LogError::Topic { topic, .. } = error else {
        return error.into();
    };
    NotYet::NoTopic {
        topic,
        bootstrap: cluster.bootstrap.clone(),
        prefix: cluster.prefix_flags(),
    }
}

/// What is kept for a start without the cluster, and where.
struct Memory {
    remembered: Remembered,
    directory: PathBuf,
    /// Whether the directory has not what was read since.
    is_stale: bool,
}

/// Puts policies into force as the control topic has them.
struct PolicyListener {
    /// The topic's name, for errors.
    topic: String,
    reading: Reading,
    memory: Option<Memory>,
    /// The failure that was logged last, so that each is logged once; empty while the topic can be read.
    logged_failure: String,
}

impl PolicyListener {
    const fn new(topic: String, policies: Arc<Policies>, memory: Option<Memory>) -> Self {
        Self {
            topic,
            reading: Reading::new(policies),
            memory,
            logged_failure: String::new(),
        }
    }

    /// Writes what was read to the directory, if there is one.
    fn remember(&mut self) {
        let Some(memory) = &mut self.memory else { return };
        memory.is_stale = false;
        if let Err(error) = memory.remembered.save(&memory.directory) {
            tracing::warn!(%error, "the settings could not be remembered for a start without the cluster");
        }
    }
}

impl Listener for PolicyListener {
    type Error = NotYet;

    fn record(&mut self, record: &Record) -> Result<(), NotYet> {
        let (key, value) = (record.key.as_deref(), record.value.as_deref().unwrap_or_default());
        self.reading
            .add(record.offset, key, value)
            .map_err(|source| NotYet::Seed {
                topic: self.topic.clone(),
                source,
            })?;
        if let Some(memory) = &mut self.memory {
            memory.is_stale |= memory.remembered.add(record.offset, key, value);
        }
        Ok(())
    }

    fn caught_up(&mut self) {
        self.logged_failure.clear();
        self.reading.publish();
        if self.memory.as_ref().is_some_and(|memory| memory.is_stale) {
            self.remember();
        }
    }

    fn failed(&mut self, error: NotYet) {
        let reason = chain(&error);
        if reason != self.logged_failure {
            tracing::warn!(
                reason,
                "the control topic can't be read: the privacy policy stays as it is"
            );
            self.logged_failure = reason;
        }
    }

    fn pause(&self) -> Duration {
        match self.reading.raw_partitions() {
            Some(_) => FOLLOW_EVERY,
            None => SEED_EVERY,
        }
    }
}
