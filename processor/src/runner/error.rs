//! The faults that end a worker.

use processor_core::{Halt, RestoreError};
use processor_log::LogError;
use schemas::id::TopicPartition;
use schemas::settings::SEMANTICS;

/// Why a worker stopped for good.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The log can't be used as it is.
    #[error("the log can't be used")]
    Log(#[from] LogError),
    /// The state in a changelog can't be rebuilt.
    #[error(
        "state of {at} can't be restored; to rebuild it from the raw topics, use a new --prefix or data directory"
    )]
    Restore {
        /// The changelog partition.
        at: TopicPartition,
        /// Why the state can't be rebuilt.
        #[source]
        source: RestoreError,
    },
    /// The committed position and the position of the state differ.
    #[error(
        "{input}: the committed position is {committed:?} but the state in {changelog} is of {state:?}; nothing was folded. Restore the missing one, or rebuild from the raw topics under a new --prefix or data directory"
    )]
    Mismatch {
        /// The input partition.
        input: TopicPartition,
        /// The changelog partition.
        changelog: TopicPartition,
        /// The committed position of the group; `None` if there is none.
        committed: Option<i64>,
        /// The position in the changelog's meta record; `None` if there is none.
        state: Option<i64>,
    },
    /// The state in a changelog was computed under other semantics.
    #[error(
        "the state in {at} was computed under semantics {found}, and this version computes {SEMANTICS}: go on with the version that wrote it, or derive anew beside it under another derived prefix, as deploy/UPGRADING.md says"
    )]
    Semantics {
        /// The changelog partition.
        at: TopicPartition,
        /// The semantics of the state.
        found: u32,
    },
    /// A task can't fold a record, since the log is broken.
    #[error(
        "{at}@{offset} can't be folded; rebuild from the raw topics under a new --prefix or data directory"
    )]
    Halt {
        /// The input partition.
        at: TopicPartition,
        /// The offset of the record.
        offset: i64,
        /// Why the record can't be folded.
        #[source]
        source: Halt,
    },
    /// The group gave out a partition that no stage reads.
    #[error("{at} is input of no stage: another program is in the consumer group, or a newer version")]
    NoInput {
        /// The partition that was given out.
        at: TopicPartition,
    },
    /// A record of a changelog can't be read.
    #[error(
        "{at}@{offset} is not what this topic holds: was it written by another program or a newer version?"
    )]
    Foreign {
        /// The changelog partition.
        at: TopicPartition,
        /// The offset of the record.
        offset: i64,
    },
    /// A record of the control topic can't be followed by this version.
    #[error("{at}@{offset}: the settings can't be used")]
    Settings {
        /// The control partition.
        at: TopicPartition,
        /// The offset of the record.
        offset: i64,
        /// Why the record can't be followed.
        #[source]
        source: schemas::settings::SettingsError,
    },
}
