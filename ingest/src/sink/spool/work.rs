//! The two threads of a spool: one writes, many requests to an fsync; one drains.

use super::store::{Batch, Store};
use super::{Core, Directory, Job, Mode, Outlet, Queue, Upstream, segment};
use crate::sink::SinkError;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes that share an fsync, at most, or one request.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Bytes that are drained at once.
const BATCH_BYTES: usize = 1 << 20;
/// With no more than that many records left, requests wait for the rest.
const HANDOVER_RECORDS: u64 = 2_000;
/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// Wall time, ms since the Unix epoch.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl<U: Upstream> Core<U> {
    /// The lock of the store: taken by the two threads, never by a request.
    fn store(&self) -> MutexGuard<'_, Store<Directory>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, or until the end.
    fn pause(&self) {
        let queue = self.lock();
        let _ = self
            .changed
            .wait_timeout_while(queue, PAUSE, |_| !self.is_ending());
    }

    pub(super) fn observe(&self) {
        if let Ok(store) = self.store.try_lock() {
            // Sizes are far below 2^53.
            self.telemetry.bytes.set(store.bytes() as f64);
            self.telemetry.records.set(store.records() as f64);
        }
        let oldest_ms = self.oldest_ms.load(Ordering::Relaxed);
        let age_ms = if oldest_ms == 0 {
            0
        } else {
            now_ms().saturating_sub(oldest_ms).max(0)
        };
        self.telemetry.age.set(age_ms as f64 / 1e3);
        self.telemetry
            .active
            .set(f64::from(u8::from(*self.mode.borrow() != Mode::Direct)));
    }

    /// The work of the thread that writes, until the end.
    pub(super) fn write_all(&self) {
        while let Some(jobs) = self.next_jobs() {
            self.write(jobs);
            self.lock().is_writing = false;
            self.changed.notify_all();
        }
    }

    fn next_jobs(&self) -> Option<Vec<Job>> {
        let mut queue = self.lock();
        while queue.jobs.is_empty() {
            if self.is_ending() {
                return None;
            }
            queue = self.wait(queue);
        }
        let (mut jobs, mut bytes) = (Vec::new(), 0);
        while let Some(job) = queue
            .jobs
            .pop_front_if(|job| bytes == 0 || bytes + job.bytes <= GROUP_BYTES_MAX)
        {
            bytes += job.bytes;
            jobs.push(job);
        }
        queue.bytes -= bytes;
        queue.is_writing = true;
        Some(jobs)
    }

    /// Writes what fits, and answers each.
    fn write(&self, jobs: Vec<Job>) {
        let mut store = self.store();
        let (mut room, mut fitting) = (store.room(), Vec::new());
        for job in jobs {
            let needs = (job.bytes + job.bodies.len() * segment::FRAME_BYTES) as u64;
            if needs <= room {
                room -= needs;
                fitting.push(job);
            } else {
                self.telemetry.full.increment(1);
                self.is_refusing.store(true, Ordering::Relaxed);
                let _ = job
                    .done
                    .send(Err(SinkError::Full("the spool has no room left".to_owned())));
            }
        }
        if fitting.is_empty() {
            return;
        }
        let written = store.append(
            fitting
                .iter()
                .flat_map(|job| job.bodies.iter().map(Vec::as_slice)),
        );
        drop(store);
        match written {
            Ok(mut number) => {
                let _ = self
                    .oldest_ms
                    .compare_exchange(0, now_ms(), Ordering::Relaxed, Ordering::Relaxed);
                self.is_refusing.store(false, Ordering::Relaxed);
                for job in fitting {
                    let records = job.bodies.len() as u64;
                    self.telemetry.appended.increment(records);
                    // Whoever waited may be gone.
                    let _ = job.done.send(Ok(number));
                    number += records;
                }
            }
            Err(error) => {
                tracing::error!(%error, "the spool can't be written: requests are refused");
                self.telemetry.failed("write");
                self.is_refusing.store(true, Ordering::Relaxed);
                for job in fitting {
                    let _ = job.done.send(Err(SinkError::Unavailable(format!(
                        "the spool can't be written: {error}"
                    ))));
                }
            }
        }
    }

    /// The work of the thread that drains, until the end.
    pub(super) fn drain_all(&self) {
        let mut outlet = None;
        let mut told = String::new();
        while self.may_drain() {
            let outcome = self.drain(&mut outlet);
            match outcome {
                Ok(()) => told.clear(),
                Err(why) => {
                    outlet = None;
                    self.turn(Mode::Handover, Mode::Spooling);
                    if why != told && !self.is_ending() {
                        tracing::warn!(reason = why, "the spool is not drained yet");
                    }
                    told = why;
                    self.pause();
                }
            }
        }
    }

    /// Waits until there is something to do: all that went directly is known of, and the mode is another one. False at the end.
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
    fn drain(&self, outlet: &mut Option<U::Outlet>) -> Result<(), String> {
        let batch = self.store().read(BATCH_BYTES).map_err(|error| {
            self.telemetry.failed("read");
            format!("it can't be read: {error}")
        })?;
        if batch.records.is_empty() && batch.lost == 0 {
            // A volume that fails must not keep requests from Kafka, which is well.
            let noted = self.note_drained(&batch);
            self.end_or_wait();
            return noted;
        }
        if !self.upstream.ready() && !self.upstream.look_again() {
            return Err("Kafka does not take records".to_owned());
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

    fn note_drained(&self, batch: &Batch) -> Result<(), String> {
        self.store().drained(batch).map_err(|error| {
            self.telemetry.failed("remove");
            format!("what is drained can't be removed: {error}")
        })
    }

    /// The records that Kafka does not have yet, and when the first one was written.
    fn undelivered(&self, batch: &Batch) -> (Vec<(u64, crate::sink::RawRecord)>, Option<i64>) {
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

    /// Nothing is left to read: back to direct, unless something came meanwhile.
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
