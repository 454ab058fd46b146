//! Watches the cluster of a sink: whether its producers reach it, and whether the raw topics are as they must be.

use super::ConnectError;
use super::producer::Producing;
use crate::sink::linger::WAIT_MS;
use processor_log::cluster::Cluster;
use rdkafka::producer::Producer;
use schemas::signal::Signal;
use std::sync::Weak;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// How often the raw topics are looked at.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long a look at the raw topics may take.
const CHECK_TIME_MAX: Duration = Duration::from_secs(3);

/// What was found of the raw topics at the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum RawTopics {
    /// No broker answered; records are handed to the producer all the same.
    Unreachable,
    /// Every raw topic is there, with the pinned number of partitions.
    Ready,
    /// A topic is missing or has another number of partitions, so a record would end up where nobody expects it.
    Mismatch,
}

/// What a sink and the thread that watches its cluster share.
pub(super) struct Shared {
    /// The producer for requests that are alone, and the one for requests of a crowd: a client's linger is fixed.
    pub producers: [Producing; 2],
    /// The names of the raw topics, in the order of [`Signal::ALL`].
    pub names: [String; 3],
    /// The pinned number of partitions.
    pub partitions: i32,
    topics: AtomicU8,
}

impl Shared {
    pub fn new(cluster: &Cluster, partitions: i32, give_up: Duration) -> Result<Self, ConnectError> {
        Ok(Self {
            producers: [
                Producing::new(cluster, 0, give_up)?,
                Producing::new(cluster, WAIT_MS, give_up)?,
            ],
            names: Signal::ALL.map(|signal| format!("{}{}", cluster.prefix, signal.raw().name())),
            partitions,
            topics: AtomicU8::new(RawTopics::Unreachable as u8),
        })
    }

    /// Whether the last look found the raw topics like that.
    pub fn is(&self, topics: RawTopics) -> bool {
        self.topics.load(Ordering::Relaxed) == topics as u8
    }

    /// Looks at the raw topics now. Blocks for up to three seconds.
    pub fn check(&self) {
        let topics = self.look();
        let before = self.topics.swap(topics as u8, Ordering::Relaxed);
        if before != topics as u8 {
            tracing::info!(state = ?topics, "raw topics looked at");
        }
    }

    /// Asks the brokers for all topics, since asking for one by name could create it.
    fn look(&self) -> RawTopics {
        let metadata = match self.producers[0]
            .get()
            .client()
            .fetch_metadata(None, CHECK_TIME_MAX)
        {
            Ok(metadata) => metadata,
            Err(error) => {
                tracing::warn!(%error, "the cluster can't be reached");
                return RawTopics::Unreachable;
            }
        };
        for name in &self.names {
            let count = metadata
                .topics()
                .iter()
                .find(|topic| topic.name() == name)
                .map(|topic| topic.partitions().len());
            if count.and_then(|count| i32::try_from(count).ok()) != Some(self.partitions) {
                tracing::error!(topic = %name, ?count, pinned = self.partitions, "the topic has not the pinned number of partitions");
                return RawTopics::Mismatch;
            }
        }
        RawTopics::Ready
    }
}

/// Watches the producers and the raw topics for as long as the sink is there.
pub(super) fn watch(shared: &Weak<Shared>) {
    loop {
        std::thread::sleep(CHECK_INTERVAL);
        let Some(shared) = shared.upgrade() else { return };
        shared.producers.iter().for_each(Producing::replace_if_cut_off);
        shared.check();
    }
}
