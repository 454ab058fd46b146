//! The deltas of one commit: what the facts since the last one add to each series and slot.

use crate::indexed::IndexMap;
use crate::labels::{DeltaMap, OTHER, admissible};
use schemas::delta::{SEPARATOR, Slot};
use schemas::fact::{Dimensions, Fact, FactKind};
use schemas::histogram::Histogram;
use schemas::metric::{Amount, Kind, Label, Metric, MetricDef, Sample, label_value};
use schemas::settings::Seed;
use std::collections::BTreeMap;
use strum::{EnumCount, VariantArray};

/// Collects deltas under raw series keys: label values as they came, not yet capped.
#[derive(Clone, Debug)]
pub struct Deltas {
    /// By metric.
    gathered: Vec<Gathered>,
    /// For each kind of fact, the metrics made of it.
    observers: Vec<Vec<Metric>>,
    /// Dimensions that the seed switched off, so that their labels stay empty.
    hidden: Vec<Label>,
    /// Reused for every key: most keys are known already, and cost no allocation.
    key: String,
}

/// What was added to the series of one metric, in the order in which they came up.
#[derive(Clone, Debug, Default)]
struct Gathered {
    series: IndexMap<String, BTreeMap<Slot, Amount>>,
    /// The series that was added to last: the next one often is the same.
    last: usize,
}

impl Deltas {
    pub fn new(seed: &Seed) -> Self {
        let off = |label: &Label| label.def().dimension.is_some_and(|attribute| !seed.dimensions.iter().any(|on| on == attribute));
        let made_of = |kind: &FactKind| Metric::VARIANTS.iter().copied().filter(|metric| metric.def().of == *kind).collect();
        Self {
            gathered: vec![Gathered::default(); Metric::COUNT],
            observers: FactKind::VARIANTS.iter().map(made_of).collect(),
            hidden: Label::VARIANTS.iter().copied().filter(off).collect(),
            key: String::new(),
        }
    }

    pub fn take(&mut self) -> DeltaMap {
        self.gathered.iter_mut().flat_map(|gathered| std::mem::take(&mut gathered.series)).collect()
    }

    /// Adds what every metric makes of `fact`.
    pub fn observe(&mut self, fact: &Fact, dimensions: &Dimensions<'_>, slot: Slot) {
        let Self { gathered, observers, hidden, key } = self;
        for metric in &observers[fact.kind() as usize] {
            let def = metric.def();
            (def.observe)(fact, &mut |sample, varying| {
                write_key(key, hidden, &def, &|label| label_value(label, dimensions, fact, varying));
                add_sample(gathered[*metric as usize].amount(key, slot, def.kind), &def, sample);
            });
        }
    }
}

fn write_key<'v>(key: &mut String, hidden: &[Label], def: &MetricDef, value_of: &dyn Fn(Label) -> &'v str) {
    key.clear();
    key.push_str(def.name);
    for label in def.labels {
        key.push(SEPARATOR);
        if !hidden.contains(label) {
            let value = value_of(*label);
            key.push_str(if !label.def().open || admissible(value) { value } else { OTHER });
        }
    }
}

impl Gathered {
    /// What was added to a series in a slot so far.
    fn amount(&mut self, key: &str, slot: Slot, kind: Kind) -> &mut Amount {
        if self.series.get_index(self.last).is_none_or(|(last, _)| last != key) {
            self.last = match self.series.get_index_of(key) {
                Some(index) => index,
                None => self.series.insert_full(key.to_owned(), BTreeMap::new()).0,
            };
        }
        self.series[self.last].entry(slot).or_insert_with(|| zero(kind))
    }
}

fn add_sample(amount: &mut Amount, def: &MetricDef, sample: Sample) {
    match (amount, sample) {
        (Amount::Count(count), Sample::Add(change)) => *count = count.saturating_add(change),
        (Amount::Ratio { numerator, denominator }, Sample::Share(within)) => {
            *numerator += u64::from(within);
            *denominator += 1;
        }
        (Amount::Ratio { numerator, denominator }, Sample::Shares(part, whole)) => {
            *numerator = numerator.saturating_add(part);
            *denominator = denominator.saturating_add(whole);
        }
        (Amount::Values(histogram), Sample::Value(value)) => histogram.record(value, def.unit.per()),
        _ => debug_assert!(false, "{}: a sample of another form than the metric's kind", def.name),
    }
}

fn zero(kind: Kind) -> Amount {
    match kind {
        Kind::Counter | Kind::UpDown => Amount::Count(0),
        Kind::WindowRatio => Amount::Ratio { numerator: 0, denominator: 0 },
        Kind::Histogram { .. } | Kind::WindowQuantiles => Amount::Values(Histogram::default()),
    }
}
