//! The outbox of a source: how far its delta records have come in each target partition, and how the next
//! deltas become records.
//!
//! A target gets a record when there are deltas for it. Every target gets one when the source's clock has
//! passed a mark of `mark_ms` (10 s), so that windows close in targets that get nothing. More deltas than one
//! record takes go on in parts, one after another.
//!
//! **Invariant:** the records of a source to one target are a chain: each names the position of the one
//! before it.

use crate::{Deltas, Rules};
use schemas::delta::{
    DELTA_RECORD_BYTES_MAX, DELTA_RECORD_HEAD_BYTES_MAX, DeltaEntry, DeltaRecord, entry_bytes_max, target_of,
};
use schemas::id::Position;
use schemas::stage::Stage;
use schemas::time::PartitionClock;
use std::collections::BTreeMap;

/// The outbox of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbox {
    /// The position in the last record sent to each target partition; 0 before the first one.
    pub sent: Vec<Position>,
    /// The number of the mark (clock divided by `mark_ms`) at which a record last went to all targets.
    pub marked: Option<i64>,
}

/// The source of delta records, at a commit.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The stage that emits the deltas.
    pub stage: Stage,
    /// The partition of the stage's input.
    pub partition: i32,
    /// The position before which every record's deltas are sent with this commit or were sent earlier.
    pub position: Position,
    /// The source's clock at that position.
    pub clock: PartitionClock,
}

/// Deltas for one target, divided into parts, each of which fits into a record.
#[derive(Default)]
struct Parts {
    parts: Vec<Vec<DeltaEntry>>,
    /// An upper bound of the last part's size in bytes.
    bytes: usize,
}

impl Parts {
    fn push(&mut self, entry: DeltaEntry, bytes: usize) {
        let fits = DELTA_RECORD_HEAD_BYTES_MAX + self.bytes + bytes <= DELTA_RECORD_BYTES_MAX;
        match self.parts.last_mut().filter(|_| fits) {
            Some(part) => part.push(entry),
            None => {
                self.parts.push(vec![entry]);
                self.bytes = 0;
            }
        }
        self.bytes += bytes;
    }
}

impl Outbox {
    /// The outbox of a source that has sent nothing yet.
    pub fn new(rules: &Rules) -> Self {
        let targets = usize::try_from(rules.seed.delta_partitions).unwrap_or(1);
        Self {
            sent: vec![Position(0); targets],
            marked: None,
        }
    }

    /// Turns deltas into records, each with its target partition, and remembers what was sent.
    ///
    /// A target gets a record if there are deltas for it, and every target gets one if the clock has passed a
    /// mark. Deltas that do not fit into one record go on in further parts, one after another.
    pub fn seal(&mut self, deltas: Deltas, source: Source, rules: &Rules) -> Vec<(i32, DeltaRecord)> {
        let mark = source.clock.0.div_euclid(rules.seed.time.mark_ms);
        let to_all = self.marked != Some(mark);
        self.marked = Some(mark);
        let targets = rules.seed.delta_partitions;
        let mut by_target = by_target(deltas, targets);
        let mut records = Vec::new();
        for (target, sent) in (0..targets).zip(self.sent.iter_mut()) {
            let mut parts = by_target.remove(&target).unwrap_or_default().parts;
            if parts.is_empty() {
                if !to_all {
                    continue;
                }
                parts.push(Vec::new());
            }
            let previous = std::mem::replace(sent, source.position);
            let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
            for (part, deltas) in (0..).zip(parts) {
                let record = DeltaRecord {
                    source: source.partition,
                    previous: previous.0,
                    position: source.position.0,
                    clock: source.clock.0,
                    deltas,
                    stage: source.stage.def().code,
                    part,
                    of: if count == 1 { 0 } else { count },
                };
                records.push((target, record));
            }
        }
        records
    }
}

fn by_target(deltas: Deltas, targets: i32) -> BTreeMap<i32, Parts> {
    let mut by_target: BTreeMap<i32, Parts> = BTreeMap::new();
    for (series, slots) in deltas.into_inner() {
        let parts = by_target.entry(target_of(&series, targets)).or_default();
        for (slot, amount) in slots {
            let bytes = entry_bytes_max(&series, &amount);
            let entry = DeltaEntry {
                series: series.clone(),
                slot: slot.start.0,
                late: slot.late,
                arrival: slot.arrival.map(|arrival| arrival.0),
                amount: Some((&amount).into()),
            };
            parts.push(entry, bytes);
        }
    }
    by_target
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LabelTable, RawDeltas};
    use prost::Message;
    use schemas::delta::Slot;
    use schemas::histogram::Histogram;
    use schemas::metric::Amount;
    use schemas::settings::Seed;
    use schemas::time::EventTime;

    fn slot(minute: i64) -> Slot {
        Slot {
            start: EventTime(minute * 60_000),
            late: 3,
            arrival: Some(PartitionClock(i64::MAX)),
        }
    }

    #[test]
    fn what_does_not_fit_goes_on_in_parts_and_nothing_is_lost() {
        let rules = Rules::new(Seed::shipped());
        let mut raw = RawDeltas::default();
        let mut histogram = Histogram::default();
        (0..2_000_u64).for_each(|value| histogram.record(value * value, 1));
        for series in 0..40 {
            for minute in 0..200 {
                raw.add(
                    &format!("series {series}"),
                    slot(minute),
                    Amount::Values(histogram.clone()),
                );
            }
        }
        let deltas = LabelTable::new(&rules.seed).resolve(raw);
        let source = Source {
            stage: Stage::Sessions,
            partition: 3,
            position: Position(17),
            clock: PartitionClock(100_000),
        };
        let mut outbox = Outbox::new(&rules);
        let records = outbox.seal(deltas, source, &rules);
        let entries: usize = records.iter().map(|(_, record)| record.deltas.len()).sum();
        assert_eq!(entries, 40 * 200);
        for target in 0..rules.seed.delta_partitions {
            let parts: Vec<&DeltaRecord> = records
                .iter()
                .filter(|(to, _)| *to == target)
                .map(|(_, part)| part)
                .collect();
            assert!(
                parts.len() > 1,
                "target {target} got one part, and the test needs several"
            );
            for (number, part) in (0..).zip(&parts) {
                assert!(
                    part.encoded_len() <= DELTA_RECORD_BYTES_MAX,
                    "{}",
                    part.encoded_len()
                );
                assert!(part.encoded_len() > DELTA_RECORD_BYTES_MAX / 8 || part.is_last_part());
                assert_eq!((part.part, part.of as usize), (number, parts.len()));
                assert_eq!((part.previous, part.position), (0, 17));
                assert_eq!(part.is_last_part(), number as usize + 1 == parts.len());
            }
        }
        assert_eq!(outbox.sent, vec![Position(17); 8]);
        let nothing = outbox.seal(
            Deltas::none(),
            Source {
                position: Position(18),
                ..source
            },
            &rules,
        );
        assert!(
            nothing.is_empty(),
            "without deltas and without a new mark, nothing is sent"
        );
    }
}
