//! The pure core: records in, effects out. No IO, no clock, no randomness, no logging, no hash order; `apply` cannot fail.
//!
//! ```text
//! raw partition ─► SessionTask ─ take() ─► session rows, raw deltas ─ LabelTable ─► delta records
//! deltas partition ─► SeriesTask ─ take() ─► totals, final windows, corrections
//! ```
//!
//! Both tasks are `state = fold(changelog)`: [`SessionTask::restore`] and [`SeriesTask::restore`] rebuild exactly what
//! the changes given out so far describe. Time enters only in a record.
#![deny(missing_docs)]

pub mod clock;
mod indexed;
pub mod labels;
pub mod series;
pub mod session;

pub use labels::LabelTable;
pub use series::SeriesTask;
pub use session::SessionTask;

use schemas::control::EpochChange;
use schemas::origin::Origin;
use schemas::price::Prices;
use schemas::settings::{Seed, Settings};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What governs a task: the seed, fixed for good, and the settings and prices of each epoch known so far.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The record at offset 0 of the control topic.
    pub seed: Seed,
    epochs: BTreeMap<i64, Epoch>,
}

/// What holds in an epoch.
#[derive(Clone, Debug)]
struct Epoch {
    settings: Settings,
    /// Shared by the epochs that did not change it.
    prices: Arc<Prices>,
}

impl Rules {
    /// The rules of a log whose control topic holds nothing but its seed.
    #[must_use]
    pub fn new(seed: Seed) -> Self {
        let first = Epoch {
            settings: seed.settings.clone(),
            prices: Arc::new(Prices::new(&seed.prices)),
        };
        Self {
            seed,
            epochs: BTreeMap::from([(0, first)]),
        }
    }

    /// Adds what the control record at `epoch` says; what it does not say is as in the epoch before, so records must be
    /// added in their order.
    pub fn add(&mut self, epoch: i64, change: impl Into<EpochChange>) {
        // The privacy policy is ingest's: nothing that is derived depends on it.
        let EpochChange {
            settings,
            prices,
            privacy: _,
        } = change.into();
        let before = self.epoch(epoch - 1);
        let next = Epoch {
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
    pub fn knows(&self, epoch: i64) -> bool {
        self.epochs.contains_key(&epoch)
    }

    /// The latest epoch known.
    #[must_use]
    pub fn latest(&self) -> i64 {
        self.epochs.last_key_value().map_or(0, |(epoch, _)| *epoch)
    }

    /// The settings of an epoch; of the one before it, where a caller failed to ask [`Rules::knows`] first.
    #[must_use]
    pub fn settings(&self, epoch: i64) -> &Settings {
        &self.epoch(epoch).settings
    }

    /// The prices of an epoch, in the same way.
    #[must_use]
    pub fn prices(&self, epoch: i64) -> &Prices {
        &self.epoch(epoch).prices
    }

    fn epoch(&self, epoch: i64) -> &Epoch {
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

/// A record offered to a task, in the order of offsets.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Its offset.
    pub offset: i64,
    /// When the log took it in, ms.
    pub appended: i64,
    /// The writer's wall time (header `tacho-wall`), ms.
    pub wall: Option<i64>,
    /// Whether it is a tick.
    pub tick: bool,
    /// The epoch that it starts, if it is a tick that starts one.
    pub epoch: Option<i64>,
    /// Where in an inbox it came from, if it did.
    pub origin: Option<Origin<'a>>,
    /// Its key.
    pub key: &'a str,
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> Input<'a> {
    /// Reads what a task needs off a log record; a key that is not text becomes the empty one. Of a header that is there more
    /// than once, the last counts.
    #[must_use]
    pub fn of(record: &schemas::record::Offered<'a>) -> Self {
        use schemas::record::{HEADER_EPOCH, HEADER_ORIGIN, HEADER_TICK, HEADER_WALL};
        let mut input = Self {
            offset: record.offset,
            appended: record.appended.0,
            wall: None,
            tick: false,
            epoch: None,
            origin: None,
            key: record
                .key
                .and_then(|key| std::str::from_utf8(key).ok())
                .unwrap_or(""),
            value: record.value.unwrap_or_default(),
        };
        for (name, header) in record.headers {
            let text = std::str::from_utf8(header).ok();
            match *name {
                HEADER_WALL => input.wall = text.and_then(|text| text.parse().ok()),
                HEADER_TICK => input.tick = true,
                HEADER_EPOCH => input.epoch = text.and_then(|text| text.parse().ok()),
                HEADER_ORIGIN => input.origin = text.and_then(Origin::parse),
                _ => {}
            }
        }
        input
    }
}

/// Why state can't be rebuilt from a changelog.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// An entry is not what its key says.
    #[error("changelog entry {key:?} can't be read")]
    Entry {
        /// Its key.
        key: String,
        /// What prost said.
        #[source]
        source: prost::DecodeError,
    },
    /// A key of no known kind.
    #[error("changelog key {key:?} is of no known kind: was it written by a newer version?")]
    Key {
        /// The key.
        key: String,
    },
}
