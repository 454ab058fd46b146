//! What governs a task: the seed, fixed for good, and what each epoch changes.
//!
//! Record 0 of `tacho.control` is the seed. It fixes window sizes, grace, caps, dimensions and partition
//! counts for the life of the topics. The record at offset N starts epoch N, and can change the settings of
//! sessions, the price table, the privacy policy, or several of them; what it does not name stays as in the
//! epoch before. The privacy policy is ingest's, and nothing here depends on it.
//!
//! A raw partition enters epoch N with the tick that names it. A record is folded under its partition's
//! epoch, so new prices begin at one offset of each partition, on a replay too. Nothing reads a file of
//! settings or prices after the first start.
//!
//! **Invariant:** what holds in an epoch never changes once the epoch is known.

use schemas::control::EpochChange;
use schemas::id::Epoch;
use schemas::price::Prices;
use schemas::settings::{Seed, Settings};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The seed, and the settings and prices of each epoch known so far.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The seed: the record at offset 0 of the control topic.
    pub seed: Seed,
    epochs: BTreeMap<Epoch, InForce>,
}

/// The settings and prices of an epoch.
#[derive(Clone, Debug)]
struct InForce {
    settings: Settings,
    /// The prices; an epoch that does not change them shares those of the epoch before.
    prices: Arc<Prices>,
}

impl Rules {
    /// The rules of a log whose control topic holds nothing but the seed.
    #[must_use]
    pub fn new(seed: Seed) -> Self {
        let first = InForce {
            settings: seed.settings.clone(),
            prices: Arc::new(Prices::new(&seed.prices)),
        };
        Self {
            seed,
            epochs: BTreeMap::from([(Epoch(0), first)]),
        }
    }

    /// Adds the epoch that the control record at `epoch` starts. What the record does not change is as in the
    /// epoch before, so records must be added in the order of their offsets.
    pub fn add(&mut self, epoch: Epoch, change: impl Into<EpochChange>) {
        // Only ingest follows the privacy policy: nothing that is derived depends on it.
        let EpochChange {
            settings,
            prices,
            privacy: _,
        } = change.into();
        let before = self.in_force(Epoch(epoch.0.saturating_sub(1)));
        let next = InForce {
            settings: settings.unwrap_or_else(|| before.settings.clone()),
            prices: prices.map_or_else(
                || Arc::clone(&before.prices),
                |table| Arc::new(Prices::new(&table)),
            ),
        };
        self.epochs.insert(epoch, next);
    }

    /// Whether an epoch is known. A task must not get a tick that starts an unknown epoch.
    #[must_use]
    pub fn knows(&self, epoch: Epoch) -> bool {
        self.epochs.contains_key(&epoch)
    }

    /// The latest epoch known.
    #[must_use]
    pub fn latest(&self) -> Epoch {
        self.epochs.last_key_value().map_or(Epoch(0), |(epoch, _)| *epoch)
    }

    /// The settings of an epoch; for an unknown epoch, those of the last known one before it.
    #[must_use]
    pub fn settings(&self, epoch: Epoch) -> &Settings {
        &self.in_force(epoch).settings
    }

    /// The prices of an epoch; for an unknown epoch, those of the last known one before it.
    #[must_use]
    pub fn prices(&self, epoch: Epoch) -> &Prices {
        &self.in_force(epoch).prices
    }

    fn in_force(&self, epoch: Epoch) -> &InForce {
        let until = self
            .epochs
            .range(..=epoch)
            .next_back()
            .or_else(|| self.epochs.first_key_value());
        until
            .expect("epoch 0 is there from the start, and none is ever removed")
            .1
    }
}
