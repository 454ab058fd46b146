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
mod error;
mod intake;
mod observe;
mod options;
mod pace;
mod restore;
mod tasks;
mod ticks;

pub use control::{SeedSource, rules_of};
pub use error::RunError;
pub use options::{BEHIND_INTERVAL_MAX, Options};
pub use pace::{COMMIT_BYTES_MAX, COMMIT_ENTRIES_MAX};

use crate::status::Status;
use crate::telemetry;
use crate::view::View;
use commit::Prepared;
use pace::Pace;
use processor_core::Rules;
use processor_core::labels::LabelTable;
use processor_log::follow::Follower;
use processor_log::{Log, LogError, Ownership};
use schemas::id::{Position, TopicPartition};
use schemas::record::Record;
use schemas::stage::Stage;
use settings::process::chain;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tasks::Tasks;
use ticks::Ticks;

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
    /// When the control topic was last read, ms by the log's wall clock. The log's clock is used instead of
    /// the process's so that a simulated run is the same every time.
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
    /// The runner of a worker that has not joined yet. `seed` is written to the control topic if that is
    /// empty.
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
    /// After a failure of the log that can pass, state is dropped, earlier writers are fenced, and state is
    /// restored.
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
    /// A fault of the log or of its content. After one of the log, the caller must call
    /// [`Runner::drop_state`].
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
            // A restore goes on behind what is gone.
            Err(RunError::Log(LogError::OutOfRange { at, start, .. })) if intake::is_ticked(at) => {
                let reason =
                    format!("the records of {at} below {start} were deleted before they were folded");
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

    /// Makes new state: settings, labels, and the partitions that this worker owned when its state was
    /// dropped.
    fn begin(&mut self) -> Result<(), RunError> {
        // An earlier writer is fenced before anything is read, since a commit of that writer could follow the
        // reads.
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

    /// Gives a commit to the log, and gives back the positions that are committed. A commit that is known to
    /// be aborted is given again, without the partitions that were lost meanwhile.
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

/// Whether the group's committed position is at or past the new start of a partition. Then another worker
/// owns the partition and has deleted what it merged, and this worker was not told of that yet.
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
