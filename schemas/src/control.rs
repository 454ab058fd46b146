//! Records of `tacho.control` after the seed, each of which starts an epoch.

use crate::price::PriceTable;
use crate::privacy::PrivacyPolicy;
use crate::settings::{Settings, SettingsError};
use serde::{Deserialize, Serialize};

/// The key of a record that starts an epoch.
pub const EPOCH_KEY: &str = "epoch";
/// The key of a record that starts an epoch in its first form, which holds settings alone. It is read for
/// ever, and no longer written.
pub const SETTINGS_KEY: &str = "settings";

/// What an epoch changes, all at once; what is absent stays as it was in the epoch before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochChange {
    /// The settings of sessions, whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
    /// The price table, whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<PriceTable>,
    /// The privacy policy, whole. Ingest follows it; nothing that is derived depends on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<PrivacyPolicy>,
}

impl EpochChange {
    /// Reads and checks a file with `[settings]`, `[prices]`, `[privacy]`, or several of them.
    ///
    /// # Errors
    /// The text is not such a file, or breaks rules; the error names every one of them.
    pub fn from_toml(text: &str) -> Result<Self, SettingsError> {
        toml::from_str::<Self>(text)?.checked()
    }

    /// Reads and checks a control record; `None` for a record that starts no epoch: one under another key or
    /// without one.
    ///
    /// # Errors
    /// The value does not have the form that goes with its key, or breaks rules; the error names every one of
    /// them.
    pub fn of_record(key: Option<&[u8]>, value: &[u8]) -> Option<Result<Self, SettingsError>> {
        let read = match key {
            Some(key) if key == EPOCH_KEY.as_bytes() => serde_json::from_slice(value),
            Some(key) if key == SETTINGS_KEY.as_bytes() => {
                serde_json::from_slice::<Settings>(value).map(Self::from)
            }
            _ => return None,
        };
        Some(read.map_err(SettingsError::from).and_then(Self::checked))
    }

    /// The value of the control record, under [`EPOCH_KEY`].
    ///
    /// # Panics
    /// Never: a change has text keys only.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a change is plain data with text keys")
    }

    fn checked(self) -> Result<Self, SettingsError> {
        let mut faults = self.settings.as_ref().map(Settings::faults).unwrap_or_default();
        faults.extend(self.prices.as_ref().map(PriceTable::faults).unwrap_or_default());
        faults.extend(
            self.privacy
                .as_ref()
                .map(PrivacyPolicy::faults)
                .unwrap_or_default(),
        );
        if self == Self::default() {
            faults.push("there is neither [settings] nor [prices] nor [privacy]".to_owned());
        }
        if faults.is_empty() {
            Ok(self)
        } else {
            Err(SettingsError::Faults(faults))
        }
    }
}

impl From<Settings> for EpochChange {
    fn from(settings: Settings) -> Self {
        Self {
            settings: Some(settings),
            ..Self::default()
        }
    }
}

impl From<PriceTable> for EpochChange {
    fn from(prices: PriceTable) -> Self {
        Self {
            prices: Some(prices),
            ..Self::default()
        }
    }
}

impl From<PrivacyPolicy> for EpochChange {
    fn from(privacy: PrivacyPolicy) -> Self {
        Self {
            privacy: Some(privacy),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privacy::Action;
    use crate::settings::Seed;

    #[test]
    fn both_forms_are_read_and_strangers_left_alone() {
        let settings = Seed::shipped().settings;
        let old = serde_json::to_vec(&settings).unwrap();
        let change = EpochChange::of_record(Some(b"settings"), &old).unwrap().unwrap();
        assert_eq!(change, EpochChange::from(settings.clone()));
        assert_eq!(
            EpochChange::of_record(Some(b"epoch"), &change.to_json())
                .unwrap()
                .unwrap(),
            change
        );
        let both = EpochChange {
            settings: Some(settings),
            prices: Some(PriceTable::shipped()),
            privacy: Some(PrivacyPolicy::default()),
        };
        assert_eq!(
            EpochChange::of_record(Some(b"epoch"), &both.to_json())
                .unwrap()
                .unwrap(),
            both
        );
        assert!(EpochChange::of_record(Some(b"seed"), &old).is_none());
        assert!(EpochChange::of_record(None, &old).is_none());
        assert!(
            EpochChange::of_record(Some(b"epoch"), &old).unwrap().is_err(),
            "a record of settings alone is under the key `settings`"
        );
        assert!(
            EpochChange::of_record(Some(b"epoch"), b"{}").unwrap().is_err(),
            "an epoch must change something"
        );
    }

    #[test]
    fn a_file_holds_either_or_both() {
        let prices = "[prices]\nversion = \"1\"\n";
        let settings = "[settings]\nsemantics = 1\nsession_gap_ms = 1000\nreopen_horizon_ms = 2000\nrow_interval_ms = 0\n";
        let read = |text: &str| EpochChange::from_toml(text);
        assert!(read(prices).unwrap().settings.is_none());
        assert!(read(settings).unwrap().prices.is_none());
        let both = read(&format!("{settings}{prices}")).unwrap();
        assert!(both.settings.is_some() && both.prices.is_some());
        assert!(read("").unwrap_err().to_string().contains("neither"));
        let wrong = format!(
            "{}[prices]\nrows = [{{ book = \"b\", model = \"\", input = -1, output = 0, source = \"s\" }}]",
            settings.replace("1000", "0")
        );
        let text = read(&wrong).unwrap_err().to_string();
        for part in [
            "session_gap_ms",
            "prices.version",
            "book must",
            "model must",
            "input must",
            "source \"s\"",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(read("[prise]\n").is_err());
    }

    #[test]
    fn a_file_may_hold_the_privacy_policy_alone_and_an_empty_one_is_one() {
        let read = |text: &str| EpochChange::from_toml(text);
        let keep = read("[privacy.default]\nprompt = \"keep\"\n[privacy.tenants.acme]\nprompt = \"drop\"\n")
            .unwrap();
        assert!(keep.settings.is_none() && keep.prices.is_none());
        let policy = keep.privacy.clone().unwrap();
        assert_eq!(
            (policy.actions("default").at(0), policy.actions("acme").at(0)),
            (Action::Keep, Action::Drop)
        );
        assert_eq!(
            EpochChange::of_record(Some(b"epoch"), &keep.to_json())
                .unwrap()
                .unwrap(),
            keep
        );
        assert_eq!(
            read("[privacy]\n").unwrap(),
            EpochChange::from(PrivacyPolicy::default())
        );
        let text = read("[privacy.default]\nprompt = \"mask\"\n[prices]\nrows = [{ book = \"b\", model = \"m\", input = 1, output = 0, source = \"s\" }]").unwrap_err().to_string();
        assert!(
            text.contains("does not know \"mask\"") && text.contains("book must"),
            "{text}"
        );
    }
}
