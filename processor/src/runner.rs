//! The worker's loop: poll, fold, commit, show; and restore after anything went wrong.
//!
//! One thread owns the log handle and all tasks: no locks, no sharing. What people see (the [`View`], the metrics of
//! the process) changes only after a commit succeeded.
//!
//! Which partitions are its own the log tells ([`Ownership`]): each is restored before its first record is folded, and
//! committed before it is given away.
//!
//! **Architecture Invariant:** a commit that is known to be aborted is sent again, without the partitions that were
//! lost meanwhile. Any other error is answered by dropping all state, recovering the log handle and restoring: always
//! right, and slow.

mod commit;
mod control;
mod intake;
mod observe;
mod restore;
mod ticks;

pub use control::SeedSource;

use crate::status::Status;
use crate::telemetry;
use crate::view::View;
use processor_core::labels::LabelTable;
use processor_core::{RestoreError, Rules, SeriesTask, SessionTask};
use processor_log::follow::Follower;
use processor_log::{Log, LogError, Ownership};
use schemas::id::{Position, TopicPartition};
use schemas::topic::Topic;
use settings::process::chain;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use ticks::Ticks;

/// When to commit, and how much to take in at once.
#[derive(Clone, Debug)]
pub struct Options {
    /// Commits begin at most this often, and at most this long after the first record that they hold; what comes after a
    /// pause waits for a tenth of it.
    pub commit_interval: Duration,
    /// The same while what is there is old: who is far behind gains by combining more, and nobody sees results later for it.
    /// And the most that it is stretched to while more is there than one poll takes.
    pub behind_interval: Duration,
    /// A commit follows at once when that many records are folded and not committed.
    pub records_max: usize,
    /// How many records one poll takes at most.
    pub poll_max: usize,
    /// Whether to append ticks to the raw partitions, those that start epochs too. Off only where a recorded log is
    /// replayed as it is.
    pub ticks: bool,
    /// How long to wait before starting anew after the log failed.
    pub backoff: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            commit_interval: Duration::from_millis(250),
            behind_interval: BEHIND_INTERVAL_MAX,
            records_max: 300_000,
            poll_max: 1_000,
            ticks: true,
            backoff: Duration::from_millis(500),
        }
    }
}

/// The longest time between two commits of a worker that is behind; to be well below the time for which results are
/// shown without a new one.
pub const BEHIND_INTERVAL_MAX: Duration = Duration::from_secs(3);

/// A commit follows at once when it has so many entries of changelogs to write: what it holds in memory, and how long its
/// transaction takes, goes by these. Many records change one of them.
const ENTRIES_MAX: usize = 50_000;
/// Or so many bytes of what goes to the quarantine: these are held as they came.
const QUARANTINED_BYTES_MAX: usize = 64 << 20;

/// Raw records that are older than this when they are folded are caught up with, ms: well above what clocks differ by.
const LAG_MS: i64 = 10_000;

/// While polls are full, commits take that part of the time: records come faster than the worker gets to them.
const COMMITS_SHARE: u32 = 4;

/// That part of a commit interval is waited for more when the last commit is long over.
const GATHERING: u32 = 10;

/// Why a worker stopped for good.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The log is not as it must be.
    #[error("the log can't be used")]
    Log(#[from] LogError),
    /// State can't be rebuilt.
    #[error(
        "state of {at} can't be restored; to rebuild it from the raw topics, use a new --prefix or data directory"
    )]
    Restore {
        /// The changelog partition.
        at: TopicPartition,
        /// What is wrong.
        #[source]
        source: RestoreError,
    },
    /// Committed position and state disagree.
    #[error(
        "{input}: the committed position is {committed:?} but the state in {changelog} is of {state:?}; nothing was folded. Restore the missing one, or rebuild from the raw topics under a new --prefix or data directory"
    )]
    Mismatch {
        /// The input partition.
        input: TopicPartition,
        /// The changelog partition.
        changelog: TopicPartition,
        /// The group's position.
        committed: Option<i64>,
        /// The state's position.
        state: Option<i64>,
    },
    /// A delta record is missing.
    #[error(
        "{at}: deltas of source {source_partition} are missing between positions {have} and {previous}; rebuild from the raw topics under a new --prefix or data directory"
    )]
    Gap {
        /// The deltas partition.
        at: TopicPartition,
        /// The raw partition they came from.
        source_partition: i32,
        /// Merged up to here.
        have: i64,
        /// The next record begins here.
        previous: i64,
    },
    /// A record of one of our own topics can't be read.
    #[error(
        "{at}@{offset} is not what this topic holds: was it written by another program or a newer version?"
    )]
    Foreign {
        /// The partition.
        at: TopicPartition,
        /// The record.
        offset: i64,
    },
    /// The control topic holds what this build can't follow.
    #[error("{at}@{offset}: the settings can't be used")]
    Settings {
        /// The control partition.
        at: TopicPartition,
        /// The record.
        offset: i64,
        /// What is wrong.
        #[source]
        source: schemas::settings::SettingsError,
    },
}

/// One worker over a log.
pub struct Runner<L> {
    log: L,
    seed: SeedSource,
    options: Options,
    view: Arc<View>,
    status: Arc<Status>,
    joined: bool,
    /// The partitions that are ours, restored or to be restored.
    owned: BTreeSet<TopicPartition>,
    /// A change of ownership that is being answered.
    unanswered: Option<Ownership>,
    state: Option<State>,
}

/// Everything that is dropped and rebuilt together.
struct State {
    rules: Rules,
    labels: LabelTable,
    labels_next: Position,
    /// The control topic, as far as it is read.
    control: Follower,
    /// Log time of the last look at the control topic, of the last deletion of deltas, and of the last gauges, ms.
    /// By the log's clock, not ours: a simulated run is then the same every time.
    control_read_ms: i64,
    sessions: BTreeMap<i32, SessionTask>,
    series: BTreeMap<i32, SeriesTask>,
    /// Committed position of each input partition.
    committed: BTreeMap<TopicPartition, i64>,
    ticks: Ticks,
    /// Records folded since the last commit, and when the first was.
    pending: usize,
    pending_since: Option<Instant>,
    /// Of the raw records among them, the newest append time, ms; and whether that is [`LAG_MS`] ago.
    newest: Option<i64>,
    lags: bool,
    /// When the last commit began, and how long it took.
    commit_began: Option<Instant>,
    commit_took: Duration,
    trimmed_ms: i64,
    observed_ms: i64,
    /// Records that could not move their partition's clock, as last counted.
    held: BTreeMap<i32, u64>,
}

impl<L: Log> Runner<L> {
    /// A worker that has done nothing yet. `seed` is written to the control topic if that is empty.
    pub fn new(log: L, seed: SeedSource, view: Arc<View>, status: Arc<Status>, options: Options) -> Self {
        Self {
            log,
            seed,
            options,
            view,
            status,
            joined: false,
            owned: BTreeSet::new(),
            unanswered: None,
            state: None,
        }
    }

    /// Works until `stop`, then commits what is folded.
    ///
    /// The log's failures are outlived: drop, fence, restore. A log whose content is wrong ends the worker.
    ///
    /// # Errors
    /// See [`RunError`]; none of them mends itself.
    pub fn run(&mut self, stop: &AtomicBool) -> Result<(), RunError> {
        while !stop.load(Ordering::Relaxed) {
            match self.turn() {
                Ok(()) => {}
                Err(RunError::Log(error)) if outlived(&error) => self.start_anew(&error, stop),
                Err(error) => {
                    self.drop_state();
                    return Err(error);
                }
            }
        }
        self.finish()
    }

    /// One turn of the loop: restore if need be, then poll, fold, and commit when it is time.
    ///
    /// # Errors
    /// See [`RunError`]; after one of the log's, call [`Runner::drop_state`].
    pub fn turn(&mut self) -> Result<(), RunError> {
        self.status.beat();
        if self.state.is_none() {
            self.begin()?;
        }
        self.answer()?;
        let Some(state) = self.state.as_mut() else {
            return Ok(());
        };
        let count = match state.take_in(&mut self.log, &self.options) {
            Err(RunError::Log(LogError::OutOfRange { at, start, .. }))
                if is_past(&mut self.log, at, start)? =>
            {
                let reason = format!("{at} is with another worker, which has deleted what it merged");
                return Err(LogError::unavailable(reason).into());
            }
            other => other?,
        };
        let interval = state.interval(&self.options, count);
        if self.options.ticks {
            control::follow(state, &mut self.log)?;
            ticks::send_due(state, &mut self.log)?;
        }
        observe::gauges(state, &mut self.log)?;
        if state.commit_due(&self.options, interval) {
            self.commit()?;
        } else if state.pending == 0 {
            self.status.polled();
        }
        Ok(())
    }

    /// State without partitions, or with those that were ours when it was dropped.
    fn begin(&mut self) -> Result<(), RunError> {
        // Fence whoever wrote before us first: else a commit of theirs could follow what we are about to read.
        self.log.recover()?;
        // There is nothing to commit. After an outage all may be lost with the old client.
        while let Some(change) = self.unanswered.take().or_else(|| self.log.ownership()) {
            match change {
                Ownership::Assigned(new) => self.owned.extend(new),
                Ownership::Revoked(old) | Ownership::Lost(old) => self.give_up(&old)?,
            }
        }
        let mut state = restore::begin(&mut self.log, &self.seed)?;
        if self.joined {
            let owned: Vec<TopicPartition> = self.owned.iter().copied().collect();
            self.take_in(&mut state, &owned)?;
        } else {
            self.log.join()?;
            self.joined = true;
        }
        self.state = Some(state);
        Ok(())
    }

    /// Restores partitions, lets the log give them out, and shows them.
    fn take_in(&mut self, state: &mut State, new: &[TopicPartition]) -> Result<(), RunError> {
        self.status.set_ready(false);
        let began = Instant::now();
        restore::tasks(state, &mut self.log, new, &self.status)?;
        commit::show_restored(state, new, &self.view, &self.status);
        self.status.confirmed();
        self.status.set_ready(true);
        tracing::info!(
            partitions = new.len(),
            took_ms = began.elapsed().as_millis(),
            "partitions restored"
        );
        Ok(())
    }

    /// Answers what the log says about who owns partitions.
    fn answer(&mut self) -> Result<(), RunError> {
        loop {
            self.unanswered = self.unanswered.take().or_else(|| self.log.ownership());
            match self.unanswered.clone() {
                None => return Ok(()),
                Some(Ownership::Assigned(new)) => {
                    tracing::info!(partitions = new.len(), "partitions assigned");
                    self.owned.extend(new.iter().copied());
                    let Some(mut state) = self.state.take() else {
                        return Ok(());
                    };
                    self.take_in(&mut state, &new)?;
                    self.state = Some(state);
                }
                Some(Ownership::Revoked(old)) => {
                    tracing::info!(partitions = old.len(), "partitions revoked");
                    self.commit()?;
                    self.give_up(&old)?;
                }
                Some(Ownership::Lost(old)) => {
                    tracing::warn!(
                        partitions = old.len(),
                        "partitions lost: others may have them already"
                    );
                    self.give_up(&old)?;
                }
            }
            self.unanswered = None;
        }
    }

    /// Shows partitions no longer, forgets their state, and tells the log.
    fn give_up(&mut self, old: &[TopicPartition]) -> Result<(), RunError> {
        for at in old {
            self.owned.remove(at);
            self.hide(*at);
            if let Some(state) = self.state.as_mut() {
                state.forget(*at);
            }
        }
        Ok(self.log.release(old)?)
    }

    /// Commits what is folded, if anything is, and shows it.
    ///
    /// # Errors
    /// The log's: call [`Runner::drop_state`].
    pub fn commit(&mut self) -> Result<(), RunError> {
        let Some(state) = self.state.as_mut().filter(|state| state.pending > 0) else {
            return Ok(());
        };
        let (began, records) = (Instant::now(), state.pending);
        state.commit_began = Some(began);
        let mut prepared = commit::prepare(state, &mut self.log)?;
        let mut aborts = 0;
        let positions = loop {
            let positions = prepared.step.positions.clone();
            match self.log.commit(std::mem::take(&mut prepared.step)) {
                Ok(()) => break positions,
                Err(LogError::Aborted {
                    reason,
                    source,
                    commit,
                }) if aborts < ABORTS_MAX => {
                    aborts += 1;
                    let source = source.as_ref().map(tracing::field::display);
                    tracing::warn!(
                        reason,
                        source,
                        "commit aborted; sending it again with what is still ours"
                    );
                    telemetry::transaction("aborted");
                    prepared.step = *commit;
                    self.log.settle(SETTLE_MAX)?;
                    // One change may be waiting for this very commit; a loss can be dealt with at once.
                    self.unanswered = self.unanswered.take().or_else(|| self.log.ownership());
                    if let Some(Ownership::Lost(old)) = self.unanswered.clone() {
                        prepared.leave_out(&old);
                        self.give_up(&old)?;
                        self.unanswered = None;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        };
        if let Some(state) = self.state.as_mut() {
            commit::done(
                state,
                &mut self.log,
                positions,
                prepared,
                (&self.view, &self.status),
            )?;
            state.commit_took = began.elapsed();
            tracing::debug!(records, took_ms = state.commit_took.as_millis(), "committed");
        }
        self.status.confirmed();
        Ok(())
    }

    /// Forgets all state and shows nothing more: the next turn restores it from the log.
    pub fn drop_state(&mut self) {
        self.state = None;
        self.status.set_ready(false);
        self.owned.iter().for_each(|at| self.hide(*at));
    }

    /// Shows a partition no longer, unless another worker shows it already.
    fn hide(&self, at: TopicPartition) {
        if at.topic == Topic::Deltas {
            self.view
                .partitions
                .remove_if(&at.partition, |_, shown| shown.is_of(&self.status));
        }
    }

    /// The log handle.
    pub const fn log(&mut self) -> &mut L {
        &mut self.log
    }

    fn start_anew(&mut self, error: &LogError, stop: &AtomicBool) {
        tracing::warn!(
            error = chain(error),
            "dropping state and starting anew from the log"
        );
        telemetry::transaction("not_confirmed");
        self.drop_state();
        if !stop.load(Ordering::Relaxed) {
            std::thread::sleep(self.options.backoff);
        }
    }

    fn finish(&mut self) -> Result<(), RunError> {
        let result = self.commit();
        self.drop_state();
        match result {
            // What was not committed is folded again at the next start: nothing is lost by leaving.
            Err(RunError::Log(error)) if outlived(&error) => {
                tracing::warn!(
                    error = chain(&error),
                    "the last commit was not confirmed; its records are folded again at the next start"
                );
                Ok(())
            }
            other => other,
        }
    }
}

/// How often a commit that is known to be aborted is sent again.
const ABORTS_MAX: usize = 3;
/// How long to wait for news about ownership before that.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// Whether `every_ms` have passed since `last_ms`; also after the log's clock was set back.
const fn is_due(now_ms: i64, last_ms: i64, every_ms: u64) -> bool {
    now_ms.abs_diff(last_ms) >= every_ms
}

/// Whether the group went on past the new start of a partition: then others have it, and this worker has not heard of it yet.
fn is_past<L: Log>(log: &mut L, at: TopicPartition, start: i64) -> Result<bool, LogError> {
    Ok(log
        .committed(&[at])?
        .first()
        .copied()
        .flatten()
        .is_some_and(|committed| committed.0 >= start))
}

/// Whether restoring can help.
const fn outlived(error: &LogError) -> bool {
    matches!(
        error,
        LogError::Aborted { .. }
            | LogError::NotCommitted { .. }
            | LogError::Unavailable { .. }
            | LogError::Full { .. }
    )
}

impl State {
    /// Drops the task of an input partition.
    fn forget(&mut self, at: TopicPartition) {
        self.committed.remove(&at);
        match at.topic {
            Topic::RawLogs => {
                self.sessions.remove(&at.partition);
                self.held.remove(&at.partition);
                self.ticks.forget(at.partition);
            }
            _ => {
                self.series.remove(&at.partition);
            }
        }
    }

    /// How long a poll may wait: to the next commit or tick, and never so long that a stop would be noticed late.
    fn wait(&self, options: &Options) -> Duration {
        const LONGEST: Duration = Duration::from_millis(100);
        if self.lags {
            // The client may have nothing for a moment; only when nothing comes for that long is it read to the end.
            return LONGEST;
        }
        self.due_in(options.commit_interval)
            .map_or(LONGEST, |until_commit| until_commit.min(LONGEST))
    }

    /// The commit interval after a poll that gave so many records.
    fn interval(&self, options: &Options, count: usize) -> Duration {
        let longest = options.commit_interval.max(options.behind_interval);
        if count >= options.poll_max && !self.lags {
            (self.commit_took * COMMITS_SHARE).clamp(options.commit_interval, longest)
        } else if self.lags && count > 0 {
            longest
        } else {
            options.commit_interval
        }
    }

    fn commit_due(&self, options: &Options, interval: Duration) -> bool {
        let is_time = self.due_in(interval).is_some_and(|left| left.is_zero());
        let pending = self.sessions.values().map(SessionTask::pending);
        let (entries, bytes) = pending.fold((0, 0), |(entries, bytes), of| {
            (entries + of.entries, bytes + of.quarantined_bytes)
        });
        is_time
            || self.pending >= options.records_max
            || entries >= ENTRIES_MAX
            || bytes >= QUARANTINED_BYTES_MAX
    }

    /// Time left until what is folded is to be committed; none while nothing is.
    ///
    /// Counted from the beginning of the last commit, so that one that takes long does not come on top. After a pause a
    /// record still waits for those that came with it.
    fn due_in(&self, interval: Duration) -> Option<Duration> {
        let waited = self.pending_since?.elapsed();
        let to_next = self
            .commit_began
            .map_or(Duration::ZERO, |began| interval.saturating_sub(began.elapsed()));
        let gathering = (interval / GATHERING).saturating_sub(waited);
        Some(interval.saturating_sub(waited).min(to_next.max(gathering)))
    }
}
