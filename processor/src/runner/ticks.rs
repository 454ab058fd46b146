//! Ticks keep the clock of an idle partition going: 1 s and 3 s after its last record, then just after each 10 s mark.

use super::control::tick;
use super::{RunError, Work};
use crate::telemetry;
use processor_log::Log;
use schemas::id::{Epoch, Position, TopicPartition};
use std::collections::BTreeMap;

/// After the last record that was not a tick, ms.
const AFTER_DATA_MS: [i64; 2] = [1_000, 3_000];
/// How often a due tick is tried again while its partition is not read to its end, ms.
const RETRY_MS: i64 = 250;

/// When each raw partition gets its next tick. Wall time: what a tick does to results depends on its place in the log.
#[derive(Debug)]
pub struct Ticks {
    mark_ms: i64,
    partitions: BTreeMap<TopicPartition, Due>,
}

#[derive(Debug)]
struct Due {
    at: i64,
    /// How many of [`AFTER_DATA_MS`] are done since the last data, and when that came.
    done: usize,
    data: i64,
    /// The latest epoch that a tick of this worker started here.
    told: Epoch,
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
    pub fn watch(&mut self, partition: TopicPartition, now: i64) {
        self.partitions.insert(
            partition,
            Due {
                at: now + AFTER_DATA_MS[0],
                done: 0,
                data: now,
                told: Epoch(0),
            },
        );
    }

    /// A partition is no longer ours.
    pub fn forget(&mut self, partition: TopicPartition) {
        self.partitions.remove(&partition);
    }

    /// A record that is not a tick was folded.
    pub fn saw_data(&mut self, partition: TopicPartition, now: i64) {
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
    pub fn told(&self, partition: TopicPartition) -> Epoch {
        self.partitions.get(&partition).map_or(Epoch(0), |due| due.told)
    }

    /// A tick that starts `epoch` was sent.
    pub fn tell(&mut self, partition: TopicPartition, epoch: Epoch) {
        if let Some(due) = self.partitions.get_mut(&partition) {
            due.told = epoch;
        }
    }

    fn due(&self, now: i64) -> Vec<TopicPartition> {
        self.partitions
            .iter()
            .filter(|(_, due)| due.at <= now)
            .map(|(partition, _)| *partition)
            .collect()
    }

    fn sent(&mut self, partition: TopicPartition, now: i64) {
        let mark_ms = self.mark_ms;
        if let Some(due) = self.partitions.get_mut(&partition) {
            due.done += 1;
            due.at = match AFTER_DATA_MS.get(due.done) {
                Some(after) => due.data + after,
                None => (now.div_euclid(mark_ms) + 1) * mark_ms,
            };
        }
    }

    fn put_off(&mut self, partition: TopicPartition, now: i64) {
        if let Some(due) = self.partitions.get_mut(&partition) {
            due.at = now + RETRY_MS;
        }
    }
}

/// Appends the ticks that are due, to partitions that are read to their end.
pub fn send_due<L: Log>(work: &mut Work, log: &mut L) -> Result<(), RunError> {
    let now = log.wall_ms();
    let due = work.ticks.due(now);
    if due.is_empty() {
        return Ok(());
    }
    let ends = log.ends(&due)?;
    let mut ticks = Vec::new();
    for (at, end) in due.into_iter().zip(ends) {
        let read = work
            .tasks
            .get(at)
            .map_or(Position(0), processor_core::AnyTask::position);
        if end > read {
            work.ticks.put_off(at, now);
            continue;
        }
        ticks.push(tick(at, now, None));
        work.ticks.sent(at, now);
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
        let at = TopicPartition {
            topic: schemas::topic::Topic::RawLogs,
            partition: 0,
        };
        let mut ticks = Ticks::new(10_000);
        ticks.watch(at, 100_000);
        let mut sent = Vec::new();
        for now in (100_000..130_000).step_by(100) {
            if ticks.due(now) == [at] {
                sent.push(now);
                ticks.sent(at, now);
            }
        }
        assert_eq!(sent, [101_000, 103_000, 110_000, 120_000]);
        ticks.saw_data(at, 125_000);
        assert!(ticks.due(125_900).is_empty());
        assert_eq!(ticks.due(126_000), [at]);
    }
}
