//! The combiner: what the facts since the last commit add to each series and slot, summed before it is sent.

use crate::RawDeltas;
use crate::indexed::IndexMap;
use crate::labels::{OTHER, admissible};
use schemas::delta::{BUCKET_BYTES_MAX, SEPARATOR, Slot, entry_bytes_max};
use schemas::event::EventKind;
use schemas::fact::{Dimensions, Fact, FactKind, Outcome, TimeSource};
use schemas::histogram::Histogram;
use schemas::metric::{Amount, Kind, Label, Metric, MetricDef, Sample, label_value};
use schemas::settings::Seed;
use schemas::state::Identity;
use std::collections::BTreeMap;
use strum::{EnumCount, VariantArray};

/// Collects deltas under raw series keys: label values as they came, not yet capped.
#[derive(Clone, Debug)]
pub struct Combiner {
    /// By metric.
    gathered: Vec<Gathered>,
    /// For each kind of fact, the metrics made of it.
    observers: Vec<Vec<Metric>>,
    /// Dimensions that the seed switched off, so that their labels stay empty.
    hidden: Vec<Label>,
    /// Reused for every key: most keys are known already, and cost no allocation.
    key: String,
    /// Counts of records that are in no series yet, each in a place of its own: nearly every record is one of a few.
    counted: Vec<Option<Counted>>,
    /// At most how many bytes the gathered deltas take when they are sent.
    bytes: usize,
}

/// How a record ended: a [`Fact::Record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub event: EventKind,
    pub outcome: Outcome,
    pub time_source: TimeSource,
    pub clamped: bool,
}

/// So many records ended alike.
#[derive(Clone, Debug)]
struct Counted {
    ended: Ended,
    tenant: String,
    slot: Slot,
    records: i64,
}

/// How many counts of records are kept apart; with one more, an older one goes into its series.
const COUNTED_MAX: usize = 256;

/// What was added to the series of one metric, in the order in which they came up.
#[derive(Clone, Debug, Default)]
struct Gathered {
    series: IndexMap<String, BTreeMap<Slot, Amount>>,
    /// The series that was added to last: the next one often is the same.
    last: usize,
}

impl Combiner {
    /// A combiner that has gathered nothing yet.
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
            gathered: vec![Gathered::default(); Metric::COUNT],
            observers: FactKind::VARIANTS.iter().map(made_of).collect(),
            hidden: Label::VARIANTS.iter().copied().filter(off).collect(),
            key: String::new(),
            counted: vec![None; COUNTED_MAX],
            bytes: 0,
        }
    }

    /// Takes the sums since the last call.
    pub fn take(&mut self) -> RawDeltas {
        for place in 0..COUNTED_MAX {
            self.gather(place);
        }
        self.bytes = 0;
        self.gathered
            .iter_mut()
            .flat_map(|gathered| std::mem::take(&mut gathered.series))
            .collect()
    }

    /// Adds what every metric makes of `fact`.
    pub fn observe(&mut self, fact: &Fact, dimensions: &Dimensions<'_>, slot: Slot) {
        self.add(fact, dimensions, slot, 1);
    }

    fn add(&mut self, fact: &Fact, dimensions: &Dimensions<'_>, slot: Slot, times: i64) {
        let Self {
            gathered,
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
                let amount = gathered[*metric as usize].amount(key, slot, def.kind, bytes);
                let before = buckets(amount);
                add_sample(amount, &def, sample, times);
                *bytes += (buckets(amount) - before) * BUCKET_BYTES_MAX;
            });
        }
    }

    /// At most how many bytes the gathered deltas take when they are sent.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts a record; metrics made of [`Fact::Record`] carry no identity labels.
    pub fn count(&mut self, ended: Ended, tenant: &str, slot: Slot) {
        let place = place_of(ended, slot);
        match &mut self.counted[place] {
            Some(counted) if counted.ended == ended && counted.slot == slot && counted.tenant == tenant => {
                counted.records += 1
            }
            _ => {
                self.gather(place);
                self.counted[place] = Some(Counted {
                    ended,
                    tenant: tenant.to_owned(),
                    slot,
                    records: 1,
                });
            }
        }
    }

    /// Puts a count of records into its series.
    fn gather(&mut self, place: usize) {
        let Some(Counted {
            ended,
            tenant,
            slot,
            records,
        }) = self.counted[place].take()
        else {
            return;
        };
        let Ended {
            event,
            outcome,
            time_source,
            clamped,
        } = ended;
        let fact = Fact::Record {
            event: event.def().name,
            outcome,
            time_source,
            clamped,
        };
        self.add(
            &fact,
            &super::identity::of_identity(&tenant, &Identity::default()),
            slot,
            records,
        );
    }
}

/// The place for counts of records that end so; others may have the same one.
const fn place_of(ended: Ended, slot: Slot) -> usize {
    // A few minutes are written to at a time.
    let minute = slot.start.0.div_euclid(60_000).rem_euclid(4) as usize;
    (ended.event as usize * 8 + ended.outcome as usize + minute * 64) % COUNTED_MAX
}

fn write_key<'v>(key: &mut String, hidden: &[Label], def: &MetricDef, value_of: &dyn Fn(Label) -> &'v str) {
    key.clear();
    key.push_str(def.name);
    for label in def.labels {
        key.push(SEPARATOR);
        if !hidden.contains(label) {
            let value = value_of(*label);
            key.push_str(if !label.def().open || admissible(value) {
                value
            } else {
                OTHER
            });
        }
    }
}

impl Gathered {
    /// What was added to a series in a slot so far; a new delta adds to `bytes` what it takes.
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

/// How many buckets of a distribution hold values.
fn buckets(amount: &Amount) -> usize {
    match amount {
        Amount::Count(_) | Amount::Ratio { .. } => 0,
        Amount::Values(histogram) => histogram.buckets.len(),
    }
}

/// Adds a sample `times` times; only counts of records come more than once.
fn add_sample(amount: &mut Amount, def: &MetricDef, sample: Sample, times: i64) {
    debug_assert!(
        times == 1 || matches!(sample, Sample::Add(_)),
        "{}: made of records, and no counter",
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
            "{}: a sample of another form than the metric's kind",
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
    fn counts_of_records_need_nobodys_identity() {
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
    fn records_that_end_alike_are_counted_together_and_others_apart() {
        let mut combiner = Combiner::new(&Seed::shipped());
        let ended = |event, clamped| Ended {
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
                    combiner.count(ended(*event, tenant == "b"), tenant, slot);
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
