//! Following a topic: reading one partition from its start to its end, and then going on with what comes.
//!
//! ```text
//!   Follower (position) ── read_next ──► one batch of records, in order
//!                       ── catch_up ───► all records that are there now
//!   follow (blocking)   ── catch_up, pause, catch_up, … until told to end, failures told to the listener
//! ```
//!
//! Everybody reads the control topic this way: the worker as a step of its loop, ingest and `tacho` on a thread of their own
//! ([`follow`]), commands once.
//!
//! **Architecture Invariant:** a record is shown once it is accepted, and never skipped: one that was refused is shown
//! again at the next call.

use crate::{LogError, ReadLog};
use schemas::id::{Position, TopicPartition};
use schemas::record::Record;
use std::time::Duration;

/// How many records one read asks for.
const READ_RECORDS_MAX: usize = 100;

/// How far one partition is read, and the reading of what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follower {
    at: TopicPartition,
    next: Position,
}

impl Follower {
    /// A follower that begins with the partition's first record.
    #[must_use]
    pub const fn new(at: TopicPartition) -> Self {
        Self {
            at,
            next: Position(0),
        }
    }

    /// The position that is read next: all records before it were accepted.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.next
    }

    /// Shows the records of one read to `take`, in order; whether there was anything, aborted records and control marks
    /// included.
    ///
    /// # Errors
    /// `take` refused a record, or the log can't be read. The records before are accepted.
    pub fn read_next<E: From<LogError>>(
        &mut self,
        log: &mut (impl ReadLog + ?Sized),
        mut take: impl FnMut(&Record) -> Result<(), E>,
    ) -> Result<bool, E> {
        let batch = log.read(self.at, self.next, READ_RECORDS_MAX)?;
        for record in &batch.records {
            take(record)?;
            self.next = record.position();
        }
        let has_moved = batch.next > self.next || !batch.records.is_empty();
        self.next = batch.next;
        Ok(has_moved)
    }

    /// Shows all records that are there now to `take`, in order.
    ///
    /// # Errors
    /// As [`Follower::read_next`].
    pub fn catch_up<E: From<LogError>>(
        &mut self,
        log: &mut (impl ReadLog + ?Sized),
        mut take: impl FnMut(&Record) -> Result<(), E>,
    ) -> Result<(), E> {
        while self.read_next(log, &mut take)? {}
        Ok(())
    }

    /// All records that are there now.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn collect(&mut self, log: &mut (impl ReadLog + ?Sized)) -> Result<Vec<Record>, LogError> {
        let mut records = Vec::new();
        self.catch_up(log, |record| {
            records.push(record.clone());
            Ok::<(), LogError>(())
        })?;
        Ok(records)
    }
}

/// A receiver of the records of a topic that [`follow`] follows.
pub trait Listener {
    /// Why a record is refused, or the topic can't be read.
    type Error: From<LogError>;

    /// Takes the next record.
    ///
    /// # Errors
    /// The record is refused: it is shown again after a pause.
    fn record(&mut self, record: &Record) -> Result<(), Self::Error>;

    /// Hears that all records that were there have been shown.
    fn caught_up(&mut self);

    /// Hears why the topic can't be followed now; it is tried again after a pause.
    fn failed(&mut self, error: Self::Error);

    /// How long to wait before the next look.
    fn pause(&self) -> Duration;
}

/// Follows a topic; blocks. `is_over` waits for the pause that it is given, or less, and says whether to end.
pub fn follow<L: Listener>(
    mut follower: Follower,
    log: &mut (impl ReadLog + ?Sized),
    listener: &mut L,
    mut is_over: impl FnMut(Duration) -> bool,
) {
    loop {
        match follower.catch_up(log, |record| listener.record(record)) {
            Ok(()) => listener.caught_up(),
            Err(error) => listener.failed(error),
        }
        if is_over(listener.pause()) {
            return;
        }
    }
}
