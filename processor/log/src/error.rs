//! Why a log did not do what was asked: one variant for each thing that a caller can do about it.

use crate::Commit;
use rdkafka::error::KafkaError;
use schemas::id::TopicPartition;
use schemas::settings::SettingsError;
use std::sync::Arc;

/// The error of a client, a store or the system, kept as the source of a [`LogError`]. It is cheap to clone, since every
/// request of a failed batch is told.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Cause {
    /// librdkafka, or a broker through it.
    #[error(transparent)]
    Kafka(Arc<KafkaError>),
    /// The store under the embedded log.
    #[error(transparent)]
    Store(Arc<fjall::Error>),
    /// The file system, or the system's threads.
    #[error(transparent)]
    Io(Arc<std::io::Error>),
    /// A stored value that is no protobuf of its kind.
    #[error(transparent)]
    Decode(#[from] prost::DecodeError),
    /// A control record that is no seed.
    #[error(transparent)]
    Settings(Arc<SettingsError>),
    /// Another error of the log, met on the way.
    #[error(transparent)]
    Log(Arc<LogError>),
}

impl From<KafkaError> for Cause {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(Arc::new(error))
    }
}

impl From<fjall::Error> for Cause {
    fn from(error: fjall::Error) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<std::io::Error> for Cause {
    fn from(error: std::io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<SettingsError> for Cause {
    fn from(error: SettingsError) -> Self {
        Self::Settings(Arc::new(error))
    }
}

impl From<LogError> for Cause {
    fn from(error: LogError) -> Self {
        Self::Log(Arc::new(error))
    }
}

/// Why the log did not do what was asked. `reason` is what was being done, or what is wrong; the source says the rest.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// The position is no longer in the log.
    #[error("{at} has no position {wanted} any more: it begins at {start}")]
    OutOfRange {
        /// The partition.
        at: TopicPartition,
        /// The position asked for.
        wanted: i64,
        /// The first position that is there.
        start: i64,
    },
    /// The topic is not there, or has another number of partitions than the seed says, or wrong settings.
    #[error("topic {topic}: {fault}")]
    Topic {
        /// The topic's name, prefix included.
        topic: String,
        /// What is wrong, and the command or setting that mends it.
        fault: String,
    },
    /// Nothing of a commit is in the log, and the caller may send it again: with what is still owned.
    #[error("commit aborted: {reason}")]
    Aborted {
        /// At which step.
        reason: String,
        /// What the log said.
        #[source]
        source: Option<Cause>,
        /// The commit, as it was given.
        commit: Box<Commit>,
    },
    /// Another process has this worker's identity: two processes have one name.
    #[error("fenced: {reason}")]
    Fenced {
        /// What the log said.
        reason: String,
    },
    /// The outcome of a commit is unknown or negative: drop all state, begin anew and restore.
    #[error("commit not confirmed: {reason}")]
    NotCommitted {
        /// At which step.
        reason: String,
        /// What the log said.
        #[source]
        source: Option<Cause>,
    },
    /// The log can't be reached, or failed: ask again later.
    #[error("log unavailable: {reason}")]
    Unavailable {
        /// What was being done, or what is wrong.
        reason: String,
        /// What the log said.
        #[source]
        source: Option<Cause>,
    },
    /// There is no room left on the disk.
    #[error("log full: {reason}")]
    Full {
        /// Where there is no room, and what to do about it.
        reason: String,
    },
    /// What is stored can't be read as what it should be.
    #[error("{at} holds what can't be read: {reason}")]
    Corrupt {
        /// Where: a partition, an offset in it, or a file.
        at: String,
        /// What is wrong.
        reason: String,
        /// What the decoder said.
        #[source]
        source: Option<Cause>,
    },
}

impl LogError {
    /// The error of a log that can't be reached or can't do something now, for a reason that needs no source.
    #[must_use]
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable {
            reason: reason.into(),
            source: None,
        }
    }

    /// The error of a log that failed while it was `doing` something.
    #[must_use]
    pub fn failed(doing: impl Into<String>, cause: impl Into<Cause>) -> Self {
        Self::Unavailable {
            reason: doing.into(),
            source: Some(cause.into()),
        }
    }

    /// The error of a stored value that is wrong, without the error of a decoder.
    #[must_use]
    pub fn corrupt(at: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Corrupt {
            at: at.into(),
            reason: reason.into(),
            source: None,
        }
    }

    /// The error of a stored value that is no `what`, with the error of its decoder.
    #[must_use]
    pub fn undecodable(at: impl Into<String>, what: &str, cause: impl Into<Cause>) -> Self {
        Self::Corrupt {
            at: at.into(),
            reason: format!("not {what}"),
            source: Some(cause.into()),
        }
    }

    /// The error of a commit that failed for good, for a reason that needs no source.
    #[must_use]
    pub fn not_committed(reason: impl Into<String>) -> Self {
        Self::NotCommitted {
            reason: reason.into(),
            source: None,
        }
    }
}

/// An error with its sources, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
