//! The configuration of a log on Kafka: its cluster, and the identity of the log's user there.

use crate::cluster::Cluster;
use std::time::Duration;

/// The default session timeout: a member that is silent for so long loses its partitions.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(15);

/// The cluster of a log, and the identity of the log's user there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaConfig {
    /// The cluster.
    pub cluster: Cluster,
    /// The consumer group that the positions belong to.
    pub group: String,
    /// The user's place in the group; `None` for one that reads and appends, but neither joins nor commits.
    pub member: Option<Member>,
}

/// A worker's place in its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The identity that commits and fences, unique in the group and stable over restarts: with the group's name it is
    /// the `transactional.id`, and the `group.instance.id` if membership is static.
    pub name: String,
    /// Whether the group keeps the partitions of a member that left, until its session times out.
    pub is_static: bool,
    /// How long the member may be silent before it loses its partitions.
    pub session_timeout: Duration,
}

impl KafkaConfig {
    /// The configuration of a user that reads and appends, but neither joins the group nor commits.
    #[must_use]
    pub fn reader(cluster: &Cluster, group: &str) -> Self {
        Self {
            cluster: cluster.clone(),
            group: group.to_owned(),
            member: None,
        }
    }

    /// The configuration of a worker with defaults: static membership, session timeout 15 s.
    #[must_use]
    pub fn worker(cluster: &Cluster, group: &str, name: &str) -> Self {
        let member = Member {
            name: name.to_owned(),
            is_static: true,
            session_timeout: SESSION_TIMEOUT,
        };
        Self {
            cluster: cluster.clone(),
            group: group.to_owned(),
            member: Some(member),
        }
    }
}
