//! Which texts are kept, by tenant and field: part of an epoch, so that it changes while everything runs.
//!
//! What is not said to be kept is dropped. The latest policy in `tacho.control` is the whole policy: nothing of an older
//! one goes on.

use crate::event::PRIVATE_KEYS;
use crate::id::can_route;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A policy names at most that many tenants.
pub const TENANTS_MAX: usize = 1_000;
/// A tenant's name has at most that many bytes.
pub const TENANT_BYTES_MAX: usize = 64;
/// The field that stands for bodies of log records.
pub const BODY: &str = "body";
/// The field that stands for span events whose target is not a safe one.
pub const SPAN_EVENTS: &str = "span_events";

/// The value of a field that is removed.
const DROP: &str = "drop";
/// The value of a field that stays as it came.
const KEEP: &str = "keep";

/// Values by field, as written: [`PrivacyPolicy::faults`] says which are none.
pub type FieldRules = BTreeMap<String, String>;

/// What becomes of texts before they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrivacyPolicy {
    /// For every tenant, unless its own rules name the field.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub default: FieldRules,
    /// By tenant: what differs from the default.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tenants: BTreeMap<String, FieldRules>,
}

/// The fields that a policy can name: the keys of [`PRIVATE_KEYS`], in their order, then [`BODY`] and [`SPAN_EVENTS`].
pub fn fields() -> impl Iterator<Item = &'static str> {
    PRIVATE_KEYS.into_iter().chain([BODY, SPAN_EVENTS])
}

/// The fields that are kept; by default none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept(u8);

/// A set of so many fields has room in [`Kept`].
const _: () = assert!(PRIVATE_KEYS.len() + 2 <= u8::BITS as usize);

impl Kept {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Every field.
    pub const ALL: Self = Self((1 << (PRIVATE_KEYS.len() + 2)) - 1);

    /// The fields that `keeps` is true for.
    #[must_use]
    pub fn of(mut keeps: impl FnMut(&'static str) -> bool) -> Self {
        Self(fields().enumerate().fold(0, |kept, (index, field)| kept | u8::from(keeps(field)) << index))
    }

    /// Whether attributes of that key stay: its index in [`PRIVATE_KEYS`].
    #[must_use]
    pub const fn key(self, index: usize) -> bool {
        self.0 >> index & 1 == 1
    }

    /// Whether bodies of log records stay.
    #[must_use]
    pub const fn body(self) -> bool {
        self.key(PRIVATE_KEYS.len())
    }

    /// Whether span events stay, whatever their target.
    #[must_use]
    pub const fn span_events(self) -> bool {
        self.key(PRIVATE_KEYS.len() + 1)
    }
}

impl PrivacyPolicy {
    /// What is kept of a tenant's records.
    #[must_use]
    pub fn kept(&self, tenant: &str) -> Kept {
        let own = self.tenants.get(tenant);
        Kept::of(|field| own.and_then(|own| own.get(field)).or_else(|| self.default.get(field)).is_some_and(|value| value == KEEP))
    }

    /// The rules that keep a text, as `default.prompt` or `tenants.acme.prompt`.
    #[must_use]
    pub fn keeps(&self) -> Vec<String> {
        self.tables().flat_map(|(table, rules)| kept_in(&table, rules)).collect()
    }

    /// Every rule that the policy breaks.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.tenants.len() > TENANTS_MAX {
            faults.push(format!("privacy.tenants has {} tenants: at most {TENANTS_MAX} can differ from the default", self.tenants.len()));
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
                    faults.push(format!("privacy.{table}.{field}: there is no such field; there are {}", known.join(", ")));
                }
                if value != DROP && value != KEEP {
                    faults.push(format!("privacy.{table}.{field}: this build does not know {value:?}, only \"{DROP}\" and \"{KEEP}\""));
                }
            }
        }
        faults
    }

    fn tables(&self) -> impl Iterator<Item = (String, &FieldRules)> {
        let tenants = self.tenants.iter().map(|(tenant, rules)| (format!("tenants.{tenant}"), rules));
        std::iter::once(("default".to_owned(), &self.default)).chain(tenants)
    }
}

fn kept_in(table: &str, rules: &FieldRules) -> Vec<String> {
    rules.iter().filter(|(_, value)| *value == KEEP).map(|(field, _)| format!("{table}.{field}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> PrivacyPolicy {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn nothing_is_kept_unless_it_is_said() {
        assert_eq!(PrivacyPolicy::default().kept("default"), Kept::NONE);
        assert_eq!(policy("[default]\nprompt = \"drop\"").kept("default"), Kept::NONE);
        assert!(!Kept::NONE.body() && !Kept::NONE.span_events() && !(0..PRIVATE_KEYS.len()).any(|index| Kept::NONE.key(index)));
        assert!(Kept::ALL.body() && Kept::ALL.span_events() && (0..PRIVATE_KEYS.len()).all(|index| Kept::ALL.key(index)));
        assert_eq!(Kept::of(|_| true), Kept::ALL);
    }

    #[test]
    fn a_tenant_differs_from_the_default_field_by_field() {
        let policy = policy(
            "[default]\nprompt = \"keep\"\nbody = \"keep\"\n[tenants.acme]\nprompt = \"drop\"\noutput = \"keep\"\nspan_events = \"keep\"",
        );
        assert_eq!(policy.faults(), Vec::<String>::new());
        assert_eq!(policy.kept("other"), Kept::of(|field| ["prompt", "body"].contains(&field)));
        assert_eq!(policy.kept("acme"), Kept::of(|field| ["output", "body", "span_events"].contains(&field)));
        assert_eq!(policy.keeps(), ["default.body", "default.prompt", "tenants.acme.output", "tenants.acme.span_events"]);
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<PrivacyPolicy>(&json).unwrap(), policy);
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let wrong = policy(
            "[default]\npromt = \"drop\"\nbody = \"scrub\"\n[tenants.acme]\noutput = \"hash\"\nprompt = \"Keep\"\n[tenants.\"a/b\"]\n[tenants.\"\"]\n",
        );
        let faults = wrong.faults();
        let parts = [
            "default.promt: there is no such field",
            "default.body: this build does not know \"scrub\"",
            "tenants.acme.output: this build does not know \"hash\"",
            "tenants.acme.prompt: this build does not know \"Keep\"",
            "\"a/b\"",
            "\"\"",
        ];
        for part in parts {
            assert!(faults.iter().any(|fault| fault.contains(part)), "{part} is not in {faults:#?}");
        }
        assert_eq!(faults.len(), parts.len(), "{faults:#?}");
        assert_eq!(wrong.kept("acme"), Kept::NONE, "what is wrong keeps nothing");
        let many = (0..=TENANTS_MAX).map(|number| (format!("t{number}"), FieldRules::new())).collect();
        assert_eq!(PrivacyPolicy { tenants: many, ..PrivacyPolicy::default() }.faults().len(), 1);
        assert!(toml::from_str::<PrivacyPolicy>("[defaults]").is_err());
    }
}
