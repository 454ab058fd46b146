//! When to commit, and how long a poll may wait: pure, and told the time.
//!
//! Points in time are durations since the worker's start; append times are the log's.

use super::Options;
use processor_core::Pending;
use schemas::time::AppendTime;
use std::time::Duration;

/// A commit follows at once when it has so many records to write, of changelogs and rows: what it holds in memory, and how
/// long its transaction takes, goes by these.
pub const COMMIT_ENTRIES_MAX: usize = 50_000;
/// A commit follows at once when it has so many bytes to write of what is not bounded by its number: deltas, rows, large
/// state, quarantined values.
pub const COMMIT_BYTES_MAX: usize = 64 << 20;

/// Raw records that are older than this when they are folded are caught up with, ms: well above what clocks differ by.
const LAG_MS: i64 = 10_000;
/// While polls are full, commits take that part of the time: records come faster than the worker gets to them.
const COMMITS_SHARE: u32 = 4;
/// What comes after a pause waits for that part of a commit interval.
const GATHERING: u32 = 10;
/// The longest that a poll waits, so that a stop is noticed soon.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// What was folded since the last commit, and how the last one went.
#[derive(Clone, Debug)]
pub struct Pace {
    commit_interval: Duration,
    behind_interval: Duration,
    records_max: usize,
    poll_max: usize,
    /// Records folded since the last commit.
    records: usize,
    /// When the first of these was folded.
    since: Option<Duration>,
    /// The newest append time of the raw records among them.
    newest: Option<AppendTime>,
    /// Whether these are old: there is more to catch up with.
    lags: bool,
    /// What they make the next commit write.
    pending: Pending,
    /// When the last commit began.
    commit_began: Option<Duration>,
    /// How long the last commit took.
    commit_took: Duration,
}

impl Pace {
    /// Of a worker that has folded nothing yet.
    pub fn new(options: &Options) -> Self {
        Self {
            commit_interval: options.commit_interval,
            behind_interval: options.behind_interval,
            records_max: options.records_max,
            poll_max: options.poll_max,
            records: 0,
            since: None,
            newest: None,
            lags: false,
            pending: Pending::default(),
            commit_began: None,
            commit_took: Duration::ZERO,
        }
    }

    /// A record was folded at `now`: its task had `before` to write until then, and has `after` now. `raw` is its append
    /// time, if it is a raw record.
    pub fn folded(&mut self, now: Duration, raw: Option<AppendTime>, before: Pending, after: Pending) {
        self.records += 1;
        self.since.get_or_insert(now);
        self.newest = self.newest.max(raw);
        self.pending = self.pending.plus(after).minus(before);
    }

    /// A poll is over, at `wall_ms` by the log's clock.
    pub fn polled(&mut self, wall_ms: i64) {
        let age_ms = |newest: AppendTime| wall_ms.saturating_sub(newest.0);
        self.lags = self.newest.is_some_and(|newest| age_ms(newest) >= LAG_MS);
    }

    /// Tasks were dropped: those that are left have `pending` to write.
    pub const fn dropped(&mut self, pending: Pending) {
        self.pending = pending;
    }

    /// How many records are folded and not committed.
    pub const fn records(&self) -> usize {
        self.records
    }

    /// Whether the next commit is as large as a commit may be: no further record is folded before it.
    pub const fn is_full(&self) -> bool {
        let is_large = self.records >= self.records_max
            || self.pending.entries >= COMMIT_ENTRIES_MAX
            || self.pending.bytes >= COMMIT_BYTES_MAX;
        self.records > 0 && is_large
    }

    /// How long a poll at `now` may wait for records.
    pub fn wait(&self, now: Duration) -> Duration {
        if self.lags {
            // The client may have nothing for a moment; only when nothing comes for that long is it read to the end.
            return WAIT_MAX;
        }
        self.due_in(now, self.commit_interval)
            .map_or(WAIT_MAX, |until_commit| until_commit.min(WAIT_MAX))
    }

    /// Whether it is time to commit at `now`, after a poll that gave `polled` records.
    pub fn is_due(&self, now: Duration, polled: usize) -> bool {
        let is_time = self
            .due_in(now, self.interval(polled))
            .is_some_and(|left| left.is_zero());
        (self.records > 0 && is_time) || self.is_full()
    }

    /// A commit begins.
    pub const fn commit_began(&mut self, now: Duration) {
        self.commit_began = Some(now);
    }

    /// The commit succeeded; tasks have `pending` left to write.
    pub fn committed(&mut self, now: Duration, pending: Pending) {
        self.commit_took = now.saturating_sub(self.commit_began.unwrap_or(now));
        self.records = 0;
        self.since = None;
        self.newest = None;
        self.lags = false;
        self.pending = pending;
    }

    /// How long the last commit took.
    pub const fn commit_took(&self) -> Duration {
        self.commit_took
    }

    /// The commit interval after a poll that gave so many records.
    fn interval(&self, polled: usize) -> Duration {
        let longest = self.commit_interval.max(self.behind_interval);
        if polled >= self.poll_max && !self.lags {
            (self.commit_took * COMMITS_SHARE).clamp(self.commit_interval, longest)
        } else if self.lags && polled > 0 {
            longest
        } else {
            self.commit_interval
        }
    }

    /// Time left until what is folded is to be committed; none while nothing is.
    ///
    /// Counted from the beginning of the last commit, so that one that takes long does not come on top. After a pause a
    /// record still waits for those that came with it.
    fn due_in(&self, now: Duration, interval: Duration) -> Option<Duration> {
        let waited = now.saturating_sub(self.since?);
        let to_next = self.commit_began.map_or(Duration::ZERO, |began| {
            interval.saturating_sub(now.saturating_sub(began))
        });
        let gathering = (interval / GATHERING).saturating_sub(waited);
        Some(interval.saturating_sub(waited).min(to_next.max(gathering)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn pace() -> Pace {
        Pace::new(&Options {
            commit_interval: MS(250),
            behind_interval: MS(3_000),
            records_max: 10,
            poll_max: 4,
            ..Options::default()
        })
    }

    fn fold(pace: &mut Pace, now: Duration, raw: i64, after: Pending) {
        pace.folded(now, Some(AppendTime(raw)), Pending::default(), after);
        pace.polled(100_000);
    }

    #[test]
    fn what_comes_after_a_pause_waits_for_a_tenth_of_the_interval() {
        let mut pace = pace();
        assert!(!pace.is_due(MS(9_000), 0), "nothing is folded");
        assert_eq!(pace.wait(MS(9_000)), WAIT_MAX);
        fold(&mut pace, MS(9_000), 100_000, Pending::default());
        assert_eq!(pace.wait(MS(9_000)), MS(25));
        assert!(!pace.is_due(MS(9_024), 1));
        assert!(pace.is_due(MS(9_025), 1));
    }

    #[test]
    fn commits_begin_an_interval_apart_however_long_they_take() {
        let mut pace = pace();
        fold(&mut pace, MS(1_000), 100_000, Pending::default());
        pace.commit_began(MS(1_025));
        pace.committed(MS(1_225), Pending::default());
        assert_eq!(pace.commit_took(), MS(200));
        fold(&mut pace, MS(1_230), 100_000, Pending::default());
        assert!(!pace.is_due(MS(1_274), 1));
        assert!(pace.is_due(MS(1_275), 1), "250 ms after the last one began");
    }

    #[test]
    fn old_records_and_full_polls_stretch_the_interval() {
        let mut pace = pace();
        fold(&mut pace, MS(1_000), 90_000, Pending::default());
        assert!(!pace.is_due(MS(1_250), 1), "the record is 10 s old");
        assert!(
            pace.is_due(MS(1_300), 1),
            "a tenth of 3 s is over, and there was no commit before"
        );
        assert!(
            pace.is_due(MS(1_025), 0),
            "no more of them came: the usual interval holds"
        );
        pace.commit_began(MS(1_300));
        pace.committed(MS(1_500), Pending::default());
        fold(&mut pace, MS(1_500), 100_000, Pending::default());
        assert!(
            !pace.is_due(MS(2_099), 4),
            "a poll was full, and the last commit took 200 ms"
        );
        assert!(pace.is_due(MS(2_100), 4), "four times that is over");
    }

    #[test]
    fn a_full_commit_is_due_at_once_by_records_entries_or_bytes() {
        for after in [
            Pending {
                entries: COMMIT_ENTRIES_MAX,
                bytes: 0,
            },
            Pending {
                entries: 0,
                bytes: COMMIT_BYTES_MAX,
            },
        ] {
            let mut pace = pace();
            fold(&mut pace, MS(5), 100_000, after);
            assert!(pace.is_full() && pace.is_due(MS(5), 1), "{after:?}");
            pace.dropped(Pending::default());
            assert!(!pace.is_full(), "what was large went with its task");
        }
        let mut pace = pace();
        (0..10).for_each(|_| fold(&mut pace, MS(5), 100_000, Pending::default()));
        assert!(pace.is_full() && pace.is_due(MS(5), 1));
        pace.committed(MS(6), Pending::default());
        assert!(!pace.is_full() && pace.records() == 0);
    }
}
