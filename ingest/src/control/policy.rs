//! The privacy policy in force: what the last readable epoch of `tacho.control` says.
//!
//! ```text
//!  tacho.control ──► Reading ──publish──► Policies ◄──rule── each request, each batch of the inbox
//! ```
//!
//! One thread reads the topic and gives its records to a [`Reading`]. Whatever cleans texts asks [`Policies`]
//! once for each request or batch, so that all of it is cleaned under one rule.
//!
//! The policy has no place in the order of raw records. Each ingest reads the topic to its end before it
//! takes anything, and then follows it every `FOLLOW_EVERY` (500 ms), so two ingests may differ for that
//! long; header `tacho-policy` of each raw record says which epoch's policy it was cleaned under. An epoch
//! that can't be read changes nothing, and neither does a topic that can't be reached.
//!
//! What is derived does not depend on the policy. Facts come from what `prepare/privacy/extract.rs` takes out
//! of texts beforehand, and from attributes that no policy touches; dedup marks leave private keys out, and
//! so does the hash that routes what has no conversation. The kind of an error is derived from `tacho.error`,
//! and from the message itself only in records from before there was that attribute. The test
//! `tests/it/policy.rs` derives all recordings under several policies and compares every row.
//!
//! **Invariant:** before the topic was read to its end once there is no policy, and nothing is written.

use schemas::control::EpochChange;
use schemas::privacy::{Action, Actions, PrivacyPolicy};
use schemas::settings::{Seed, SettingsError};
use settings::process::chain;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// The longest time between two looks at `tacho.control`, and so the longest time that an old policy stays in force.
pub const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// What a process's own settings say of texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextSettings {
    /// Whether all texts are kept, whatever a policy says.
    pub keep_text: bool,
    /// Whether there is a key to hash values with.
    pub has_hash_key: bool,
}

/// What one request is cleaned under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What becomes of each field of the policy.
    pub actions: Actions,
    /// The epoch that set the policy; none where the process's settings keep all texts.
    pub epoch: Option<i64>,
}

/// A policy, with the epoch that set it.
#[derive(Debug, PartialEq, Eq)]
struct InForce {
    policy: PrivacyPolicy,
    /// What becomes of the fields of tenants without rules of their own.
    default: Actions,
    epoch: i64,
}

impl InForce {
    fn new(policy: PrivacyPolicy, epoch: i64) -> Arc<Self> {
        Arc::new(Self {
            default: policy.default_actions(),
            policy,
            epoch,
        })
    }

    fn actions(&self, tenant: &str) -> Actions {
        if self.policy.tenants.contains_key(tenant) {
            self.policy.actions(tenant)
        } else {
            self.default
        }
    }
}

/// The policy in force, shared by whoever cleans texts; none until `tacho.control` was read to its end once.
#[derive(Debug, Default)]
pub struct Policies {
    now: RwLock<Option<Arc<InForce>>>,
    /// One more than the last epoch of which was logged that it wants hashes and there is no key; 0: none was.
    missing_key_logged: AtomicI64,
}

impl Policies {
    /// A policy that nothing changes.
    #[must_use]
    pub fn fixed(policy: PrivacyPolicy) -> Arc<Self> {
        Arc::new(Self {
            now: RwLock::new(Some(InForce::new(policy, 0))),
            missing_key_logged: AtomicI64::new(0),
        })
    }

    /// Whether there is a policy, so that something may be written.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.now().is_some()
    }

    /// What a request of a tenant that comes now is cleaned under: the process's `keep_text` wins over any policy. None
    /// while there is no policy, so that nothing may be written.
    #[must_use]
    pub fn rule(&self, settings: TextSettings, tenant: &str) -> Option<Rule> {
        let now = self.now()?;
        if settings.keep_text {
            return Some(Rule {
                actions: Actions::all(Action::Keep),
                epoch: None,
            });
        }
        let actions = now.actions(tenant);
        if !settings.has_hash_key && actions.any(Action::Hash) {
            self.log_missing_key(now.epoch);
        }
        Some(Rule {
            actions,
            epoch: Some(now.epoch),
        })
    }

    /// Logs once an epoch that its policy wants hashes and there is no key.
    fn log_missing_key(&self, epoch: i64) {
        if self.missing_key_logged.swap(epoch + 1, Ordering::Relaxed) <= epoch {
            tracing::error!(
                epoch,
                "the privacy policy wants values hashed, and there is no key: they are dropped; set privacy.hash_key_file"
            );
        }
    }

    fn now(&self) -> Option<Arc<InForce>> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, policy: Arc<InForce>) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Some(policy);
    }
}

/// Reads the records of `tacho.control` in their order. What was read is in force once it is [published](Self::publish).
#[derive(Debug)]
pub struct Reading {
    policies: Arc<Policies>,
    latest: Option<Arc<InForce>>,
    published: Option<i64>,
    raw_partitions: Option<i32>,
}

impl Reading {
    /// A reading of the whole topic, from offset 0 on.
    #[must_use]
    pub const fn new(policies: Arc<Policies>) -> Self {
        Self {
            policies,
            latest: None,
            published: None,
            raw_partitions: None,
        }
    }

    /// The number of raw partitions that the seed pins; none before the seed was read.
    #[must_use]
    pub const fn raw_partitions(&self) -> Option<i32> {
        self.raw_partitions
    }

    /// Takes the next record: at offset 0 the seed, after it an epoch, or a foreign record, which changes nothing. An epoch
    /// that can't be read is logged and changes nothing either, since its policy might keep less than the one in force, or
    /// more.
    ///
    /// # Errors
    /// The record at offset 0 is no seed.
    pub fn add(&mut self, offset: i64, key: Option<&[u8]>, value: &[u8]) -> Result<(), SettingsError> {
        if offset == 0 {
            let seed = Seed::from_json(value)?;
            self.raw_partitions = Some(seed.raw_partitions);
            self.latest = Some(InForce::new(seed.privacy, 0));
            return Ok(());
        }
        match EpochChange::of_record(key, value) {
            Some(Ok(EpochChange {
                privacy: Some(policy),
                ..
            })) => self.latest = Some(InForce::new(policy, offset)),
            Some(Err(error)) => {
                tracing::error!(
                    epoch = offset,
                    reason = chain(&error),
                    "an epoch can't be read: the privacy policy stays as it is"
                );
            }
            Some(Ok(_)) | None => {}
        }
        Ok(())
    }

    /// Puts the latest policy into force, and logs what it keeps if it is another one.
    pub fn publish(&mut self) {
        let Some(latest) = self
            .latest
            .as_ref()
            .filter(|latest| self.published != Some(latest.epoch))
        else {
            return;
        };
        let of = |action: Action| latest.policy.rules_of(action).join(", ");
        let (keeps, scrubs, hashes) = (of(Action::Keep), of(Action::Scrub), of(Action::Hash));
        if keeps.is_empty() {
            tracing::info!(
                epoch = latest.epoch,
                scrubs,
                hashes,
                "privacy policy in force: no text is stored as it came"
            );
        } else {
            tracing::warn!(
                epoch = latest.epoch,
                keeps,
                scrubs,
                hashes,
                "privacy policy in force: texts are stored in the clear"
            );
        }
        self.policies.set(Arc::clone(latest));
        self.published = Some(latest.epoch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::control::EPOCH_KEY;
    use schemas::privacy::unnamed;

    fn keep(field: &str) -> PrivacyPolicy {
        PrivacyPolicy {
            default: [(field.to_owned(), "keep".to_owned())].into(),
            ..PrivacyPolicy::default()
        }
    }

    fn rule(policies: &Policies) -> Option<(Actions, Option<i64>)> {
        policies
            .rule(TextSettings::default(), "t")
            .map(|rule| (rule.actions, rule.epoch))
    }

    fn epoch(reading: &mut Reading, offset: i64, value: &[u8]) {
        reading.add(offset, Some(EPOCH_KEY.as_bytes()), value).unwrap();
        reading.publish();
    }

    #[test]
    fn the_last_policy_that_can_be_read_is_in_force() {
        let policies = Arc::new(Policies::default());
        let mut reading = Reading::new(Arc::clone(&policies));
        reading.publish();
        assert_eq!(
            rule(&policies),
            None,
            "nothing is written under a policy that is not known"
        );
        reading.add(0, Some(b"seed"), &Seed::shipped().to_json()).unwrap();
        assert_eq!(
            (rule(&policies), reading.raw_partitions()),
            (None, Some(Seed::shipped().raw_partitions)),
            "there may be more to read"
        );
        reading.publish();
        let shipped = Seed::shipped().privacy.actions("t");
        assert_eq!(rule(&policies), Some((shipped, Some(0))));
        epoch(&mut reading, 1, &EpochChange::from(keep("prompt")).to_json());
        let kept = |kept: &'static str| {
            Actions::of(|field| {
                if field == kept {
                    Action::Keep
                } else {
                    unnamed(field)
                }
            })
        };
        let prompts = kept("prompt");
        assert_eq!(rule(&policies), Some((prompts, Some(1))));
        // None of these changes the policy: prices alone, a foreign record, a second seed, epochs that can't be read.
        epoch(
            &mut reading,
            2,
            &EpochChange::from(schemas::price::PriceTable::shipped()).to_json(),
        );
        reading.add(3, Some(b"foreign"), b"{\"privacy\":{}}").unwrap();
        reading.add(4, Some(b"seed"), &Seed::shipped().to_json()).unwrap();
        epoch(
            &mut reading,
            5,
            b"{\"privacy\":{\"default\":{\"prompt\":\"mask\",\"output\":\"keep\"}}}",
        );
        epoch(&mut reading, 6, b"no json");
        assert_eq!(rule(&policies), Some((prompts, Some(1))));
        epoch(&mut reading, 7, b"{\"privacy\":{}}");
        assert_eq!(rule(&policies), Some((Actions::of(unnamed), Some(7))));
    }

    #[test]
    fn the_seed_may_keep_and_what_is_no_seed_is_refused() {
        let policies = Arc::new(Policies::default());
        let mut reading = Reading::new(Arc::clone(&policies));
        assert!(reading.add(0, Some(b"seed"), b"{}").is_err());
        let seed = Seed {
            privacy: keep("body"),
            ..Seed::shipped()
        };
        reading.add(0, Some(b"seed"), &seed.to_json()).unwrap();
        reading.publish();
        assert_eq!(
            rule(&policies),
            Some((
                Actions::of(|field| if field == "body" {
                    Action::Keep
                } else {
                    unnamed(field)
                }),
                Some(0)
            ))
        );
    }

    #[test]
    fn keep_text_wins_and_says_no_epoch() {
        let settings = TextSettings {
            keep_text: true,
            has_hash_key: false,
        };
        let policies = Policies::fixed(PrivacyPolicy::default());
        assert_eq!(
            policies.rule(settings, "t"),
            Some(Rule {
                actions: Actions::all(Action::Keep),
                epoch: None
            })
        );
        assert_eq!(Policies::default().rule(settings, "t"), None);
    }
}
