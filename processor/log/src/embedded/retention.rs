//! Retention of the embedded log: the records that it deletes by age and size, and those that it never deletes.
//!
//! **Architecture Invariant:** no input record of a stage goes before it was folded and committed, whatever its age.

use super::codec::{self, PartitionState};
use super::store::{Store, stored};
use crate::LogError;
use schemas::id::TopicPartition;
use schemas::stage::Stage;
use schemas::topic::{Holds, Topic};

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

/// Why the records of a topic are deleted here. Compaction deletes others, and whoever consumed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Because of their age, and of the size of all raw topics together: these grow with the clients, all other topics with
    /// what is derived.
    Raw,
    /// Because of their age alone, ms.
    Age(i64),
}

/// The rule for a topic; `None`: nothing of it is deleted here.
fn rule(topic: Topic) -> Option<Rule> {
    let def = topic.def();
    match def.holds {
        Holds::Raw(_) => Some(Rule::Raw),
        Holds::Inbox(_)
        | Holds::Quarantined
        | Holds::Rows(_)
        | Holds::Control
        | Holds::Labels
        | Holds::Deltas
        | Holds::State => {
            let days = def.cleanup.retention_days()?;
            Some(Rule::Age(i64::from(days) * DAY_MS))
        }
    }
}

impl Retention {
    /// The partitions with something to delete, each with the offset before which all records go.
    ///
    /// # Errors
    /// The store failed, or holds a record that can't be read.
    pub(super) fn due(self, store: &Store, now_ms: i64) -> Result<Vec<(TopicPartition, i64)>, LogError> {
        let mut partitions = store.states();
        let is_raw = |topic| rule(topic) == Some(Rule::Raw);
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
            let (age_ms, take) = match rule(at.topic) {
                None => continue,
                Some(Rule::Age(age_ms)) => (age_ms, 0),
                Some(Rule::Raw) => (self.raw_age_ms, excess),
            };
            let Some(limit) = deletable_until(store, at, state) else {
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

/// The offset before which a partition's records may be deleted; `None`: none may. What a stage reads stays until the stage
/// has committed it, in every derivation of the directory.
fn deletable_until(store: &Store, at: TopicPartition, state: PartitionState) -> Option<i64> {
    match Stage::of_input(at.topic) {
        Some(_) => {
            let here = store.committed(at)?;
            let elsewhere = store.committed_elsewhere.get(&at).copied();
            Some(elsewhere.map_or(here, |elsewhere| elsewhere.min(here)))
        }
        None => Some(state.end),
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
        .range(store.keys.record(at, state.start)..store.keys.record(at, limit))
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
