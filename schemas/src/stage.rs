//! The stage table: every step of the derivation, one arm each.
//!
//! A stage reads one input topic. Each partition of that topic is folded by one task, whose state is one
//! partition of the stage's changelog. The worker's loops over reading, restoring and committing follow from
//! the table.

use crate::id::TopicPartition;
use crate::topic::Topic;
use strum::VariantArray;

/// A stage of the derivation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray)]
pub enum Stage {
    /// Folds raw logs into sessions, one task for each raw partition.
    #[default]
    Sessions,
    /// Merges deltas into totals and windows, one task for each deltas partition.
    Series,
}

/// The definition of a stage: one row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageDef {
    /// The stage's name in labels and messages.
    pub name: &'static str,
    /// The topic that the stage reads; no two stages read the same one.
    pub input: Topic,
    /// The topic with the stage's state: one partition for each partition of the input.
    pub changelog: Topic,
    /// Whether the stage sends deltas to stage `series`, which then waits for the stage's clocks before a
    /// window is final.
    pub emits_deltas: bool,
    /// Whether the worker appends ticks to the input, so that the partition clock goes on while no records
    /// come.
    pub ticked: bool,
    /// The stage's number in delta records and in state: never changed, never used again.
    pub code: u32,
}

impl Stage {
    /// The stage's definition.
    #[must_use]
    pub const fn def(self) -> StageDef {
        match self {
            Self::Sessions => StageDef {
                name: "sessions",
                input: Topic::RawLogs,
                changelog: Topic::SessionsChangelog,
                emits_deltas: true,
                ticked: true,
                // Delta records and state that older versions wrote carry no number, which reads as 0.
                code: 0,
            },
            Self::Series => StageDef {
                name: "series",
                input: Topic::Deltas,
                changelog: Topic::SeriesChangelog,
                emits_deltas: false,
                ticked: false,
                code: 1,
            },
        }
    }

    /// The stage that reads a topic; `None` for a topic that is no input.
    #[must_use]
    pub fn of_input(topic: Topic) -> Option<Self> {
        Self::VARIANTS
            .iter()
            .copied()
            .find(|stage| stage.def().input == topic)
    }

    /// The changelog with the state of an input partition; `None` for a partition of a topic that is no
    /// input.
    #[must_use]
    pub fn changelog_of(input: TopicPartition) -> Option<TopicPartition> {
        let topic = Self::of_input(input.topic)?.def().changelog;
        let partition = input.partition;
        Some(TopicPartition { topic, partition })
    }

    /// The stage with that number; `None` for a number that this version does not know.
    #[must_use]
    pub fn by_code(code: u32) -> Option<Self> {
        Self::VARIANTS
            .iter()
            .copied()
            .find(|stage| stage.def().code == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::Cleanup;
    use std::collections::BTreeSet;

    #[test]
    fn inputs_changelogs_and_codes_are_unique() {
        let defs = || Stage::VARIANTS.iter().map(|stage| stage.def());
        let count = Stage::VARIANTS.len();
        assert_eq!(defs().map(|def| def.input).collect::<BTreeSet<_>>().len(), count);
        assert_eq!(
            defs().map(|def| def.changelog).collect::<BTreeSet<_>>().len(),
            count
        );
        assert_eq!(defs().map(|def| def.code).collect::<BTreeSet<_>>().len(), count);
    }

    #[test]
    fn a_changelog_has_a_partition_for_each_of_the_input() {
        for &stage in Stage::VARIANTS {
            let def = stage.def();
            assert_eq!(
                def.input.def().partitions,
                def.changelog.def().partitions,
                "{}",
                def.name
            );
            assert_eq!(def.changelog.def().cleanup, Cleanup::Compact, "{}", def.name);
            assert_eq!(Stage::of_input(def.input), Some(stage));
            assert_eq!(Stage::by_code(def.code), Some(stage));
        }
    }
}
