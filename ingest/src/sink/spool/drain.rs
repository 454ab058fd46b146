//! Drains what was spooled into Kafka, in order: the work of one thread.

use super::core::{Core, Mode, Queue};
use super::segment;
use super::store::Batch;
use super::telemetry::Doing;
use super::upstream::{Outlet, OutletError, Upstream};
use crate::sink::RawRecord;
use settings::process::chain;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How many bytes are drained at once.
const BATCH_BYTES: usize = 1 << 20;
/// With how many records left the mode becomes *handover*, in which requests wait for the rest.
const HANDOVER_RECORDS: u64 = 2_000;
/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// Why the spool is not drained now.
#[derive(Debug, thiserror::Error)]
enum DrainError {
    /// The volume can't be read.
    #[error("it can't be read")]
    Read(#[source] io::Error),
    /// No broker answers, or a topic is not as it must be.
    #[error("Kafka does not take records")]
    NotReady,
    /// Records could not be written to Kafka.
    #[error(transparent)]
    Outlet(#[from] OutletError),
    /// The volume can't be written.
    #[error("what is drained can't be removed")]
    Remove(#[source] io::Error),
}

impl<U: Upstream> Core<U> {
    /// Sleeps after a failure, or until the end.
    fn pause(&self) {
        let queue = self.lock();
        let _ = self
            .changed
            .wait_timeout_while(queue, PAUSE, |_: &mut Queue| !self.is_ending());
    }

    /// Drains the spool whenever there is something in it, until the end.
    pub fn drain_all(&self) {
        let mut outlet = None;
        let mut last_logged = String::new();
        while self.may_drain() {
            let Err(error) = self.drain(&mut outlet) else {
                last_logged.clear();
                continue;
            };
            outlet = None;
            self.turn(Mode::Handover, Mode::Spooling);
            let why = chain(&error);
            if why != last_logged && !self.is_ending() {
                tracing::warn!(reason = why, "the spool is not drained yet");
            }
            last_logged = why;
            self.pause();
        }
    }

    /// Waits until the spool may be drained: the mode is not *direct*, and the fates of all requests that went directly are
    /// known. False at the end.
    fn may_drain(&self) -> bool {
        let mut queue = self.lock();
        loop {
            if self.is_ending() {
                return false;
            }
            if *self.mode.borrow() != Mode::Direct && queue.direct == 0 {
                return true;
            }
            queue = self.wait(queue);
        }
    }

    /// Drains a batch, or ends the spooling where nothing is left.
    fn drain(&self, outlet: &mut Option<U::Outlet>) -> Result<(), DrainError> {
        let batch = self.store().read(BATCH_BYTES).map_err(|error| {
            self.telemetry.failed(Doing::Read);
            DrainError::Read(error)
        })?;
        if batch.records.is_empty() && batch.lost == 0 {
            // The mode is changed even where the volume fails, which must not keep requests from Kafka.
            let noted = self.note_drained(&batch);
            self.end_or_wait();
            return noted;
        }
        if !self.upstream.ready() && !self.upstream.look_again() {
            return Err(DrainError::NotReady);
        }
        let (records, oldest_ms) = self.undelivered(&batch);
        if let Some(oldest_ms) = oldest_ms {
            self.oldest_ms.store(oldest_ms, Ordering::Relaxed);
        }
        if !records.is_empty() {
            let source = format!("spool/{}", self.store().id());
            let way = match outlet {
                Some(way) => way,
                None => outlet.insert(self.upstream.outlet()?),
            };
            way.write(&source, &records, &self.ending)?;
        }
        self.telemetry.drained.increment(records.len() as u64);
        if batch.lost > 0 {
            tracing::error!(
                records = batch.lost,
                "spooled records are broken on disk and lost"
            );
            self.telemetry.lost.increment(batch.lost);
        }
        let last = batch.records.last().map_or(0, |(number, _)| *number);
        self.lock().delivered.retain(|number| *number > last);
        self.note_drained(&batch)?;
        if self.store().records() <= HANDOVER_RECORDS {
            self.turn(Mode::Spooling, Mode::Handover);
        }
        Ok(())
    }

    fn note_drained(&self, batch: &Batch) -> Result<(), DrainError> {
        self.store().drained(batch).map_err(|error| {
            self.telemetry.failed(Doing::Remove);
            DrainError::Remove(error)
        })
    }

    /// The records of a batch that Kafka does not have yet, and when the first one was written, ms since the Unix epoch.
    fn undelivered(&self, batch: &Batch) -> (Vec<(u64, RawRecord)>, Option<i64>) {
        let mut oldest_ms = None;
        let mut lost = 0;
        let queue = self.lock();
        let records = batch
            .records
            .iter()
            .filter(|(number, _)| !queue.delivered.contains(number))
            .filter_map(|(number, body)| {
                let Some((record, written_ms)) = segment::decode(body) else {
                    lost += 1;
                    return None;
                };
                oldest_ms.get_or_insert(written_ms);
                Some((*number, record))
            });
        let records = records.collect();
        if lost > 0 {
            tracing::error!(
                records = lost,
                "spooled records are of a form that is not known, and lost"
            );
            self.telemetry.lost.increment(lost);
        }
        (records, oldest_ms)
    }

    /// Makes the mode *direct* when nothing is left to read; waits for what is being written meanwhile.
    fn end_or_wait(&self) {
        let mut queue = self.lock();
        if queue.jobs.is_empty() && !queue.is_writing {
            if self.store().records() > 0 {
                return;
            }
            queue.delivered.clear();
            self.oldest_ms.store(0, Ordering::Relaxed);
            self.is_refusing.store(false, Ordering::Relaxed);
            if *self.mode.borrow() != Mode::Direct {
                tracing::info!("the spool is drained: requests go to Kafka directly");
                self.mode.send_replace(Mode::Direct);
            }
        } else if !self.is_ending() {
            let _queue = self.wait(queue);
        }
    }
}
