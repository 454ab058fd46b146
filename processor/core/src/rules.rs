//! What governs a task: the seed, fixed for good, and what each epoch changes.

use schemas::control::EpochChange;
use schemas::id::Epoch;
use schemas::price::Prices;
use schemas::settings::{Seed, Settings};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The seed, and the settings and prices of each epoch known so far.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The record at offset 0 of the control topic.
    pub seed: Seed,
    epochs: BTreeMap<Epoch, InForce>,
}

/// What holds in an epoch.
#[derive(Clone, Debug)]
struct InForce {
    settings: Settings,
    /// The prices, shared by the epochs that did not change them.
    prices: Arc<Prices>,
}

impl Rules {
    /// The rules of a log whose control topic holds nothing but its seed.
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

    /// Adds what the control record at `epoch` says; what it does not say is as in the epoch before, so records must be
    /// added in their order.
    pub fn add(&mut self, epoch: Epoch, change: impl Into<EpochChange>) {
        // The privacy policy is ingest's: nothing that is derived depends on it.
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

    /// Whether that epoch is known: a task must not be given a record of an epoch that is not.
    #[must_use]
    pub fn knows(&self, epoch: Epoch) -> bool {
        self.epochs.contains_key(&epoch)
    }

    /// The latest epoch known.
    #[must_use]
    pub fn latest(&self) -> Epoch {
        self.epochs.last_key_value().map_or(Epoch(0), |(epoch, _)| *epoch)
    }

    /// The settings of an epoch; of the one before it, where a caller failed to ask [`Rules::knows`] first.
    #[must_use]
    pub fn settings(&self, epoch: Epoch) -> &Settings {
        &self.in_force(epoch).settings
    }

    /// The prices of an epoch; of the one before it, where a caller failed to ask [`Rules::knows`] first.
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
