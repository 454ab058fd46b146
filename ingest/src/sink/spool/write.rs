//! Writes what requests spool, many requests to an fsync: the work of one thread.

use super::core::{Core, Job, now_ms};
use super::segment;
use super::telemetry::Doing;
use super::upstream::Upstream;
use crate::sink::SinkError;
use std::sync::atomic::Ordering;

/// How many bytes share an fsync, unless one request has more.
const GROUP_BYTES_MAX: usize = 8 << 20;

impl<U: Upstream> Core<U> {
    /// Writes what requests ask for, until the end.
    pub fn write_all(&self) {
        while let Some(jobs) = self.next_jobs() {
            self.write(jobs);
            self.lock().is_writing = false;
            self.changed.notify_all();
        }
    }

    /// Waits for requests; none at the end, when nothing waits to be written.
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

    /// Writes the requests for which there is room, and answers each.
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
                    // The request may not be waited for any more.
                    let _ = job.done.send(Ok(number));
                    number += records;
                }
            }
            Err(error) => {
                tracing::error!(%error, "the spool can't be written: requests are refused");
                self.telemetry.failed(Doing::Write);
                self.is_refusing.store(true, Ordering::Relaxed);
                for job in fitting {
                    let _ = job.done.send(Err(SinkError::Unavailable(format!(
                        "the spool can't be written: {error}"
                    ))));
                }
            }
        }
    }
}
