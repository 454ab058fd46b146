//! The seed, with which `tacho.control` begins. It is fixed for the life of the topics, but for settings,
//! prices and the privacy policy, which later epochs may change (`control.rs`).

use crate::price::PriceTable;
use crate::privacy::PrivacyPolicy;
use crate::topic::Topic;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The record at offset 0 of `tacho.control`, as JSON. All of it but `settings`, `prices` and `privacy` is
/// fixed for the life of the topics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// A random text that tells this log from every other; whoever writes the seed makes it up. Empty in the
    /// shipped file, and in logs that older versions began.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Number of partitions of each raw topic, 1 to 1024.
    pub raw_partitions: i32,
    /// Number of partitions of `tacho.deltas`, 1 to 256.
    pub delta_partitions: i32,
    /// The rules of time.
    pub time: TimeRules,
    /// The resource attributes that become labels; the labels of others stay empty.
    pub dimensions: Vec<String>,
    /// The caps of open labels, by label name, that differ from those of the label table.
    #[serde(default)]
    pub caps: BTreeMap<String, usize>,
    /// Settings of epoch 0.
    pub settings: Settings,
    /// Prices of epoch 0; an empty table in logs that older versions began.
    #[serde(default)]
    pub prices: PriceTable,
    /// The privacy policy of epoch 0; an empty one in logs that older versions began.
    #[serde(default)]
    pub privacy: PrivacyPolicy,
}

/// The rules of time: slots, windows, lateness, and the bounds of clocks and marks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeRules {
    /// Length of a slot, the time unit of deltas, ms.
    pub slot_ms: i64,
    /// Lengths of the one to three window sizes, ms: ascending multiples of the slot. Topics name them 1m, 5m
    /// and 1h, whatever their lengths.
    pub window_sizes_ms: Vec<i64>,
    /// How long after a window's end, by the partition clock, its records are still in time, ms.
    pub grace_ms: i64,
    /// How often, by its clock, a source sends a delta record to every target, with deltas or without, ms.
    pub mark_ms: i64,
    /// How far event time may be ahead of the partition clock, ms; a later one is clamped.
    pub max_skew_ms: i64,
    /// How far event time may be behind the partition clock, ms; an earlier one is clamped.
    pub max_age_ms: i64,
    /// How far one record may advance the partition clock unless its writer's wall time confirms it, ms.
    pub max_step_ms: i64,
    /// How long a dedup mark is kept, by the partition clock, ms.
    pub mark_age_ms: i64,
    /// How many dedup marks a conversation keeps; beyond them, the oldest are dropped.
    pub marks_max: usize,
}

/// Settings that an epoch may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// A number that older versions wrote, and that is no longer used: semantics belong to a derivation, and
    /// stand in its state.
    #[serde(default, skip_serializing_if = "is_absent")]
    pub semantics: u32,
    /// How far past a session's last record the partition clock must be for the session to end, ms.
    pub session_gap_ms: i64,
    /// How far past a session's last record the partition clock may be for the session to re-open, ms.
    pub reopen_horizon_ms: i64,
    /// How far the partition clock must move between two rows of an open session, ms.
    pub row_interval_ms: i64,
}

/// The semantics that this version computes: the number of the rules by which results follow from a log. No
/// version goes on with state of another number.
pub const SEMANTICS: u32 = 2;

/// The only value that older versions wrote into [`Settings::semantics`].
const SEMANTICS_WRITTEN: u32 = 1;

const fn is_absent(semantics: &u32) -> bool {
    *semantics == 0
}

/// The defaults, as shipped: `deploy/control.toml`.
pub const DEFAULT_SEED_TOML: &str = include_str!("../../deploy/control.toml");

/// Why a seed or an epoch's settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file does not have the form of a seed or of settings.
    #[error("not valid settings")]
    Toml(#[from] toml::de::Error),
    /// The record of the control topic does not have the form of a seed or of an epoch.
    #[error("the control record is not valid")]
    Json(#[from] serde_json::Error),
    /// The form is right and the content is not; all faults are named.
    #[error("wrong settings: {}", .0.join("; "))]
    Faults(Vec<String>),
}

impl Seed {
    /// The shipped defaults.
    ///
    /// # Panics
    /// Never: a test reads the shipped file.
    #[must_use]
    pub fn shipped() -> Self {
        Self::from_toml(DEFAULT_SEED_TOML).expect("deploy/control.toml is valid: a test reads it")
    }

    /// Reads and checks a seed file. A file without `[prices]` gets the shipped prices.
    ///
    /// # Errors
    /// The text does not have the form of a seed, or breaks rules; the error names every one of them.
    pub fn from_toml(text: &str) -> Result<Self, SettingsError> {
        let mut seed = toml::from_str::<Self>(text)?;
        if !toml::from_str::<toml::Table>(text)?.contains_key("prices") {
            seed.prices = PriceTable::shipped();
        }
        seed.checked()
    }

    /// Reads and checks the record at offset 0 of the control topic.
    ///
    /// # Errors
    /// The text does not have the form of a seed, or breaks rules; the error names every one of them.
    pub fn from_json(bytes: &[u8]) -> Result<Self, SettingsError> {
        serde_json::from_slice::<Self>(bytes)?.checked()
    }

    /// The value of the control record.
    ///
    /// # Panics
    /// Never: a seed has string keys only.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a seed is plain data with string keys")
    }

    /// The id of one derivation of a log, for `tacho_log_info`: 16 hexadecimal digits.
    ///
    /// `record` is the value of the control record that holds the seed. It stands for the log where an older
    /// version wrote the seed, without an id.
    #[must_use]
    pub fn derivation_id(&self, record: &[u8], derived_prefix: &str) -> String {
        let log = if self.id.is_empty() {
            record
        } else {
            self.id.as_bytes()
        };
        let both = [log, &[0], derived_prefix.as_bytes()].concat();
        format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&both))
    }

    /// How many partitions a topic has in the seed's log.
    #[must_use]
    pub const fn partitions(&self, topic: Topic) -> i32 {
        topic
            .def()
            .partitions
            .count(self.raw_partitions, self.delta_partitions)
    }

    fn checked(self) -> Result<Self, SettingsError> {
        let mut faults = Vec::new();
        let mut rule = |holds: bool, fault: &str| {
            if !holds {
                faults.push(fault.to_owned());
            }
        };
        let time = &self.time;
        let sizes = &time.window_sizes_ms;
        rule(
            (1..=1024).contains(&self.raw_partitions),
            "raw_partitions must be 1 to 1024",
        );
        rule(
            (1..=256).contains(&self.delta_partitions),
            "delta_partitions must be 1 to 256",
        );
        rule(time.slot_ms > 0, "time.slot_ms must be positive");
        rule(
            (1..=3).contains(&sizes.len()),
            "time.window_sizes_ms must hold one to three sizes",
        );
        rule(
            sizes.windows(2).all(|pair| pair[0] < pair[1]),
            "time.window_sizes_ms must ascend",
        );
        rule(
            sizes
                .iter()
                .all(|size| time.slot_ms > 0 && *size > 0 && size % time.slot_ms == 0),
            "every window size must be a multiple of time.slot_ms",
        );
        rule(
            time.mark_ms > 0 && time.mark_age_ms > 0 && time.marks_max > 0,
            "time.mark_ms, mark_age_ms and marks_max must be positive",
        );
        rule(
            time.grace_ms >= 0 && time.max_skew_ms >= 0 && time.max_age_ms > 0 && time.max_step_ms > 0,
            "time's bounds must not be negative",
        );
        faults.extend(self.settings.faults());
        faults.extend(self.prices.faults());
        faults.extend(self.privacy.faults());
        if faults.is_empty() {
            Ok(self)
        } else {
            Err(SettingsError::Faults(faults))
        }
    }
}

impl Settings {
    /// The rules that the settings break, each as a sentence; empty if they break none.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let rules = [
            (
                is_absent(&self.semantics) || self.semantics == SEMANTICS_WRITTEN,
                "settings.semantics is no setting: it belongs to a derivation; leave it out",
            ),
            (
                self.session_gap_ms > 0,
                "settings.session_gap_ms must be positive",
            ),
            (
                self.reopen_horizon_ms >= self.session_gap_ms,
                "settings.reopen_horizon_ms must be at least session_gap_ms",
            ),
            (
                self.row_interval_ms >= 0,
                "settings.row_interval_ms must not be negative",
            ),
        ];
        rules
            .into_iter()
            .filter(|(holds, _)| !holds)
            .map(|(_, fault)| fault.to_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privacy::{Action, Actions, unnamed};

    #[test]
    fn shipped_seed_is_valid_and_survives_json() {
        let seed = Seed::shipped();
        assert_eq!(Seed::from_json(&seed.to_json()).unwrap(), seed);
        assert_eq!(seed.prices, PriceTable::shipped());
        assert!(!seed.prices.rows.is_empty());
        let actions = seed.privacy.actions("default");
        assert_eq!(
            seed.privacy.default.len(),
            crate::privacy::FIELD_COUNT,
            "the shipped policy names every field"
        );
        let scrubbed = ["arguments", "output", "error.message", "span_attributes"];
        let expected = Actions::of(|field| {
            if scrubbed.contains(&field) {
                Action::Scrub
            } else {
                unnamed(field)
            }
        });
        assert_eq!(actions, expected);
    }

    #[test]
    fn a_seed_from_before_there_were_prices_has_none_and_a_file_may_say_so() {
        let mut json: serde_json::Value = serde_json::from_slice(&Seed::shipped().to_json()).unwrap();
        json.as_object_mut().unwrap().remove("prices");
        json.as_object_mut().unwrap().remove("privacy");
        let old = Seed::from_json(json.to_string().as_bytes()).unwrap();
        assert_eq!(
            (old.prices, old.privacy),
            (PriceTable::default(), PrivacyPolicy::default())
        );
        let none = format!("{DEFAULT_SEED_TOML}\n[prices]\n");
        assert_eq!(Seed::from_toml(&none).unwrap().prices, PriceTable::default());
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let mut seed = Seed::shipped();
        seed.raw_partitions = 0;
        seed.time.window_sizes_ms = vec![7, 5];
        let error = seed.checked().unwrap_err().to_string();
        for part in ["raw_partitions", "ascend", "multiple"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
