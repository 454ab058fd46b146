//! The topic table: every topic that Tachograph reads or writes, one arm each.
//!
//! Names, partition counts, cleanup policies and the origin of timestamps are here and nowhere else: the
//! topics of a cluster, the keys of the embedded log, its retention and `deploy/topics.toml` follow from the
//! table.

use crate::signal::Signal;
use strum::VariantArray;

/// A topic that Tachograph reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray)]
pub enum Topic {
    /// OTLP log requests, one conversation each: the truth that everything is derived from.
    RawLogs,
    /// OTLP trace requests.
    RawTraces,
    /// OTLP metric requests.
    RawMetrics,
    /// OTLP log requests of foreign writers, which ingest drains into [`Topic::RawLogs`].
    InboxLogs,
    /// OTLP trace requests of foreign writers, which ingest drains into [`Topic::RawTraces`].
    InboxTraces,
    /// OTLP metric requests of foreign writers, which ingest drains into [`Topic::RawMetrics`].
    InboxMetrics,
    /// Raw and inbox records that could not be understood, with the reason.
    Quarantine,
    /// Session rows: the latest row of a segment replaces the earlier ones.
    Sessions,
    /// Final windows of the smallest size, and their corrections.
    Windows1m,
    /// Final windows of the middle size, and their corrections.
    Windows5m,
    /// Final windows of the largest size, and their corrections.
    Windows1h,
    /// Settings and prices: record 0 is the seed, record N starts epoch N.
    Control,
    /// Admitted values of open labels, in order of admission.
    Labels,
    /// What stages send to stage `series`.
    Deltas,
    /// State of stage `sessions`, one partition for each raw logs partition.
    SessionsChangelog,
    /// State of stage `series`, one partition for each deltas partition.
    SeriesChangelog,
}

/// The definition of a topic: one row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicDef {
    /// The name, without the configurable prefix.
    pub name: &'static str,
    /// The configurable prefix that stands before the name.
    pub prefix: Prefix,
    /// What the records of the topic are.
    pub holds: Holds,
    /// How many partitions the topic has.
    pub partitions: Partitions,
    /// The cleanup policy: which records go, and when.
    pub cleanup: Cleanup,
    /// Whether the log, not the producer, stamps the records (`message.timestamp.type=LogAppendTime`).
    pub stamped: bool,
    /// Further settings of a Kafka topic, as key and value. They serve speed and size, so a topic with other
    /// values is used after a warning.
    pub config: &'static [(&'static str, &'static str)],
    /// The topic's number in the keys of the embedded log: never changed, never used again.
    pub code: u8,
    /// What the topic holds, in one sentence for people.
    pub about: &'static str,
}

/// What the records of a topic are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// OTLP requests of a signal, as ingest wrote them.
    Raw(Signal),
    /// OTLP requests of a signal, as foreign writers wrote them.
    Inbox(Signal),
    /// Raw and inbox records that can't be derived.
    Quarantined,
    /// Derived rows of a kind ([`crate::derived::Row`]).
    Rows(RowKind),
    /// The seed and epochs ([`crate::control`]).
    Control,
    /// Admitted values of open labels.
    Labels,
    /// Delta records ([`crate::delta::DeltaRecord`]).
    Deltas,
    /// Entries of tasks' state ([`crate::state`]).
    State,
}

/// The kinds of derived rows. Each has a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// Session rows.
    Session,
    /// Window rows of one minute.
    Window1m,
    /// Window rows of five minutes.
    Window5m,
    /// Window rows of an hour.
    Window1h,
}

/// The prefix before a topic's name: the prefix of the log, which all derivations read, or the prefix of one
/// derivation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// The topic stands under `prefix`: a log has one of it.
    Log,
    /// The topic stands under `derived_prefix`: each derivation of a log has its own.
    Derived,
}

/// The cleanup policy of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// Records are deleted by age.
    Delete {
        /// The age from which on a record may be deleted, days.
        retention_days: u32,
    },
    /// Records are deleted once their consumer has committed what follows from them, and never by age or
    /// size.
    Consumed,
    /// All but the latest record of each key are deleted.
    Compact,
    /// All but the latest record of each key are deleted, and the latest one by age.
    CompactAndDelete {
        /// The age from which on the latest record of a key may be deleted, days.
        retention_days: u32,
    },
    /// Nothing is deleted.
    Keep,
}

/// How many partitions a topic has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitions {
    /// As many as the raw logs topic.
    LikeRawLogs,
    /// As many as the deltas topic.
    LikeDeltas,
    /// [`FEW_PARTITIONS`] when the topic is created; nothing depends on their number.
    Few,
    /// Exactly one.
    One,
}

impl Cleanup {
    /// Whether only the latest record of each key is kept, so that every record must have a key.
    #[must_use]
    pub const fn is_compacted(self) -> bool {
        match self {
            Self::Compact | Self::CompactAndDelete { .. } => true,
            Self::Delete { .. } | Self::Consumed | Self::Keep => false,
        }
    }

    /// For how many days records are kept; `None` if no record is deleted by age.
    #[must_use]
    pub const fn retention_days(self) -> Option<u32> {
        match self {
            Self::Delete { retention_days } | Self::CompactAndDelete { retention_days } => {
                Some(retention_days)
            }
            Self::Consumed | Self::Compact | Self::Keep => None,
        }
    }
}

impl Partitions {
    /// The number of partitions in a log with `raw` raw partitions and `deltas` deltas partitions.
    #[must_use]
    pub const fn count(self, raw: i32, deltas: i32) -> i32 {
        match self {
            Self::LikeRawLogs => raw,
            Self::LikeDeltas => deltas,
            Self::Few => FEW_PARTITIONS,
            Self::One => 1,
        }
    }
}

/// How many partitions a new topic gets if nothing depends on their number.
pub const FEW_PARTITIONS: i32 = 4;

/// The largest record of any topic, in bytes: 8 MiB, and room for what a batch adds (`max.message.bytes`).
pub const MESSAGE_BYTES_MAX: i64 = 8_400_000;

/// Settings of Kafka for changelogs. Segments are small, so that a restore reads little, and are cleaned once
/// half of their bytes are outdated: with a lower ratio, brokers rewrite the same records again and again.
const STATE_CONFIG: &[(&str, &str)] = &[
    ("delete.retention.ms", "3600000"),
    ("min.cleanable.dirty.ratio", "0.5"),
    ("segment.bytes", "67108864"),
    ("segment.ms", "600000"),
];

impl Topic {
    /// The topic's definition.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a table: one arm a topic")]
    pub const fn def(self) -> TopicDef {
        match self {
            Self::RawLogs => raw(
                "codex.raw.logs.v1",
                Signal::Logs,
                1,
                "OTLP log requests, one conversation each",
            ),
            Self::RawTraces => raw(
                "codex.raw.traces.v1",
                Signal::Traces,
                2,
                "OTLP trace requests, as sent",
            ),
            Self::RawMetrics => raw(
                "codex.raw.metrics.v1",
                Signal::Metrics,
                3,
                "OTLP metric requests, as sent",
            ),
            Self::InboxLogs => inbox(
                "codex.inbox.logs.v1",
                Signal::Logs,
                14,
                "OTLP log requests of foreign writers",
            ),
            Self::InboxTraces => inbox(
                "codex.inbox.traces.v1",
                Signal::Traces,
                15,
                "OTLP trace requests of foreign writers",
            ),
            Self::InboxMetrics => inbox(
                "codex.inbox.metrics.v1",
                Signal::Metrics,
                16,
                "OTLP metric requests of foreign writers",
            ),
            Self::Quarantine => TopicDef {
                name: "codex.quarantine.v1",
                prefix: Prefix::Log,
                holds: Holds::Quarantined,
                partitions: Partitions::One,
                cleanup: Cleanup::Delete { retention_days: 7 },
                stamped: false,
                config: &[],
                code: 4,
                about: "records that could not be understood, with the reason",
            },
            Self::Sessions => TopicDef {
                name: "codex.sessions.v1",
                prefix: Prefix::Derived,
                holds: Holds::Rows(RowKind::Session),
                partitions: Partitions::LikeRawLogs,
                // Rows name people, so they are not kept for ever.
                cleanup: Cleanup::CompactAndDelete { retention_days: 400 },
                stamped: false,
                config: &[],
                code: 5,
                about: "session rows, the latest of each segment",
            },
            Self::Windows1m => windows("codex.windows.1m.v1", RowKind::Window1m, 6, 30),
            Self::Windows5m => windows("codex.windows.5m.v1", RowKind::Window5m, 7, 90),
            Self::Windows1h => windows("codex.windows.1h.v1", RowKind::Window1h, 8, 400),
            Self::Control => input(
                "tacho.control",
                Holds::Control,
                9,
                "settings and prices, an epoch each",
            ),
            Self::Labels => input(
                "tacho.labels",
                Holds::Labels,
                10,
                "admitted values of open labels",
            ),
            Self::Deltas => TopicDef {
                name: "tacho.deltas",
                prefix: Prefix::Derived,
                holds: Holds::Deltas,
                partitions: Partitions::LikeDeltas,
                cleanup: Cleanup::Consumed,
                stamped: true,
                config: &[],
                code: 11,
                about: "what was added to each series and minute",
            },
            Self::SessionsChangelog => changelog(
                "tacho.sessions-changelog",
                12,
                Partitions::LikeRawLogs,
                "state of stage sessions",
            ),
            Self::SeriesChangelog => changelog(
                "tacho.series-changelog",
                13,
                Partitions::LikeDeltas,
                "state of stage series",
            ),
        }
    }

    /// The name, without the configurable prefix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.def().name
    }

    /// The topic with that name, prefix left off; `None` if there is none.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::VARIANTS.iter().copied().find(|topic| topic.name() == name)
    }
}

const fn raw(name: &'static str, signal: Signal, code: u8, about: &'static str) -> TopicDef {
    TopicDef {
        name,
        prefix: Prefix::Log,
        holds: Holds::Raw(signal),
        partitions: Partitions::LikeRawLogs,
        cleanup: Cleanup::Delete { retention_days: 7 },
        stamped: true,
        config: &[],
        code,
        about,
    }
}

/// An inbox topic. Brokers stamp its records, since the stamps tell a topic that was deleted and created
/// again from one that is read once more.
const fn inbox(name: &'static str, signal: Signal, code: u8, about: &'static str) -> TopicDef {
    TopicDef {
        name,
        prefix: Prefix::Log,
        holds: Holds::Inbox(signal),
        partitions: Partitions::Few,
        cleanup: Cleanup::Delete { retention_days: 1 },
        stamped: true,
        config: &[],
        code,
        about,
    }
}

const fn windows(name: &'static str, kind: RowKind, code: u8, retention_days: u32) -> TopicDef {
    TopicDef {
        name,
        prefix: Prefix::Derived,
        holds: Holds::Rows(kind),
        partitions: Partitions::LikeDeltas,
        cleanup: Cleanup::Delete { retention_days },
        stamped: false,
        config: &[],
        code,
        about: "final windows and their corrections",
    }
}

/// An input beside the raw topics that is kept for ever, since a replay needs all of it.
const fn input(name: &'static str, holds: Holds, code: u8, about: &'static str) -> TopicDef {
    TopicDef {
        name,
        prefix: Prefix::Log,
        holds,
        partitions: Partitions::One,
        cleanup: Cleanup::Keep,
        stamped: false,
        config: &[],
        code,
        about,
    }
}

const fn changelog(name: &'static str, code: u8, partitions: Partitions, about: &'static str) -> TopicDef {
    TopicDef {
        name,
        prefix: Prefix::Derived,
        holds: Holds::State,
        partitions,
        cleanup: Cleanup::Compact,
        stamped: false,
        config: STATE_CONFIG,
        code,
        about,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_and_codes_are_unique_and_names_are_found_again() {
        let codes: BTreeSet<u8> = Topic::VARIANTS.iter().map(|topic| topic.def().code).collect();
        assert_eq!(codes.len(), Topic::VARIANTS.len());
        for &topic in Topic::VARIANTS {
            assert_eq!(Topic::by_name(topic.name()), Some(topic));
        }
    }
}
