//! The topics, by role. Their partition counts and retention for a cluster are in `deploy/topics.toml`.

use strum::VariantArray;

/// Every topic that Tachograph reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray)]
pub enum Topic {
    /// OTLP log requests, one conversation each: the truth that everything is derived from.
    RawLogs,
    /// OTLP trace requests, as sent.
    RawTraces,
    /// OTLP metric requests, as sent.
    RawMetrics,
    /// OTLP log requests of foreign writers, which ingest drains into [`Topic::RawLogs`].
    InboxLogs,
    /// OTLP trace requests of foreign writers.
    InboxTraces,
    /// OTLP metric requests of foreign writers.
    InboxMetrics,
    /// Raw and inbox records that could not be understood, with the reason.
    Quarantine,
    /// One row per session segment, the latest wins.
    Sessions,
    /// Final one-minute windows and their corrections.
    Windows1m,
    /// Final five-minute windows and their corrections.
    Windows5m,
    /// Final one-hour windows and their corrections.
    Windows1h,
    /// Settings and prices: record 0 is the seed, record N starts epoch N.
    Control,
    /// Admitted values of open labels, in order of admission.
    Labels,
    /// What stage `sessions` sends to stage `series`.
    Deltas,
    /// State of stage `sessions`, one partition per raw logs partition.
    SessionsChangelog,
    /// State of stage `series`, one partition per deltas partition.
    SeriesChangelog,
}

/// How a topic forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// By age.
    Delete,
    /// All but the latest record of each key.
    Compact,
    /// Never.
    Keep,
}

/// How many partitions a topic has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitions {
    /// As many as the raw logs topic.
    LikeRawLogs,
    /// As many as the deltas topic.
    LikeDeltas,
    /// [`FEW_PARTITIONS`] when it is created; any number will do.
    Few,
    /// Exactly one.
    One,
}

/// Partitions of topics whose count nothing rests on.
pub const FEW_PARTITIONS: i32 = 4;

impl Topic {
    /// The name, without the configurable prefix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RawLogs => "codex.raw.logs.v1",
            Self::RawTraces => "codex.raw.traces.v1",
            Self::RawMetrics => "codex.raw.metrics.v1",
            Self::InboxLogs => "codex.inbox.logs.v1",
            Self::InboxTraces => "codex.inbox.traces.v1",
            Self::InboxMetrics => "codex.inbox.metrics.v1",
            Self::Quarantine => "codex.quarantine.v1",
            Self::Sessions => "codex.sessions.v1",
            Self::Windows1m => "codex.windows.1m.v1",
            Self::Windows5m => "codex.windows.5m.v1",
            Self::Windows1h => "codex.windows.1h.v1",
            Self::Control => "tacho.control",
            Self::Labels => "tacho.labels",
            Self::Deltas => "tacho.deltas",
            Self::SessionsChangelog => "tacho.sessions-changelog",
            Self::SeriesChangelog => "tacho.series-changelog",
        }
    }

    /// The topic of that name, if there is one.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::VARIANTS.iter().copied().find(|topic| topic.name() == name)
    }

    /// How the topic forgets.
    #[must_use]
    pub const fn cleanup(self) -> Cleanup {
        match self {
            Self::Control | Self::Labels => Cleanup::Keep,
            Self::Sessions | Self::SessionsChangelog | Self::SeriesChangelog => Cleanup::Compact,
            _ => Cleanup::Delete,
        }
    }

    /// How many partitions the topic has.
    #[must_use]
    pub const fn partitions(self) -> Partitions {
        match self {
            Self::Control | Self::Labels | Self::Quarantine => Partitions::One,
            Self::InboxLogs | Self::InboxTraces | Self::InboxMetrics => Partitions::Few,
            Self::Deltas | Self::SeriesChangelog | Self::Windows1m | Self::Windows5m | Self::Windows1h => {
                Partitions::LikeDeltas
            }
            _ => Partitions::LikeRawLogs,
        }
    }

    /// Whether the broker, not the producer, must stamp the records (`message.timestamp.type=LogAppendTime`).
    #[must_use]
    pub const fn stamped_by_log(self) -> bool {
        matches!(
            self,
            Self::RawLogs | Self::RawTraces | Self::RawMetrics | Self::Deltas
        ) || self.is_inbox()
    }

    /// Whether foreign writers write it.
    #[must_use]
    pub const fn is_inbox(self) -> bool {
        matches!(self, Self::InboxLogs | Self::InboxTraces | Self::InboxMetrics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found_again() {
        for &topic in Topic::VARIANTS {
            assert_eq!(Topic::by_name(topic.name()), Some(topic));
        }
    }
}
