//! Ticks keep the clock of an idle partition going: 1 s and 3 s after its last record, then just after each 10 s mark.

use super::control::tick;
use super::{RunError, State};
use crate::telemetry;
use processor_log::Log;
use schemas::id::TopicPartition;
use schemas::topic::Topic;
use std::collections::BTreeMap;

/// After the last record that was not a tick, ms.
const AFTER_DATA_MS: [i64; 2] = [1_000, 3_000];
/// How often a due tick is tried again while its partition is not read to its end, ms.
const RETRY_MS: i64 = 250;

/// When each raw partition gets its next tick. Wall time: what a tick does to results depends on its place in the log.
#[derive(Debug)]
pub struct Ticks {
    mark_ms: i64,
    partitions: BTreeMap<i32, Due>,
}

#[derive(Debug)]
struct Due {
    at: i64,
    /// How many of [`AFTER_DATA_MS`] are done since the last data, and when that came.
    done: usize,
    data: i64,
    /// The latest epoch that a tick of ours started here.
    told: i64,
}

impl Ticks {
    /// Of no partition yet.
    pub const fn new(mark_ms: i64) -> Self {
        Self {
            mark_ms,
            partitions: BTreeMap::new(),
        }
    }

    /// A partition became ours: due in 1 s, so that its source is heard soon.
    pub fn watch(&mut self, partition: i32, now: i64) {
        self.partitions.insert(
            partition,
            Due {
                at: now + AFTER_DATA_MS[0],
                done: 0,
                data: now,
                told: 0,
            },
        );
    }

    /// A partition is no longer ours.
    pub fn forget(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    /// A record that is not a tick was folded.
    pub fn saw_data(&mut self, partition: i32, now: i64) {
        if let Some(due) = self.partitions.get_mut(&partition) {
            *due = Due {
                at: now + AFTER_DATA_MS[0],
                done: 0,
                data: now,
                told: due.told,
            };
        }
    }

    /// The latest epoch that a tick was sent for.
    pub fn told(&self, partition: i32) -> i64 {
        self.partitions.get(&partition).map_or(0, |due| due.told)
    }

    /// A tick that starts `epoch` was sent.
    pub fn tell(&mut self, partition: i32, epoch: i64) {
        if let Some(due) = self.partitions.get_mut(&partition) {
            due.told = epoch;
        }
    }

    fn due(&self, now: i64) -> Vec<i32> {
        self.partitions
            .iter()
            .filter(|(_, due)| due.at <= now)
            .map(|(partition, _)| *partition)
            .collect()
    }

    fn sent(&mut self, partition: i32, now: i64) {
        let mark_ms = self.mark_ms;
        if let Some(due) = self.partitions.get_mut(&partition) {
            due.done += 1;
            due.at = match AFTER_DATA_MS.get(due.done) {
                Some(after) => due.data + after,
                None => (now.div_euclid(mark_ms) + 1) * mark_ms,
            };
        }
    }

    fn put_off(&mut self, partition: i32, now: i64) {
        if let Some(due) = self.partitions.get_mut(&partition) {
            due.at = now + RETRY_MS;
        }
    }
}

/// Appends the ticks that are due, to partitions that are read to their end.
pub fn send_due<L: Log>(state: &mut State, log: &mut L) -> Result<(), RunError> {
    let now = log.wall_ms();
    let due = state.ticks.due(now);
    if due.is_empty() {
        return Ok(());
    }
    let at: Vec<TopicPartition> = due
        .iter()
        .map(|&partition| TopicPartition {
            topic: Topic::RawLogs,
            partition,
        })
        .collect();
    let mut ticks = Vec::new();
    for (partition, end) in due.into_iter().zip(log.ends(&at)?) {
        let read = state
            .sessions
            .get(&partition)
            .map_or(0, processor_core::SessionTask::position);
        if end.0 > read {
            state.ticks.put_off(partition, now);
            continue;
        }
        ticks.push(tick(partition, now, None));
        state.ticks.sent(partition, now);
    }
    if !ticks.is_empty() {
        ticks.iter().for_each(|_| telemetry::tick());
        log.append(ticks)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_three_then_each_mark() {
        let mut ticks = Ticks::new(10_000);
        ticks.watch(0, 100_000);
        let mut sent = Vec::new();
        for now in (100_000..130_000).step_by(100) {
            if ticks.due(now) == [0] {
                sent.push(now);
                ticks.sent(0, now);
            }
        }
        assert_eq!(sent, [101_000, 103_000, 110_000, 120_000]);
        ticks.saw_data(0, 125_000);
        assert!(ticks.due(125_900).is_empty());
        assert_eq!(ticks.due(126_000), [0]);
    }
}
