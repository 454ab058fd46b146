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
mod pace;
mod restore;
mod tasks;
mod ticks;

pub use control::SeedSource;
pub use pace::{COMMIT_BYTES_MAX, COMMIT_ENTRIES_MAX};

use crate::status::Status;
use crate::telemetry;
use crate::view::View;
use commit::Prepared;
use pace::Pace;
use processor_core::labels::LabelTable;
use processor_core::{Halt, RestoreError, Rules};
use processor_log::follow::Follower;
use processor_log::{Log, LogError, Ownership};
use schemas::id::{Position, TopicPartition};
use schemas::record::Record;
use schemas::settings::SEMANTICS;
use schemas::stage::Stage;
use settings::process::chain;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tasks::Tasks;
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
    /// Whether to append ticks to the raw partitions, those that start epochs too, and to write what can't be folded to the
    /// quarantine. One derivation of a log does both; off for a second one beside it, and where a recorded log is replayed
    /// as it is.
    pub ticks: bool,
    /// Put before the names of derived topics; tells the id of this derivation from those of others of its log.
    pub derived_prefix: String,
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
            derived_prefix: String::new(),
            backoff: Duration::from_millis(500),
        }
    }
}

/// The longest time between two commits of a worker that is behind; to be well below the time for which results are
/// shown without a new one.
pub const BEHIND_INTERVAL_MAX: Duration = Duration::from_secs(3);

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
    /// State was computed by another version of the rules.
    #[error(
        "the state in {at} was computed under semantics {found}, and this version computes {SEMANTICS}: go on with the version that wrote it, or derive anew beside it under another derived_prefix"
    )]
    Semantics {
        /// The changelog partition.
        at: TopicPartition,
        /// The semantics of the state.
        found: u32,
    },
    /// A task can't go on.
    #[error(
        "{at}@{offset} can't be folded; rebuild from the raw topics under a new --prefix or data directory"
    )]
    Halt {
        /// The input partition.
        at: TopicPartition,
        /// The record.
        offset: i64,
        /// What is wrong with it.
        #[source]
        source: Halt,
    },
    /// The group gave out a partition that no stage reads.
    #[error("{at} is input of no stage: another program is in the consumer group, or a newer version")]
    NoInput {
        /// The partition.
        at: TopicPartition,
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
    work: Option<Work>,
}

/// Everything that is dropped and rebuilt together.
struct Work {
    rules: Rules,
    labels: LabelTable,
    /// Where the labels topic is to be read on.
    labels_next: Position,
    /// The control topic, as far as it is read.
    control: Follower,
    /// Log time of the last look at the control topic, ms. By the log's clock, not the process's: a simulated run is then
    /// the same every time.
    control_read_ms: i64,
    tasks: Tasks,
    ticks: Ticks,
    /// Records that a poll gave and that are not folded yet: a commit is due before them, or an epoch is not known.
    backlog: VecDeque<Record>,
    pace: Pace,
    /// What points in time of the pace count from.
    began: Instant,
    /// Log time of the last deletion of consumed records, ms.
    trimmed_ms: i64,
    /// Log time of the last gauges, ms.
    observed_ms: i64,
    /// The derivation's id, for [`telemetry::log_info`].
    derivation_id: String,
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
            work: None,
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
        if self.work.is_none() {
            self.begin()?;
        }
        self.answer()?;
        let Some(work) = self.work.as_mut() else {
            return Ok(());
        };
        let count = match work.take_in(&mut self.log, &self.options) {
            Err(RunError::Log(LogError::OutOfRange { at, start, .. }))
                if is_past(&mut self.log, at, start)? =>
            {
                let reason = format!("{at} is with another worker, which has deleted what it merged");
                return Err(LogError::unavailable(reason).into());
            }
            other => other?,
        };
        if self.options.ticks {
            control::follow(work, &mut self.log)?;
            ticks::send_due(work, &mut self.log)?;
        }
        observe::gauges(work, &mut self.log, &self.view)?;
        if work.pace.is_due(work.now(), count) {
            self.commit()?;
        } else if work.pace.records() == 0 {
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
        let mut work = restore::begin(&mut self.log, &self.seed, &self.options)?;
        if self.joined {
            let owned: Vec<TopicPartition> = self.owned.iter().copied().collect();
            self.take_in(&mut work, &owned)?;
        } else {
            self.log.join()?;
            self.joined = true;
        }
        self.work = Some(work);
        Ok(())
    }

    /// Restores partitions, lets the log give them out, and shows them.
    fn take_in(&mut self, work: &mut Work, new: &[TopicPartition]) -> Result<(), RunError> {
        self.status.set_ready(false);
        let began = Instant::now();
        restore::tasks(work, &mut self.log, new, &self.status)?;
        commit::show_restored(work, new, &self.view, &self.status);
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
                    let Some(mut work) = self.work.take() else {
                        return Ok(());
                    };
                    self.take_in(&mut work, &new)?;
                    self.work = Some(work);
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
            if let Some(work) = self.work.as_mut() {
                work.forget(*at);
            }
        }
        Ok(self.log.release(old)?)
    }

    /// Commits what is folded, if anything is, and shows it.
    ///
    /// # Errors
    /// The log's: call [`Runner::drop_state`].
    pub fn commit(&mut self) -> Result<(), RunError> {
        let Some(work) = self.work.as_mut().filter(|work| work.pace.records() > 0) else {
            return Ok(());
        };
        let records = work.pace.records();
        work.pace.commit_began(work.now());
        let mut prepared = commit::prepare(work, &mut self.log, self.options.ticks)?;
        let positions = self.send(&mut prepared)?;
        if let Some(work) = self.work.as_mut() {
            commit::done(
                work,
                &mut self.log,
                positions,
                prepared,
                (&self.view, &self.status),
            );
            work.pace.committed(work.now(), work.tasks.pending());
            let took_ms = work.pace.commit_took().as_millis();
            tracing::debug!(records, took_ms, "committed");
            work.trim(&mut self.log)?;
        }
        self.status.confirmed();
        Ok(())
    }

    /// Gives a commit to the log, again without what was lost meanwhile where it is known to be aborted; the positions that
    /// are committed then.
    fn send(&mut self, prepared: &mut Prepared) -> Result<Vec<(TopicPartition, Position)>, RunError> {
        let mut aborts = 0;
        loop {
            let positions = prepared.commit.positions();
            match self.log.commit(std::mem::take(&mut prepared.commit)) {
                Ok(()) => return Ok(positions),
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
                    prepared.commit = *commit;
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
        }
    }

    /// Forgets all state and shows nothing more: the next turn restores it from the log.
    pub fn drop_state(&mut self) {
        self.work = None;
        self.status.set_ready(false);
        self.owned.iter().for_each(|at| self.hide(*at));
    }

    /// Shows a partition no longer, unless another worker shows it already.
    fn hide(&self, at: TopicPartition) {
        if Stage::of_input(at.topic) == Some(Stage::Series) {
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

/// How often consumed records are deleted, ms.
const TRIM_EVERY_MS: u64 = 10_000;
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

impl Work {
    /// The time that the pace is told.
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Drops the task of an input partition.
    fn forget(&mut self, at: TopicPartition) {
        self.tasks.remove(at);
        self.ticks.forget(at);
        self.backlog.retain(|record| record.from != at);
        self.pace.dropped(self.tasks.pending());
    }

    /// Deletes the records that are consumed and committed, now and then.
    fn trim<L: Log>(&mut self, log: &mut L) -> Result<(), LogError> {
        let now = log.wall_ms();
        if !is_due(now, self.trimmed_ms, TRIM_EVERY_MS) {
            return Ok(());
        }
        self.trimmed_ms = now;
        log.trim(&commit::consumed(&self.tasks))
    }
}
