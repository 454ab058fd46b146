//! The deltas of one commit: what the facts since the last one add to each series and slot.

use crate::labels::{DeltaMap, OTHER, admissible};
use schemas::delta::{SEPARATOR, Slot};
use schemas::fact::{Dimensions, Fact};
use schemas::histogram::Histogram;
use schemas::metric::{Amount, Kind, Label, Metric, MetricDef, Sample, label_value};
use schemas::settings::Seed;
use strum::VariantArray;

/// Collects deltas under raw series keys: label values as they came, not yet capped.
#[derive(Clone, Debug)]
pub struct Deltas {
    map: DeltaMap,
    /// Dimensions that the seed switched off, so that their labels stay empty.
    hidden: Vec<Label>,
    /// Reused for every key: most keys are known already, and cost no allocation.
    key: String,
}

impl Deltas {
    pub fn new(seed: &Seed) -> Self {
        let off = |label: &Label| label.def().dimension.is_some_and(|attribute| !seed.dimensions.iter().any(|on| on == attribute));
        Self { map: DeltaMap::new(), hidden: Label::VARIANTS.iter().copied().filter(off).collect(), key: String::new() }
    }

    pub fn take(&mut self) -> DeltaMap {
        std::mem::take(&mut self.map)
    }

    /// Adds what every metric makes of `fact`.
    pub fn observe(&mut self, fact: &Fact, dimensions: &Dimensions<'_>, slot: Slot) {
        for metric in Metric::VARIANTS {
            let def = metric.def();
            (def.observe)(fact, &mut |sample, varying| {
                self.write_key(&def, fact, dimensions, varying);
                self.add(&def, sample, slot);
            });
        }
    }

    fn write_key(&mut self, def: &MetricDef, fact: &Fact, dimensions: &Dimensions<'_>, varying: Option<&'static str>) {
        self.key.clear();
        self.key.push_str(def.name);
        for label in def.labels {
            self.key.push(SEPARATOR);
            if self.hidden.contains(label) {
                continue;
            }
            let value = label_value(*label, dimensions, fact, varying);
            self.key.push_str(if !label.def().open || admissible(value) { value } else { OTHER });
        }
    }

    fn add(&mut self, def: &MetricDef, sample: Sample, slot: Slot) {
        if !self.map.contains_key(&self.key) {
            self.map.insert(self.key.clone(), std::collections::BTreeMap::new());
        }
        let Some(slots) = self.map.get_mut(&self.key) else { return };
        let amount = slots.entry(slot).or_insert_with(|| zero(def.kind));
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
}

fn zero(kind: Kind) -> Amount {
    match kind {
        Kind::Counter | Kind::UpDown => Amount::Count(0),
        Kind::WindowRatio => Amount::Ratio { numerator: 0, denominator: 0 },
        Kind::Histogram { .. } | Kind::WindowQuantiles => Amount::Values(Histogram::default()),
    }
}
