//! The worker's loop: poll, fold, commit, show; and restore after anything went wrong.
//!
//! One thread owns the log handle and all tasks: no locks, no sharing. What people see (the [`View`], the
//! metrics of the process) changes only after a commit succeeded.
//!
//! The log tells which partitions are the worker's own ([`Ownership`]). *Assigned*: restore, then take over.
//! *Revoked*: commit, hide, release. *Lost*: hide, drop the state, release.
//!
//! What becomes of a commit:
//!
//! | the log says | the worker |
//! |---|---|
//! | committed | shows it |
//! | aborted, for certain: a rebalance, a failed send | waits for news about ownership, leaves out what was lost, sends the rest again, three times at most |
//! | no answer | a new producer with the same `transactional.id` fences the old one, and the committed positions are read back: all at the end is committed, all at the start is sent again, anything else is as the next row |
//! | fenced, fatal, anything else | drops all state, recovers the log handle, restores, goes on |
//! | the name is taken (static members) | drops all state and stays silent until no member of the group has the name, then joins again; if another process has it, ends |
//!
//! What can't mend itself (a gap, a mismatch, foreign records) ends the worker and the process.
//!
//! **Architecture Invariant:** a commit that is known to be aborted is sent again, without the partitions
//! that were lost meanwhile. Any other error is answered by dropping all state, recovering the log handle and
//! restoring: always right, and slow.
#![deny(clippy::wildcard_enum_match_arm)]

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

/// When a worker commits, how much it polls, and what it writes beside derived topics.
#[derive(Clone, Debug)]
pub struct Options {
    /// The shortest time between the beginnings of two commits, and the longest time for which a folded record waits for one. A
    /// record that comes after a pause waits for a tenth of it.
    pub commit_interval: Duration,
    /// The commit interval while the folded records are old: larger commits let a worker that is behind catch up sooner. It is
    /// also the longest interval while polls are full.
    pub behind_interval: Duration,
    /// The most records that are folded before a commit.
    pub records_max: usize,
    /// The most records of one poll.
    pub poll_max: usize,
    /// Whether the worker appends ticks to raw partitions, those that start epochs included, and writes what can't be folded to
    /// the quarantine topic. One derivation of a log does both. It is off for a further derivation, and where a recorded log is
    /// replayed unchanged.
    pub ticks: bool,
    /// The prefix of derived topics. The id of the derivation depends on it ([`schemas::settings::Seed::derivation_id`]).
    pub derived_prefix: String,
    /// How long the worker waits after a failure of the log before it recovers.
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

/// The longest time between two commits of a worker that is behind. It must be well below the lease for which results are
/// shown without a further commit ([`Status::is_shown`]).
pub const BEHIND_INTERVAL_MAX: Duration = Duration::from_secs(3);

/// Why a worker stopped for good.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The log can't be used as it is.
    #[error("the log can't be used")]
    Log(#[from] LogError),
    /// The state in a changelog can't be rebuilt.
    #[error(
        "state of {at} can't be restored; to rebuild it from the raw topics, use a new --prefix or data directory"
    )]
    Restore {
        /// The changelog partition.
        at: TopicPartition,
        /// Why the state can't be rebuilt.
        #[source]
        source: RestoreError,
    },
    /// The committed position and the position of the state differ.
    #[error(
        "{input}: the committed position is {committed:?} but the state in {changelog} is of {state:?}; nothing was folded. Restore the missing one, or rebuild from the raw topics under a new --prefix or data directory"
    )]
    Mismatch {
        /// The input partition.
        input: TopicPartition,
        /// The changelog partition.
        changelog: TopicPartition,
        /// The committed position of the group; `None` if there is none.
        committed: Option<i64>,
        /// The position in the changelog's meta record; `None` if there is none.
        state: Option<i64>,
    },
    /// The state in a changelog was computed under other semantics.
    #[error(
        "the state in {at} was computed under semantics {found}, and this version computes {SEMANTICS}: go on with the version that wrote it, or derive anew beside it under another derived_prefix"
    )]
    Semantics {
        /// The changelog partition.
        at: TopicPartition,
        /// The semantics of the state.
        found: u32,
    },
    /// A task can't fold a record, since the log is broken.
    #[error(
        "{at}@{offset} can't be folded; rebuild from the raw topics under a new --prefix or data directory"
    )]
    Halt {
        /// The input partition.
        at: TopicPartition,
        /// The offset of the record.
        offset: i64,
        /// Why the record can't be folded.
        #[source]
        source: Halt,
    },
    /// The group gave out a partition that no stage reads.
    #[error("{at} is input of no stage: another program is in the consumer group, or a newer version")]
    NoInput {
        /// The partition that was given out.
        at: TopicPartition,
    },
    /// A record of a changelog can't be read.
    #[error(
        "{at}@{offset} is not what this topic holds: was it written by another program or a newer version?"
    )]
    Foreign {
        /// The changelog partition.
        at: TopicPartition,
        /// The offset of the record.
        offset: i64,
    },
    /// A record of the control topic can't be followed by this version.
    #[error("{at}@{offset}: the settings can't be used")]
    Settings {
        /// The control partition.
        at: TopicPartition,
        /// The offset of the record.
        offset: i64,
        /// Why the record can't be followed.
        #[source]
        source: schemas::settings::SettingsError,
    },
}

/// The runner of one worker: its log handle, its state, and what it shows.
pub struct Runner<L> {
    log: L,
    seed: SeedSource,
    options: Options,
    view: Arc<View>,
    status: Arc<Status>,
    /// Whether the worker has joined the consumer group.
    joined: bool,
    /// The input partitions that this worker owns, restored or to be restored.
    owned: BTreeSet<TopicPartition>,
    /// A change of ownership that the log has announced and that is not fully answered.
    unanswered: Option<Ownership>,
    /// The state; `None` before the first turn and after [`Runner::drop_state`].
    work: Option<Work>,
}

/// The state of a worker: all of it is dropped and restored together.
struct Work {
    rules: Rules,
    labels: LabelTable,
    /// The position of the labels topic up to which `labels` holds it.
    labels_next: Position,
    /// The follower of the control topic.
    control: Follower,
    /// When the control topic was last read, ms by the log's wall clock. The log's clock is used instead of the process's so
    /// that a simulated run is the same every time.
    control_read_ms: i64,
    tasks: Tasks,
    ticks: Ticks,
    /// Polled records that are not folded yet: they wait for a commit, or for an epoch that is not known yet.
    backlog: VecDeque<Record>,
    pace: Pace,
    /// The start from which the points in time of [`Pace`] are counted.
    began: Instant,
    /// When consumed records were last deleted, ms by the log's wall clock.
    trimmed_ms: i64,
    /// When the gauges were last set, ms by the log's wall clock.
    observed_ms: i64,
    /// The id of the derivation, for [`telemetry::log_info`].
    derivation_id: String,
}

impl<L: Log> Runner<L> {
    /// The runner of a worker that has not joined yet. `seed` is written to the control topic if that is empty.
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

    /// Runs the worker until `stop` is set, then commits what is folded.
    ///
    /// After a failure of the log that can pass, state is dropped, earlier writers are fenced, and state is restored.
    ///
    /// # Errors
    /// A fault of the log's content, or one of the log that does not pass by itself.
    pub fn run(&mut self, stop: &AtomicBool) -> Result<(), RunError> {
        while !stop.load(Ordering::Relaxed) {
            match self.turn() {
                Ok(()) => {}
                Err(RunError::Log(error)) if can_pass(&error) => self.start_anew(&error, stop),
                Err(error) => {
                    self.drop_state();
                    return Err(error);
                }
            }
        }
        self.finish()
    }

    /// One turn of the loop: restores if there is no state, polls, folds, and commits when a commit is due.
    ///
    /// # Errors
    /// A fault of the log or of its content. After one of the log, the caller must call [`Runner::drop_state`].
    pub fn turn(&mut self) -> Result<(), RunError> {
        self.status.beat();
        if self.work.is_none() {
            self.begin()?;
        }
        self.answer()?;
        let Some(work) = self.work.as_mut() else {
            return Ok(());
        };
        let count = match work.poll(&mut self.log, &self.options) {
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

    /// Makes new state: settings, labels, and the partitions that this worker owned when its state was dropped.
    fn begin(&mut self) -> Result<(), RunError> {
        // An earlier writer is fenced before anything is read, since a commit of that writer could follow the reads.
        self.log.recover()?;
        // Nothing is folded, so revoked partitions are released without a commit.
        while let Some(change) = self.unanswered.take().or_else(|| self.log.ownership()) {
            match change {
                Ownership::Assigned(new) => self.owned.extend(new),
                Ownership::Revoked(old) | Ownership::Lost(old) => self.give_up(&old)?,
            }
        }
        let mut work = restore::begin(&mut self.log, &self.seed, &self.options)?;
        if self.joined {
            let owned: Vec<TopicPartition> = self.owned.iter().copied().collect();
            self.restore(&mut work, &owned)?;
        } else {
            self.log.join()?;
            self.joined = true;
        }
        self.work = Some(work);
        Ok(())
    }

    /// Restores partitions, lets polls give out their records, and shows what is committed of them.
    fn restore(&mut self, work: &mut Work, new: &[TopicPartition]) -> Result<(), RunError> {
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

    /// Answers the changes of ownership that the log announces.
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
                    self.restore(&mut work, &new)?;
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

    /// Hides partitions, drops their state, and releases them to the log.
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
    /// The log did not confirm the commit. The caller must call [`Runner::drop_state`].
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

    /// Gives a commit to the log, and gives back the positions that are committed. A commit that is known to be aborted is given
    /// again, without the partitions that were lost meanwhile.
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
                    // A revocation waits for this commit, and stays unanswered; a loss is answered at once.
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

    /// Drops all state and hides all partitions; the next turn restores them from the log.
    pub fn drop_state(&mut self) {
        self.work = None;
        self.status.set_ready(false);
        self.owned.iter().for_each(|at| self.hide(*at));
    }

    /// Removes a deltas partition from the view, unless another worker of the process shows it already.
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

    /// Drops all state after a failure of the log that can pass, and waits a little.
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

    /// Commits what is folded, and drops all state.
    fn finish(&mut self) -> Result<(), RunError> {
        let result = self.commit();
        self.drop_state();
        match result {
            // What was not committed is folded again at the next start, so nothing is lost.
            Err(RunError::Log(error)) if can_pass(&error) => {
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
/// How many times a commit that is known to be aborted is sent again.
const ABORTS_MAX: usize = 3;
/// How long an aborted commit waits for changes of ownership before it is sent again.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// Whether `every_ms` have passed since `last_ms`, or the log's wall clock was set back by as much.
const fn is_due(now_ms: i64, last_ms: i64, every_ms: u64) -> bool {
    now_ms.abs_diff(last_ms) >= every_ms
}

/// Whether the group's committed position is at or past the new start of a partition. Then another worker owns the partition
/// and has deleted what it merged, and this worker was not told of that yet.
fn is_past<L: Log>(log: &mut L, at: TopicPartition, start: i64) -> Result<bool, LogError> {
    Ok(log
        .committed(&[at])?
        .first()
        .copied()
        .flatten()
        .is_some_and(|committed| committed.0 >= start))
}

/// Whether a failure of the log can pass by itself, so that the worker recovers.
const fn can_pass(error: &LogError) -> bool {
    matches!(
        error,
        LogError::Aborted { .. }
            | LogError::NotCommitted { .. }
            | LogError::Unavailable { .. }
            | LogError::Full { .. }
    )
}

impl Work {
    /// The current point in time of [`Pace`].
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Drops the task of an input partition, and its records in the backlog.
    fn forget(&mut self, at: TopicPartition) {
        self.tasks.remove(at);
        self.ticks.forget(at);
        self.backlog.retain(|record| record.from != at);
        self.pace.dropped(self.tasks.pending());
    }

    /// Deletes the records that are consumed and committed, at most every [`TRIM_EVERY_MS`].
    fn trim<L: Log>(&mut self, log: &mut L) -> Result<(), LogError> {
        let now = log.wall_ms();
        if !is_due(now, self.trimmed_ms, TRIM_EVERY_MS) {
            return Ok(());
        }
        self.trimmed_ms = now;
        log.trim(&commit::consumed(&self.tasks))
    }
}
