//! The committed view: what the last commit made true. `/metrics` and the page show nothing else of derived
//! values.
//!
//! The view has an entry for each deltas partition. An entry is changed under a lock of its own, so a scrape
//! sees the series and the timestamp of a partition as one commit left them.

use crate::status::Status;
use dashmap::DashMap;
use schemas::metric::Amount;
use schemas::time::{AppendTime, EventTime};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

pub use processor_log::cluster::MAIN;

/// What is shown of a series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The total of a counter, an up-down counter or a histogram; `None` for other metrics.
    pub total: Option<Amount>,
    /// The series' value in the latest final window of each size (0 is the smallest), with the window's
    /// start.
    pub last_final: BTreeMap<usize, (EventTime, Amount)>,
}

/// A deltas partition as its last commit left it.
#[derive(Clone, Debug, Default)]
pub struct PartitionView {
    /// The worker that committed the partition; `None` if the partition may be shown whatever a worker does.
    pub worker: Option<Arc<Status>>,
    /// Running maximum of the append times of the delta records in the committed state: the timestamp of all
    /// samples.
    pub timestamp: AppendTime,
    /// What is shown of each series, by series key.
    pub series: BTreeMap<String, Shown>,
    /// The start of the latest final window of each size; values of an older window are not shown.
    pub latest_final: Vec<Option<EventTime>>,
}

impl PartitionView {
    /// Whether `worker` is the one that committed this partition last: another worker of the same process may
    /// have taken the partition over.
    #[must_use]
    pub fn is_of(&self, worker: &Arc<Status>) -> bool {
        self.worker.as_ref().is_some_and(|own| Arc::ptr_eq(own, worker))
    }

    /// Whether the partition may be shown: the lease of its worker has not run out, so no other process shows
    /// newer state.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        self.worker.as_ref().is_none_or(|worker| worker.is_shown())
    }
}

/// A session as the page shows it: its latest row, as JSON.
pub type SessionJson = serde_json::Value;

/// The committed view of one process.
#[derive(Debug)]
pub struct View {
    /// The name of the derivation that is shown: the value of label `log` of every result.
    pub log: String,
    /// The entries, by deltas partition.
    pub partitions: DashMap<i32, PartitionView>,
    /// The latest session rows, at most [`View::RECENT_MAX`], newest last.
    recent: Mutex<VecDeque<SessionJson>>,
}

impl Default for View {
    /// The view of a derivation without a name of its own.
    fn default() -> Self {
        Self::of(MAIN)
    }
}

impl View {
    /// The empty view of a derivation with that name.
    #[must_use]
    pub fn of(log: &str) -> Self {
        Self {
            log: log.to_owned(),
            partitions: DashMap::new(),
            recent: Mutex::default(),
        }
    }

    /// The most session rows that the view keeps.
    pub const RECENT_MAX: usize = 50;

    /// Adds a session row, which replaces an older row with the same `key`.
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
