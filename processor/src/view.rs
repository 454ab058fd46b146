//! The committed view: what the last commit made true, and the only thing that `/metrics` and the page show.
//!
//! One entry per deltas partition; an entry is changed under its own lock, so a scrape sees each partition's series
//! and timestamp of one and the same commit.

use crate::status::Status;
use dashmap::DashMap;
use schemas::metric::Amount;
use schemas::time::{AppendTime, EventTime};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

pub use processor_log::cluster::MAIN;

/// What a series shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Cumulative value, for counters, up-down counters and histograms.
    pub total: Option<Amount>,
    /// By window size (0 is the smallest): start of the last final window with a row, and its value.
    pub last_final: BTreeMap<usize, (EventTime, Amount)>,
}

/// One deltas partition as of its last commit.
#[derive(Clone, Debug, Default)]
pub struct PartitionView {
    /// The worker that committed it; none: it may always be shown.
    pub worker: Option<Arc<Status>>,
    /// Append time of the last delta record in the committed state, as a running maximum; the samples' timestamp.
    pub timestamp: AppendTime,
    /// By series key.
    pub series: BTreeMap<String, Shown>,
    /// By window size: the start of the latest window that is final; a gauge of an older one is not shown.
    pub latest_final: Vec<Option<EventTime>>,
}

impl PartitionView {
    /// Whether that worker committed it: another may have taken the partition over meanwhile, in the same process.
    #[must_use]
    pub fn is_of(&self, worker: &Arc<Status>) -> bool {
        self.worker.as_ref().is_some_and(|own| Arc::ptr_eq(own, worker))
    }

    /// Whether it may be shown: its worker had a success lately, so that nobody else shows a newer state.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        self.worker.as_ref().is_none_or(|worker| worker.is_shown())
    }
}

/// A session as the page shows it: its latest published row, as JSON.
pub type SessionJson = serde_json::Value;

/// The committed view of one process.
#[derive(Debug)]
pub struct View {
    /// Name of the derivation that is shown: the label `log` of every result.
    pub log: String,
    /// By deltas partition.
    pub partitions: DashMap<i32, PartitionView>,
    /// The latest session rows, newest last, at most [`View::RECENT_MAX`].
    recent: Mutex<VecDeque<SessionJson>>,
}

impl Default for View {
    /// The view of a derivation without a name of its own.
    fn default() -> Self {
        Self::of(MAIN)
    }
}

impl View {
    /// The empty view of a derivation of that name.
    #[must_use]
    pub fn of(log: &str) -> Self {
        Self {
            log: log.to_owned(),
            partitions: DashMap::new(),
            recent: Mutex::default(),
        }
    }

    /// How many session rows the page keeps.
    pub const RECENT_MAX: usize = 50;

    /// Remembers a published session row; an older row with the same `key` makes way.
    ///
    /// # Panics
    /// Only after a panic of another thread within this function.
    pub fn session(&self, key: &str, mut row: SessionJson) {
        if let Some(object) = row.as_object_mut() {
            object.insert("key".to_owned(), key.into());
        }
        let mut recent = self
            .recent
            .lock()
            .expect("nothing panics while holding this lock");
        recent.retain(|old| old["key"] != key);
        recent.push_back(row);
        while recent.len() > Self::RECENT_MAX {
            recent.pop_front();
        }
    }

    /// The latest session rows, newest first.
    ///
    /// # Panics
    /// Only after a panic of another thread within this module.
    #[must_use]
    pub fn recent_sessions(&self) -> Vec<SessionJson> {
        self.recent
            .lock()
            .expect("nothing panics while holding this lock")
            .iter()
            .rev()
            .cloned()
            .collect()
    }
}
