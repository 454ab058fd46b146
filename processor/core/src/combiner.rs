//! The combiner: what the facts since the last take add to each series and slot, summed before it is sent, as
//! by a combiner in map-reduce.
//!
//! Counts of records ([`Fact::Record`]) are summed in a small table first, since nearly every record adds to
//! the same few series, whose keys need not be written each time.
//!
//! **Invariant:** the sums of any batching of the same facts add up to the same amounts.

use crate::RawDeltas;
use crate::indexed::IndexMap;
use crate::labels::{OTHER, admissible};
use schemas::delta::{BUCKET_BYTES_MAX, SEPARATOR, Slot, entry_bytes_max};
use schemas::event::EventKind;
use schemas::fact::{Dimensions, Fact, FactKind, Outcome, TimeSource};
use schemas::histogram::Histogram;
use schemas::metric::{Amount, Kind, Label, Metric, MetricDef, Sample, label_value, values};
use schemas::settings::Seed;
use std::collections::BTreeMap;
use strum::{EnumCount, VariantArray};

/// Sums up deltas under raw series keys: with the label values that came off the wire, not yet resolved.
#[derive(Clone, Debug)]
pub struct Combiner {
    /// The sums of each metric, in the order of [`Metric::VARIANTS`].
    sums: Vec<MetricSums>,
    /// The metrics that are made of each kind of fact, in the order of [`FactKind::VARIANTS`].
    observers: Vec<Vec<Metric>>,
    /// The labels of dimensions that the seed switches off; they stay empty.
    hidden: Vec<Label>,
    /// The buffer in which every key is written, so that a known key costs no allocation.
    key: String,
    /// Counts of records that are in no series yet: a direct-mapped table, indexed by [`index_of`].
    counts: Vec<Option<RecordCount>>,
    /// An upper bound of the bytes that the sums take when they are sent.
    bytes: usize,
}

/// The class of a record: what a [`Fact::Record`] says of it. Records of one class are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordClass {
    pub event: EventKind,
    pub outcome: Outcome,
    pub time_source: TimeSource,
    pub clamped: bool,
}

/// How many records of one class, tenant and slot there were.
#[derive(Clone, Debug)]
struct RecordCount {
    class: RecordClass,
    tenant: String,
    slot: Slot,
    records: i64,
}

/// The most counts of records in the table. A count whose index is taken moves the older one into its series.
const COUNTS_MAX: usize = 256;

/// The sums of one metric by series and slot; series are in the order in which they were first added to.
#[derive(Clone, Debug, Default)]
struct MetricSums {
    series: IndexMap<String, BTreeMap<Slot, Amount>>,
    /// Index of the series that was added to last, which often is the next one too.
    last: usize,
}

impl Combiner {
    /// A combiner without sums.
    pub fn new(seed: &Seed) -> Self {
        let off = |label: &Label| {
            label
                .def()
                .dimension
                .is_some_and(|attribute| !seed.dimensions.iter().any(|on| on == attribute))
        };
        let made_of = |kind: &FactKind| {
            Metric::VARIANTS
                .iter()
                .copied()
                .filter(|metric| metric.def().of == *kind)
                .collect()
        };
        Self {
            sums: vec![MetricSums::default(); Metric::COUNT],
            observers: FactKind::VARIANTS.iter().map(made_of).collect(),
            hidden: Label::VARIANTS.iter().copied().filter(off).collect(),
            key: String::new(),
            counts: vec![None; COUNTS_MAX],
            bytes: 0,
        }
    }

    /// Takes the sums since the last call.
    pub fn take(&mut self) -> RawDeltas {
        for index in 0..COUNTS_MAX {
            self.flush(index);
        }
        self.bytes = 0;
        self.sums
            .iter_mut()
            .flat_map(|sums| std::mem::take(&mut sums.series))
            .collect()
    }

    /// Adds what every metric makes of a fact.
    pub fn observe(&mut self, fact: &Fact, dimensions: &Dimensions<'_>, slot: Slot) {
        self.add(fact, dimensions, slot, 1);
    }

    fn add(&mut self, fact: &Fact, dimensions: &Dimensions<'_>, slot: Slot, times: i64) {
        let Self {
            sums,
            observers,
            hidden,
            key,
            bytes,
            ..
        } = self;
        for metric in &observers[fact.kind() as usize] {
            let def = metric.def();
            (def.observe)(fact, &mut |sample, varying| {
                write_key(key, hidden, &def, &|label| {
                    label_value(label, dimensions, fact, varying)
                });
                let amount = sums[*metric as usize].amount(key, slot, def.kind, bytes);
                let before = buckets(amount);
                add_sample(amount, &def, sample, times);
                *bytes += (buckets(amount) - before) * BUCKET_BYTES_MAX;
            });
        }
    }

    /// An upper bound of the bytes that the sums take when they are sent.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts a record of that class. Metrics made of [`Fact::Record`] have no identity labels but the
    /// tenant.
    pub fn count(&mut self, class: RecordClass, tenant: &str, slot: Slot) {
        let index = index_of(class, slot);
        match &mut self.counts[index] {
            Some(count) if count.class == class && count.slot == slot && count.tenant == tenant => {
                count.records += 1;
            }
            Some(_) | None => {
                self.flush(index);
                self.counts[index] = Some(RecordCount {
                    class,
                    tenant: tenant.to_owned(),
                    slot,
                    records: 1,
                });
            }
        }
    }

    /// Moves a count of records from the table into its series.
    fn flush(&mut self, index: usize) {
        let Some(RecordCount {
            class,
            tenant,
            slot,
            records,
        }) = self.counts[index].take()
        else {
            return;
        };
        let RecordClass {
            event,
            outcome,
            time_source,
            clamped,
        } = class;
        let fact = Fact::Record {
            event: event.def().name,
            outcome,
            time_source,
            clamped,
        };
        self.add(&fact, &Dimensions::unassigned(&tenant), slot, records);
    }
}

/// The index in the table of counts for records of that class and slot; other records may have the same
/// index.
const fn index_of(class: RecordClass, slot: Slot) -> usize {
    // Records of a few minutes come at a time, so four of them get indexes of their own.
    let minute = slot.start.0.div_euclid(60_000).rem_euclid(4) as usize;
    (class.event as usize * 8 + class.outcome as usize + minute * 64) % COUNTS_MAX
}

/// Writes the key of the series of a metric that has those label values. A value that can never be admitted
/// is written as [`OTHER`].
fn write_key<'v>(key: &mut String, hidden: &[Label], def: &MetricDef, value_of: &dyn Fn(Label) -> &'v str) {
    key.clear();
    key.push_str(def.name);
    for label in def.labels {
        key.push(SEPARATOR);
        if !hidden.contains(label) {
            let value = value_of(*label);
            debug_assert!(values::allows(*label, value), "{label:?} has no value {value:?}");
            key.push_str(if !label.def().open || admissible(value) {
                value
            } else {
                OTHER
            });
        }
    }
}

impl MetricSums {
    /// The sum of a series and slot so far. A new sum adds the bytes that it takes to `bytes`.
    fn amount(&mut self, key: &str, slot: Slot, kind: Kind, bytes: &mut usize) -> &mut Amount {
        if self
            .series
            .get_index(self.last)
            .is_none_or(|(last, _)| last != key)
        {
            self.last = match self.series.get_index_of(key) {
                Some(index) => index,
                None => self.series.insert_full(key.to_owned(), BTreeMap::new()).0,
            };
        }
        self.series[self.last].entry(slot).or_insert_with(|| {
            let amount = zero(kind);
            *bytes += entry_bytes_max(key, &amount);
            amount
        })
    }
}

/// How many buckets of an amount hold values.
fn buckets(amount: &Amount) -> usize {
    match amount {
        Amount::Count(_) | Amount::Ratio { .. } => 0,
        Amount::Values(histogram) => histogram.buckets.len(),
    }
}

/// Adds a sample `times` times. Only the samples of records are added more than once at a time.
fn add_sample(amount: &mut Amount, def: &MetricDef, sample: Sample, times: i64) {
    debug_assert!(
        times == 1 || matches!(sample, Sample::Add(_)),
        "{}: a metric made of records must be a counter",
        def.name
    );
    match (amount, sample) {
        (Amount::Count(count), Sample::Add(change)) => {
            *count = count.saturating_add(change.saturating_mul(times))
        }
        (
            Amount::Ratio {
                numerator,
                denominator,
            },
            Sample::Share(within),
        ) => {
            *numerator += u64::from(within);
            *denominator += 1;
        }
        (
            Amount::Ratio {
                numerator,
                denominator,
            },
            Sample::Shares(part, whole),
        ) => {
            *numerator = numerator.saturating_add(part);
            *denominator = denominator.saturating_add(whole);
        }
        (Amount::Values(histogram), Sample::Value(value)) => histogram.record(value, def.unit.per()),
        _ => debug_assert!(
            false,
            "{}: the form of a sample is not that of the metric's kind",
            def.name
        ),
    }
}

fn zero(kind: Kind) -> Amount {
    match kind {
        Kind::Counter | Kind::UpDown => Amount::Count(0),
        Kind::WindowRatio => Amount::Ratio {
            numerator: 0,
            denominator: 0,
        },
        Kind::Histogram { .. } | Kind::WindowQuantiles => Amount::Values(Histogram::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::time::EventTime;

    #[test]
    fn metrics_of_records_have_no_identity_labels() {
        for def in Metric::VARIANTS
            .iter()
            .map(|metric| metric.def())
            .filter(|def| def.of == FactKind::Record)
        {
            assert_eq!(def.kind, Kind::Counter, "{}", def.name);
            let of_records = [Label::Tenant, Label::Event, Label::Outcome, Label::Source];
            assert!(
                def.labels.iter().all(|label| of_records.contains(label)),
                "{}",
                def.name
            );
        }
    }

    #[test]
    fn records_of_one_class_are_counted_together_and_others_apart() {
        let mut combiner = Combiner::new(&Seed::shipped());
        let class = |event, clamped| RecordClass {
            event,
            outcome: Outcome::Applied,
            time_source: TimeSource::Attribute,
            clamped,
        };
        let mut sent = 0;
        for minute in 0..7 {
            let slot = Slot {
                start: EventTime(minute * 60_000),
                late: 0,
                arrival: None,
            };
            for event in EventKind::VARIANTS {
                for tenant in ["a", "b", "a"] {
                    combiner.count(class(*event, tenant == "b"), tenant, slot);
                    sent += 1;
                }
            }
        }
        let taken = combiner.take();
        let taken = taken.map();
        let sum = |begin: &str| -> i64 {
            let of = taken
                .iter()
                .filter(|(key, _)| key.starts_with(begin))
                .flat_map(|(_, slots)| slots.values());
            of.map(|amount| {
                if let Amount::Count(count) = amount {
                    *count
                } else {
                    0
                }
            })
            .sum()
        };
        assert_eq!(
            (
                sum("tacho_log_records_total"),
                sum("tacho_event_time_source_total")
            ),
            (sent, sent)
        );
        assert_eq!(sum("tacho_event_time_clamped_total") * 3, sent);
        assert_eq!(
            taken
                .iter()
                .filter(|(key, _)| key.starts_with("tacho_log_records_total"))
                .count(),
            EventKind::VARIANTS.len() * 2
        );
        assert!(combiner.take().is_empty());
    }
}
