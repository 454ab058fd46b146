//! What is deleted by age and size, and what never is.

use super::codec::{self, Part};
use super::store::Store;
use super::writer::{parts, stored};
use crate::LogError;
use schemas::id::TopicPartition;
use schemas::stage::Stage;
use schemas::topic::Topic;

/// One day, ms.
const DAY_MS: i64 = 86_400_000;
/// How long raw records are kept: 7 days.
pub const RAW_AGE_MAX_MS: i64 = 7 * DAY_MS;
/// How many bytes of raw records are kept, over all raw topics: 10 GiB.
pub const RAW_BYTES_MAX: u64 = 10 * 1024 * 1024 * 1024;

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

/// Whether the bound by bytes holds for a topic: raw topics grow with the clients, all others with what is derived.
const fn is_raw(topic: Topic) -> bool {
    match topic {
        Topic::RawLogs | Topic::RawTraces | Topic::RawMetrics => true,
        Topic::InboxLogs
        | Topic::InboxTraces
        | Topic::InboxMetrics
        | Topic::Quarantine
        | Topic::Sessions
        | Topic::Windows1m
        | Topic::Windows5m
        | Topic::Windows1h
        | Topic::Control
        | Topic::Labels
        | Topic::Deltas
        | Topic::SessionsChangelog
        | Topic::SeriesChangelog => false,
    }
}

impl Retention {
    /// How long a topic's records are kept, ms; `None`: their age does not count.
    fn age_ms(self, topic: Topic) -> Option<i64> {
        if is_raw(topic) {
            return Some(self.raw_age_ms);
        }
        let days = topic.def().cleanup.retention_days()?;
        Some(i64::from(days) * DAY_MS)
    }

    /// For each partition with something to delete: the offset before which all goes.
    pub(super) fn due(self, store: &Store, now_ms: i64) -> Result<Vec<(TopicPartition, i64)>, LogError> {
        let parts = parts(store);
        let raw_bytes: u64 = parts
            .iter()
            .filter(|(at, _)| is_raw(at.topic))
            .map(|(_, part)| part.bytes)
            .sum();
        let mut excess = raw_bytes.saturating_sub(self.raw_bytes);
        let mut due = Vec::new();
        // Larger partitions first: what is over the limit is taken from where most of it is.
        let mut by_size = parts;
        by_size.sort_by_key(|(at, part)| (std::cmp::Reverse(part.bytes), *at));
        for (at, part) in by_size {
            let Some(age_ms) = self.age_ms(at.topic) else {
                continue;
            };
            let Some(limit) = deletable_until(store, at, part) else {
                continue;
            };
            let take = if is_raw(at.topic) { excess } else { 0 };
            let (until, freed) = scan(store, at, part.start, limit, now_ms.saturating_sub(age_ms), take)?;
            excess = excess.saturating_sub(freed);
            if until > part.start {
                due.push((at, until));
            }
        }
        Ok(due)
    }
}

/// What a stage reads goes only below its committed position; `None`: nothing may go.
fn deletable_until(store: &Store, at: TopicPartition, part: Part) -> Option<i64> {
    match Stage::of_input(at.topic) {
        Some(_) => store.look(|visible| visible.positions.get(&at).copied()),
        None => Some(part.end),
    }
}

/// How many records one look at a partition covers.
const SCAN_MAX: usize = 4096;

/// From `start`: the offset up to which records are older than `before_ms`, or make up `excess` bytes; and the bytes.
fn scan(
    store: &Store,
    at: TopicPartition,
    start: i64,
    limit: i64,
    before_ms: i64,
    excess: u64,
) -> Result<(i64, u64), LogError> {
    let mut freed = 0;
    let mut until = start;
    if limit <= start {
        return Ok((start, 0));
    }
    for entry in store
        .records
        .range(codec::record_key(at, start)..codec::record_key(at, limit))
        .take(SCAN_MAX)
    {
        let (key, value) = stored(entry.into_inner())?;
        let offset = codec::offset_of(&key).unwrap_or(start);
        if freed >= excess && codec::decode(at, offset, &value)?.appended.0 >= before_ms {
            break;
        }
        freed += value.len() as u64;
        until = offset + 1;
    }
    Ok((until, freed))
}
