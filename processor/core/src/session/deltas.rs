//! The deltas of one commit: what the facts since the last one add to each series and slot.

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
    /// One map a metric, so that a search does not go through the series of all others.
    series: Vec<DeltaMap>,
    /// For each kind of fact, the metrics made of it.
    observers: Vec<Vec<Metric>>,
    /// Dimensions that the seed switched off, so that their labels stay empty.
    hidden: Vec<Label>,
    /// Reused for every key: most keys are known already, and cost no allocation.
    key: String,
}

impl Deltas {
    pub fn new(seed: &Seed) -> Self {
        let off = |label: &Label| label.def().dimension.is_some_and(|attribute| !seed.dimensions.iter().any(|on| on == attribute));
        let made_of = |kind: &FactKind| Metric::VARIANTS.iter().copied().filter(|metric| metric.def().of == *kind).collect();
        Self {
            series: vec![DeltaMap::new(); Metric::COUNT],
            observers: FactKind::VARIANTS.iter().map(made_of).collect(),
            hidden: Label::VARIANTS.iter().copied().filter(off).collect(),
            key: String::new(),
        }
    }

    pub fn take(&mut self) -> DeltaMap {
        self.series.iter_mut().flat_map(std::mem::take).collect()
    }

    /// Adds what every metric makes of `fact`.
    pub fn observe(&mut self, fact: &Fact, dimensions: &Dimensions<'_>, slot: Slot) {
        let Self { series, observers, hidden, key } = self;
        for metric in &observers[fact.kind() as usize] {
            let def = metric.def();
            (def.observe)(fact, &mut |sample, varying| {
                write_key(key, hidden, &def, &|label| label_value(label, dimensions, fact, varying));
                add(&mut series[*metric as usize], key, &def, sample, slot);
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

fn add(series: &mut DeltaMap, key: &str, def: &MetricDef, sample: Sample, slot: Slot) {
    if let Some(slots) = series.get_mut(key) {
        add_sample(slots.entry(slot).or_insert_with(|| zero(def.kind)), def, sample);
    } else {
        let mut amount = zero(def.kind);
        add_sample(&mut amount, def, sample);
        series.insert(key.to_owned(), BTreeMap::from([(slot, amount)]));
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
