//! Privacy policies: what happens to texts before they are written, by tenant and field. A policy is part of
//! an epoch, so it changes without a restart.
//!
//! A field that a policy does not name has a [default of its own](unnamed). The latest policy in
//! `tacho.control` replaces all of the one before.

use crate::event::PRIVATE_KEYS;
use crate::id::can_route;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most tenants with rules of their own.
pub const TENANTS_MAX: usize = 1_000;
/// The most bytes of a tenant's name.
pub const TENANT_BYTES_MAX: usize = 64;
/// The field that stands for bodies of log records.
pub const BODY: &str = "body";
/// The field that stands for span events whose target is not known to be free of private texts.
pub const SPAN_EVENTS: &str = "span_events";
/// The field that stands for texts in those attributes of spans and links that are not known to hold names
/// and ids only.
pub const SPAN_ATTRIBUTES: &str = "span_attributes";
/// How many fields there are.
pub const FIELD_COUNT: usize = PRIVATE_KEYS.len() + 3;

/// What a policy does with a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// The text is removed; its size is kept.
    #[default]
    Drop,
    /// A keyed hash takes the text's place: equal texts have equal hashes, and only who has the key can find
    /// a text's hash.
    Hash,
    /// The text is kept, but for what looks like a secret.
    Scrub,
    /// The text is kept as it came.
    Keep,
}

impl Action {
    /// All actions, in ascending order of how much they keep.
    pub const ALL: [Self; 4] = [Self::Drop, Self::Hash, Self::Scrub, Self::Keep];

    /// The action's name in a policy.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Hash => "hash",
            Self::Scrub => "scrub",
            Self::Keep => "keep",
        }
    }

    fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}

/// The name of an action by field, as written in a policy; [`PrivacyPolicy::faults`] finds the names of no
/// action.
pub type FieldRules = BTreeMap<String, String>;

/// A privacy policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrivacyPolicy {
    /// The rules of every tenant, but for fields that the tenant's own rules name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub default: FieldRules,
    /// The rules that differ from the default, by tenant.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tenants: BTreeMap<String, FieldRules>,
}

/// The fields that a policy can name: the keys of [`PRIVATE_KEYS`], in their order, then [`BODY`],
/// [`SPAN_EVENTS`] and [`SPAN_ATTRIBUTES`].
pub fn fields() -> impl Iterator<Item = &'static str> {
    PRIVATE_KEYS
        .into_iter()
        .chain([BODY, SPAN_EVENTS, SPAN_ATTRIBUTES])
}

/// The action for a field that a policy does not name. Who someone is stays, since rows name it; what may
/// hold a secret among useful words is scrubbed; every other text is dropped.
#[must_use]
pub fn unnamed(field: &str) -> Action {
    match field {
        "user.email" | "user.account_id" => Action::Keep,
        "error.message" | SPAN_ATTRIBUTES => Action::Scrub,
        _ => Action::Drop,
    }
}

/// An action for each field; by default, every field is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actions([Action; FIELD_COUNT]);

impl Actions {
    /// The same action for every field.
    #[must_use]
    pub const fn all(action: Action) -> Self {
        Self([action; FIELD_COUNT])
    }

    /// The actions that `action` gives for each field.
    #[must_use]
    pub fn of(mut action: impl FnMut(&'static str) -> Action) -> Self {
        let mut actions = Self::default();
        for (slot, field) in actions.0.iter_mut().zip(fields()) {
            *slot = action(field);
        }
        actions
    }

    /// The action for the field at `index` of [`fields`]. The index of an attribute is that of its key in
    /// [`PRIVATE_KEYS`].
    #[must_use]
    pub const fn at(self, index: usize) -> Action {
        self.0[index]
    }

    /// The action for bodies of log records.
    #[must_use]
    pub const fn body(self) -> Action {
        self.0[PRIVATE_KEYS.len()]
    }

    /// The action for [`SPAN_EVENTS`].
    #[must_use]
    pub const fn span_events(self) -> Action {
        self.0[PRIVATE_KEYS.len() + 1]
    }

    /// The action for [`SPAN_ATTRIBUTES`].
    #[must_use]
    pub const fn span_attributes(self) -> Action {
        self.0[PRIVATE_KEYS.len() + 2]
    }

    /// Whether any field has that action.
    #[must_use]
    pub fn any(self, action: Action) -> bool {
        self.0.contains(&action)
    }
}

impl PrivacyPolicy {
    /// The actions for a tenant's records. A field whose value names no action is dropped.
    #[must_use]
    pub fn actions(&self, tenant: &str) -> Actions {
        self.with(self.tenants.get(tenant))
    }

    /// The actions for the records of a tenant without rules of its own.
    #[must_use]
    pub fn default_actions(&self) -> Actions {
        self.with(None)
    }

    fn with(&self, own: Option<&FieldRules>) -> Actions {
        Actions::of(|field| {
            match own
                .and_then(|own| own.get(field))
                .or_else(|| self.default.get(field))
            {
                Some(value) => Action::by_name(value).unwrap_or_default(),
                None => unnamed(field),
            }
        })
    }

    /// The rules with that action, as `default.prompt` or `tenants.acme.prompt`. Fields that are kept by
    /// default (who someone is) are left out.
    #[must_use]
    pub fn rules_of(&self, action: Action) -> Vec<String> {
        let of = |rules: &FieldRules, table: &str| -> Vec<String> {
            let chosen = rules
                .iter()
                .filter(|(field, value)| *value == action.name() && unnamed(field) != Action::Keep);
            chosen.map(|(field, _)| format!("{table}.{field}")).collect()
        };
        self.tables()
            .flat_map(|(table, rules)| of(rules, &table))
            .collect()
    }

    /// Whether any rule of any field and tenant has that action.
    #[must_use]
    pub fn uses(&self, action: Action) -> bool {
        self.tables()
            .any(|(_, rules)| rules.values().any(|value| value == action.name()))
    }

    /// The faults of the policy, each as a sentence; empty if it has none.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.tenants.len() > TENANTS_MAX {
            faults.push(format!(
                "privacy.tenants has {} tenants: at most {TENANTS_MAX} can differ from the default",
                self.tenants.len()
            ));
        }
        for tenant in self.tenants.keys() {
            if tenant.is_empty() || tenant.len() > TENANT_BYTES_MAX || !can_route(tenant) {
                faults.push(format!(
                    "privacy.tenants has {tenant:?}: a tenant's name has 1 to {TENANT_BYTES_MAX} bytes, no slash and no control character"
                ));
            }
        }
        for (table, rules) in self.tables() {
            for (field, value) in rules {
                if !fields().any(|known| known == field) {
                    let known: Vec<&str> = fields().collect();
                    faults.push(format!(
                        "privacy.{table}.{field}: there is no such field; there are {}",
                        known.join(", ")
                    ));
                }
                if Action::by_name(value).is_none() {
                    let known = Action::ALL
                        .map(|action| format!("{:?}", action.name()))
                        .join(", ");
                    faults.push(format!(
                        "privacy.{table}.{field}: this build does not know {value:?}, only {known}"
                    ));
                }
            }
        }
        faults
    }

    fn tables(&self) -> impl Iterator<Item = (String, &FieldRules)> {
        let tenants = self
            .tenants
            .iter()
            .map(|(tenant, rules)| (format!("tenants.{tenant}"), rules));
        std::iter::once(("default".to_owned(), &self.default)).chain(tenants)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> PrivacyPolicy {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_no_policy_names_has_a_default_of_its_own() {
        let empty = PrivacyPolicy::default().actions("default");
        assert_eq!(empty, Actions::of(unnamed));
        assert_eq!(policy("[default]\nprompt = \"drop\"").actions("default"), empty);
        assert_eq!(
            [empty.body(), empty.span_events(), empty.span_attributes()],
            [Action::Drop, Action::Drop, Action::Scrub]
        );
        for (index, key) in PRIVATE_KEYS.into_iter().enumerate() {
            assert_eq!(empty.at(index), unnamed(key));
        }
        assert!(!Actions::default().any(Action::Keep) && Actions::all(Action::Keep).any(Action::Keep));
    }

    #[test]
    fn a_tenant_differs_from_the_default_field_by_field() {
        let policy = policy(
            "[default]\nprompt = \"keep\"\nbody = \"scrub\"\n\"user.email\" = \"hash\"\n\"user.account_id\" = \"keep\"\n\
             [tenants.acme]\nprompt = \"drop\"\noutput = \"keep\"\nspan_events = \"hash\"",
        );
        assert_eq!(policy.faults(), Vec::<String>::new());
        let default = |field: &'static str| match field {
            "prompt" => Action::Keep,
            BODY => Action::Scrub,
            "user.email" => Action::Hash,
            field => unnamed(field),
        };
        assert_eq!(policy.actions("other"), Actions::of(default));
        let acme = |field: &'static str| match field {
            "prompt" => Action::Drop,
            "output" => Action::Keep,
            SPAN_EVENTS => Action::Hash,
            field => default(field),
        };
        assert_eq!(policy.actions("acme"), Actions::of(acme));
        assert_eq!(
            policy.rules_of(Action::Keep),
            ["default.prompt", "tenants.acme.output"]
        );
        assert_eq!(policy.rules_of(Action::Scrub), ["default.body"]);
        assert!(policy.uses(Action::Hash) && !PrivacyPolicy::default().uses(Action::Hash));
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<PrivacyPolicy>(&json).unwrap(), policy);
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let wrong = policy(
            "[default]\npromt = \"drop\"\nbody = \"mask\"\n[tenants.acme]\noutput = \"\"\nprompt = \"Keep\"\n[tenants.\"a/b\"]\n[tenants.\"\"]\n",
        );
        let faults = wrong.faults();
        let parts = [
            "default.promt: there is no such field",
            "default.body: this build does not know \"mask\"",
            "tenants.acme.output: this build does not know \"\"",
            "tenants.acme.prompt: this build does not know \"Keep\", only \"drop\", \"hash\", \"scrub\", \"keep\"",
            "\"a/b\"",
            "\"\"",
        ];
        for part in parts {
            assert!(
                faults.iter().any(|fault| fault.contains(part)),
                "{part} is not in {faults:#?}"
            );
        }
        assert_eq!(faults.len(), parts.len(), "{faults:#?}");
        assert_eq!(
            wrong.actions("acme"),
            PrivacyPolicy::default().actions("acme"),
            "a rule with a fault keeps no text"
        );
        let many = (0..=TENANTS_MAX)
            .map(|number| (format!("t{number}"), FieldRules::new()))
            .collect();
        assert_eq!(
            PrivacyPolicy {
                tenants: many,
                ..PrivacyPolicy::default()
            }
            .faults()
            .len(),
            1
        );
        assert!(toml::from_str::<PrivacyPolicy>("[defaults]").is_err());
    }
}
