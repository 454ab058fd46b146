//! Which records the embedded log deletes by age and size, and which it never deletes.
//!
//! **Architecture Invariant:** no raw log record goes before it was folded and committed, whatever its age.

use super::codec::{self, PartitionState};
use super::store::{Store, stored};
use crate::LogError;
use schemas::id::TopicPartition;
use schemas::topic::Topic;

/// One day, ms.
const DAY_MS: i64 = 86_400_000;
/// How long raw records are kept: 7 days.
pub const RAW_AGE_MAX_MS: i64 = 7 * DAY_MS;
/// How many bytes of raw records are kept, over all raw topics: 10 GiB.
pub const RAW_BYTES_MAX: u64 = 10 * 1024 * 1024 * 1024;
/// How many records of a partition are looked at in one step.
const SCAN_MAX: usize = 4096;

/// How much of the raw topics is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long raw records are kept, ms.
    pub raw_age_ms: i64,
    /// How many bytes of raw records are kept.
    pub raw_bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            raw_age_ms: RAW_AGE_MAX_MS,
            raw_bytes: RAW_BYTES_MAX,
        }
    }
}

/// Why the records of a topic are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Because of their age, and of the size of all raw topics together.
    Raw {
        /// Whether a record stays until the group's committed position is past it.
        until_committed: bool,
    },
    /// Because of their age alone, ms.
    Age(i64),
    /// For no reason that is decided here: compaction deletes them, or whoever consumed them, or nobody.
    Nothing,
}

const fn rule(topic: Topic) -> Rule {
    match topic {
        Topic::RawLogs => Rule::Raw {
            until_committed: true,
        },
        Topic::RawTraces | Topic::RawMetrics => Rule::Raw {
            until_committed: false,
        },
        Topic::InboxLogs | Topic::InboxTraces | Topic::InboxMetrics => Rule::Age(DAY_MS),
        Topic::Quarantine => Rule::Age(7 * DAY_MS),
        Topic::Windows1m => Rule::Age(30 * DAY_MS),
        Topic::Windows5m => Rule::Age(90 * DAY_MS),
        Topic::Windows1h => Rule::Age(400 * DAY_MS),
        Topic::Deltas
        | Topic::Control
        | Topic::Labels
        | Topic::Sessions
        | Topic::SessionsChangelog
        | Topic::SeriesChangelog => Rule::Nothing,
    }
}

impl Retention {
    /// The partitions with something to delete, each with the offset before which all records go.
    ///
    /// # Errors
    /// The store failed, or holds a record that can't be read.
    pub(super) fn due(self, store: &Store, now_ms: i64) -> Result<Vec<(TopicPartition, i64)>, LogError> {
        let mut partitions = store.states();
        let is_raw = |topic| matches!(rule(topic), Rule::Raw { .. });
        let raw_bytes: u64 = partitions
            .iter()
            .filter(|(at, _)| is_raw(at.topic))
            .map(|(_, state)| state.bytes)
            .sum();
        let mut excess = raw_bytes.saturating_sub(self.raw_bytes);
        let mut due = Vec::new();
        // Larger partitions first: what is over the limit is taken from where most of it is.
        partitions.sort_by_key(|(at, state)| (std::cmp::Reverse(state.bytes), *at));
        for (at, state) in partitions {
            let (age_ms, limit, take) = match rule(at.topic) {
                Rule::Nothing => continue,
                Rule::Age(age_ms) => (age_ms, Some(state.end), 0),
                Rule::Raw {
                    until_committed: false,
                } => (self.raw_age_ms, Some(state.end), excess),
                Rule::Raw {
                    until_committed: true,
                } => (self.raw_age_ms, store.committed(at), excess),
            };
            let Some(limit) = limit else {
                continue;
            };
            let (until, freed) = scan(store, at, state, limit, now_ms.saturating_sub(age_ms), take)?;
            excess = excess.saturating_sub(freed);
            if until > state.start {
                due.push((at, until));
            }
        }
        Ok(due)
    }
}

/// The offset, at most `limit`, up to which records are older than `before_ms` or make up `excess` bytes; and the bytes that
/// their deletion frees.
fn scan(
    store: &Store,
    at: TopicPartition,
    state: PartitionState,
    limit: i64,
    before_ms: i64,
    excess: u64,
) -> Result<(i64, u64), LogError> {
    let (mut until, mut freed) = (state.start, 0);
    if limit <= state.start {
        return Ok((until, freed));
    }
    for entry in store
        .records
        .range(codec::record_key(at, state.start)..codec::record_key(at, limit))
        .take(SCAN_MAX)
    {
        let (key, value) = stored(entry.into_inner())?;
        let offset = codec::offset_of(&key).unwrap_or(state.start);
        if freed >= excess && codec::decode(at, offset, &value)?.appended.0 >= before_ms {
            break;
        }
        freed += value.len() as u64;
        until = offset + 1;
    }
    Ok((until, freed))
}
