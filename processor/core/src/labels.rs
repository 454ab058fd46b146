//! Open labels: which of their values are shown, decided once for each value by its place in `tacho.labels`.
//!
//! The first values of a label and tenant in that topic, up to the cap, are admitted for ever. Every other
//! value is shown as `other`.
//!
//! **Invariant:** a verdict depends on `tacho.labels` alone, so it is the same on a replay, and all records
//! with one value go to the same series.

use schemas::delta::{SEPARATOR, Series, Slot};
use schemas::fact::UNASSIGNED;
use schemas::metric::{Amount, Label};
use schemas::settings::Seed;
use std::collections::{BTreeMap, BTreeSet};
use strum::VariantArray;

/// The value that is shown in place of every value that is not admitted.
pub const OTHER: &str = "other";
/// The most bytes of a value that can be admitted.
pub const VALUE_BYTES_MAX: usize = 128;

/// Amounts by series key and slot.
pub type DeltaMap = BTreeMap<String, BTreeMap<Slot, Amount>>;

/// Deltas under the label values that came off the wire, as tasks emit them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawDeltas(DeltaMap);

/// Deltas under the label values that are shown. Only [`LabelTable::resolve`] makes them of raw ones, so that
/// no value beyond a cap is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deltas(DeltaMap);

impl RawDeltas {
    /// Adds an amount to a series in a slot.
    pub fn add(&mut self, series: &str, slot: Slot, amount: Amount) {
        let slots = match self.0.get_mut(series) {
            Some(slots) => slots,
            None => self.0.entry(series.to_owned()).or_default(),
        };
        merge_into(slots, slot, amount);
    }

    /// Whether there are no deltas.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The amounts by series key and slot.
    #[must_use]
    pub const fn map(&self) -> &DeltaMap {
        &self.0
    }
}

impl FromIterator<(String, BTreeMap<Slot, Amount>)> for RawDeltas {
    fn from_iter<I: IntoIterator<Item = (String, BTreeMap<Slot, Amount>)>>(series: I) -> Self {
        Self(series.into_iter().collect())
    }
}

impl Deltas {
    /// No deltas, for tasks of stages that emit none.
    #[must_use]
    pub const fn none() -> Self {
        Self(DeltaMap::new())
    }

    /// The amounts by series key and slot.
    #[must_use]
    pub fn into_inner(self) -> DeltaMap {
        self.0
    }
}

fn merge_into(slots: &mut BTreeMap<Slot, Amount>, slot: Slot, amount: Amount) {
    match slots.get_mut(&slot) {
        Some(sum) => sum.merge(&amount),
        None => {
            slots.insert(slot, amount);
        }
    }
}

/// The admitted values of each open label and tenant, and the caps.
#[derive(Clone, Debug)]
pub struct LabelTable {
    caps: BTreeMap<&'static str, usize>,
    admitted: BTreeMap<(String, &'static str), BTreeSet<String>>,
}

/// How a label value is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The value is shown as it is.
    Admitted,
    /// The value is shown as [`OTHER`].
    Other,
    /// The value is not in the table, and the cap is not reached. It must be proposed to `tacho.labels`, and
    /// the verdict is known after reading that.
    Unknown,
}

impl LabelTable {
    /// A table without admitted values, with the caps of the seed.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        let open = |label: &&Label| label.def().open;
        let cap = |label: &Label| {
            (
                label.def().name,
                seed.caps
                    .get(label.def().name)
                    .copied()
                    .unwrap_or(label.def().cap),
            )
        };
        Self {
            caps: Label::VARIANTS.iter().filter(open).map(cap).collect(),
            admitted: BTreeMap::new(),
        }
    }

    /// Applies a record of `tacho.labels`: key `tenant/label`, and the proposed value. Records must come in
    /// the order of their offsets.
    ///
    /// A record of an unknown label, of a value that is admitted already or of one beyond the cap changes
    /// nothing.
    pub fn apply(&mut self, key: &str, value: &str) {
        let Some((tenant, name)) = key.split_once('/') else {
            return;
        };
        let Some((&name, &cap)) = self.caps.get_key_value(name) else {
            return;
        };
        if !admissible(value) {
            return;
        }
        let values = self.admitted.entry((tenant.to_owned(), name)).or_default();
        if values.len() < cap {
            values.insert(value.to_owned());
        }
    }

    /// How a value of an open label is shown.
    #[must_use]
    pub fn verdict(&self, tenant: &str, label: Label, value: &str) -> Verdict {
        if value == UNASSIGNED || value == OTHER {
            return Verdict::Admitted;
        }
        if !admissible(value) {
            return Verdict::Other;
        }
        let name = label.def().name;
        let cap = self.caps.get(name).copied().unwrap_or(0);
        match self.admitted.get(&(tenant.to_owned(), name)) {
            Some(values) if values.contains(value) => Verdict::Admitted,
            Some(values) if values.len() >= cap => Verdict::Other,
            _ if cap == 0 => Verdict::Other,
            _ => Verdict::Unknown,
        }
    }

    /// The values in `deltas` whose verdict is [`Verdict::Unknown`], as keys and values of records for
    /// `tacho.labels`.
    #[must_use]
    pub fn proposals(&self, deltas: &RawDeltas) -> BTreeSet<(String, String)> {
        let mut proposals = BTreeSet::new();
        for series in deltas.0.keys().filter_map(|key| Series::parse(key)) {
            let tenant = tenant_of(&series);
            for (label, value) in series.labels().filter(|(label, _)| label.def().open) {
                if self.verdict(tenant, label, value) == Verdict::Unknown {
                    proposals.insert((format!("{tenant}/{}", label.def().name), value.to_owned()));
                }
            }
        }
        proposals
    }

    /// How many series of `deltas` have a value that is shown as [`OTHER`], by name of the label.
    #[must_use]
    pub fn overflow(&self, deltas: &RawDeltas) -> BTreeMap<&'static str, u64> {
        let mut overflow = BTreeMap::new();
        for series in deltas.0.keys().filter_map(|key| Series::parse(key)) {
            let tenant = tenant_of(&series);
            for (label, value) in series.labels().filter(|(label, _)| label.def().open) {
                if value == OTHER || self.verdict(tenant, label, value) == Verdict::Other {
                    *overflow.entry(label.def().name).or_insert(0) += 1;
                }
            }
        }
        overflow
    }

    /// The deltas under the label values that are shown. Series that become the same are merged.
    ///
    /// May be called only if [`LabelTable::proposals`] is empty, since a value without a verdict becomes
    /// [`OTHER`].
    #[must_use]
    pub fn resolve(&self, deltas: RawDeltas) -> Deltas {
        let mut resolved = DeltaMap::new();
        for (raw, slots) in deltas.0 {
            let target = resolved.entry(self.resolve_key(&raw)).or_default();
            for (slot, amount) in slots {
                merge_into(target, slot, amount);
            }
        }
        Deltas(resolved)
    }

    fn resolve_key(&self, raw: &str) -> String {
        let Some(series) = Series::parse(raw) else {
            return raw.to_owned();
        };
        let tenant = tenant_of(&series);
        let mut key = String::with_capacity(raw.len());
        key.push_str(series.metric.def().name);
        for (label, value) in series.metric.def().labels.iter().zip(&series.values) {
            let shown = value.is_empty()
                || !label.def().open
                || self.verdict(tenant, *label, value) == Verdict::Admitted;
            key.push(SEPARATOR);
            key.push_str(if shown { value } else { OTHER });
        }
        key
    }
}

/// Whether a value can be admitted: it has at most [`VALUE_BYTES_MAX`] bytes and no control characters.
#[must_use]
pub fn admissible(value: &str) -> bool {
    let plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    // Nearly all values are ASCII, of which it is enough to check the bytes.
    value.len() <= VALUE_BYTES_MAX && (value.bytes().all(plain) || !value.chars().any(char::is_control))
}

fn tenant_of<'k>(series: &Series<'k>) -> &'k str {
    series
        .labels()
        .find(|(label, _)| *label == Label::Tenant)
        .map_or("", |(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::time::EventTime;

    fn table(cap: usize) -> LabelTable {
        let mut seed = Seed::shipped();
        seed.caps.insert("team".to_owned(), cap);
        LabelTable::new(&seed)
    }

    #[test]
    fn first_come_in_the_log_is_admitted_for_ever() {
        let mut table = table(2);
        assert_eq!(table.verdict("t", Label::Team, "a"), Verdict::Unknown);
        ["a", "a", "b", "c"]
            .iter()
            .for_each(|value| table.apply("t/team", value));
        assert_eq!(table.verdict("t", Label::Team, "a"), Verdict::Admitted);
        assert_eq!(table.verdict("t", Label::Team, "b"), Verdict::Admitted);
        assert_eq!(table.verdict("t", Label::Team, "c"), Verdict::Other);
        assert_eq!(
            table.verdict("u", Label::Team, "c"),
            Verdict::Unknown,
            "each tenant has a cap of its own"
        );
        assert_eq!(table.verdict("t", Label::Team, UNASSIGNED), Verdict::Admitted);
        assert_eq!(table.verdict("t", Label::Team, &"x".repeat(129)), Verdict::Other);
        assert_eq!(table.verdict("t", Label::Team, "a\u{1f}b"), Verdict::Other);
    }

    #[test]
    fn values_beyond_the_cap_add_up_in_other() {
        let mut table = table(1);
        table.apply("t/team", "a");
        let key = |team: &str| ["tacho_policy_auto_window_ratio", "t", team].join("\u{1f}");
        let slot = Slot {
            start: EventTime(0),
            late: 0,
            arrival: None,
        };
        let one = || {
            BTreeMap::from([(
                slot,
                Amount::Ratio {
                    numerator: 1,
                    denominator: 2,
                },
            )])
        };
        let deltas = RawDeltas::from_iter([(key("a"), one()), (key("b"), one()), (key("c"), one())]);
        assert!(table.proposals(&deltas).is_empty());
        assert_eq!(table.overflow(&deltas), BTreeMap::from([("team", 2)]));
        let resolved = table.resolve(deltas).into_inner();
        assert_eq!(resolved[&key("a")], one());
        assert_eq!(
            resolved[&key(OTHER)][&slot],
            Amount::Ratio {
                numerator: 2,
                denominator: 4
            }
        );
        assert_eq!(resolved.len(), 2);
    }
}
