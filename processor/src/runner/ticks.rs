//! Ticks: empty records that keep the clock of an idle raw partition going.
//!
//! The owner of a partition appends a record with header `tacho-tick` 1 s and 3 s after the last record that
//! was not a tick, and then just after each 10 s mark. Only a partition that is read to its end gets one. A
//! tick can also start an epoch on its partition (header `epoch`).
//!
//! When a tick is sent is decided by wall time, which is no part of any result: what a tick does follows from
//! its place in the log. Ticks are records of the raw log, so a replay finds them where they were. They are
//! written outside of transactions: nothing transactional is ever in a raw topic.

use super::control::tick;
use super::{RunError, Work};
use crate::telemetry;
use processor_log::Log;
use schemas::id::{Epoch, Position, TopicPartition};
use std::collections::BTreeMap;

/// How long after the last record that was not a tick a partition gets ticks, ms.
const AFTER_DATA_MS: [i64; 2] = [1_000, 3_000];
/// How long a tick is put off while its partition is not read to its end, ms.
const RETRY_MS: i64 = 250;

/// When each raw partition gets its next tick, by the log's wall clock.
#[derive(Debug)]
pub struct Ticks {
    mark_ms: i64,
    partitions: BTreeMap<TopicPartition, Due>,
}

/// The ticks of one partition.
#[derive(Debug)]
struct Due {
    /// When the next tick is due, ms.
    at_ms: i64,
    /// How many ticks of [`AFTER_DATA_MS`] were sent since the last record that was not a tick.
    done: usize,
    /// When the last record that was not a tick was folded, ms.
    data_ms: i64,
    /// The latest epoch that a tick of this worker started on the partition.
    announced: Epoch,
}

impl Ticks {
    /// The ticks of a worker without partitions. `mark_ms` is the time between ticks of an idle partition.
    pub const fn new(mark_ms: i64) -> Self {
        Self {
            mark_ms,
            partitions: BTreeMap::new(),
        }
    }

    /// Adds a partition. Its first tick is due in 1 s, so that stage `series` gets its clock soon.
    pub fn watch(&mut self, partition: TopicPartition, now: i64) {
        self.partitions.insert(
            partition,
            Due {
                at_ms: now + AFTER_DATA_MS[0],
                done: 0,
                data_ms: now,
                announced: Epoch(0),
            },
        );
    }

    /// Removes a partition.
    pub fn forget(&mut self, partition: TopicPartition) {
        self.partitions.remove(&partition);
    }

    /// Notes that a record that is not a tick was folded at `now`.
    pub fn saw_data(&mut self, partition: TopicPartition, now: i64) {
        if let Some(due) = self.partitions.get_mut(&partition) {
            *due = Due {
                at_ms: now + AFTER_DATA_MS[0],
                done: 0,
                data_ms: now,
                announced: due.announced,
            };
        }
    }

    /// The latest epoch that a tick of this worker started on a partition.
    pub fn announced(&self, partition: TopicPartition) -> Epoch {
        self.partitions
            .get(&partition)
            .map_or(Epoch(0), |due| due.announced)
    }

    /// Notes that a tick that starts `epoch` was sent to a partition.
    pub fn announce(&mut self, partition: TopicPartition, epoch: Epoch) {
        if let Some(due) = self.partitions.get_mut(&partition) {
            due.announced = epoch;
        }
    }

    /// The partitions whose tick is due at `now`. A tick that is due later than any rule sets it was set before the wall
    /// clock went back, and is due too: an idle partition without ticks holds up all windows.
    fn due(&self, now: i64) -> Vec<TopicPartition> {
        let latest = now.saturating_add(self.mark_ms.max(AFTER_DATA_MS[1]));
        self.partitions
            .iter()
            .filter(|(_, due)| due.at_ms <= now || due.at_ms > latest)
            .map(|(partition, _)| *partition)
            .collect()
    }

    fn sent(&mut self, partition: TopicPartition, now: i64) {
        let mark_ms = self.mark_ms;
        if let Some(due) = self.partitions.get_mut(&partition) {
            due.done += 1;
            due.at_ms = match AFTER_DATA_MS.get(due.done) {
                Some(after) => due.data_ms + after,
                None => (now.div_euclid(mark_ms) + 1) * mark_ms,
            };
        }
    }

    fn put_off(&mut self, partition: TopicPartition, now: i64) {
        if let Some(due) = self.partitions.get_mut(&partition) {
            due.at_ms = now + RETRY_MS;
        }
    }
}

/// Appends the ticks that are due to partitions that are read to their end, and puts off the others.
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

    fn raw() -> TopicPartition {
        TopicPartition {
            topic: schemas::topic::Topic::RawLogs,
            partition: 0,
        }
    }

    #[test]
    fn a_wall_clock_that_goes_back_or_leaps_stops_no_tick() {
        for step_ms in [-3_600_000, -31_536_000_000, 3_600_000, 31_536_000_000] {
            let at = raw();
            let mut ticks = Ticks::new(10_000);
            ticks.watch(at, 100_000_000_000);
            let mut sent = 0;
            for second in 0..120 {
                let now = 100_000_000_000 + second * 1_000 + if second < 60 { 0 } else { step_ms };
                if ticks.due(now) == [at] {
                    sent += 1;
                    ticks.sent(at, now);
                }
            }
            assert!(
                (13..=16).contains(&sent),
                "{sent} ticks in 120 s with a step of {step_ms} ms"
            );
        }
    }

    #[test]
    fn one_three_then_each_mark() {
        let at = raw();
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
