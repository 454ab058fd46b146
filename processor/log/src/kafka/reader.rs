//! Reads of one partition from a position, without a group: for restore, for tailing, for people.
//!
//! A consumer is kept per partition that is read, so that reads one after another go on without a seek.

use super::clients::{self, EndingConsumer, failed, out_of_range, passing};
use super::names::{Names, size};
use super::offsets;
use crate::cluster::Cluster;
use crate::kafka::clients::EndIsNoError;
use crate::{Batch, LogError};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use schemas::id::{Position, TopicPartition};
use schemas::record::Record;
use schemas::topic::Topic;
use std::collections::BTreeSet;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How many partitions have a consumer of their own; the one not read for longest gives its up.
const READERS_MAX: usize = 4;
/// How long a read waits for the brokers.
const READ_MAX: Duration = Duration::from_secs(10);
/// How long it waits at a time.
const READ_STEP: Duration = Duration::from_millis(100);
/// How long a reader waits at the end of a partition before it says so.
const END_WAIT_MS: u64 = 20;
/// How many bytes of records one read gives out at most, unless its first record alone is larger.
const READ_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The readers of a log, the last used one last.
pub(super) struct Readers {
    cluster: Cluster,
    group: String,
    names: Names,
    readers: Vec<Reader>,
    closing: Closing,
}

/// Consumers that are being closed, each on a thread of its own: the client takes a tenth of a second to close one, with
/// nothing to do, and a restore should not wait for it.
#[derive(Default)]
struct Closing(Vec<JoinHandle<()>>);

impl Closing {
    fn close(&mut self, consumer: EndingConsumer) {
        self.0.retain(|thread| !thread.is_finished());
        self.0.extend(clients::drop_aside(consumer));
    }
}

impl Drop for Closing {
    /// No client may work on while the process ends.
    fn drop(&mut self) {
        self.0.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Drop for Readers {
    /// All side by side.
    fn drop(&mut self) {
        self.readers
            .drain(..)
            .for_each(|reader| self.closing.close(reader.consumer));
    }
}

struct Reader {
    consumer: EndingConsumer,
    at: TopicPartition,
    /// Where the consumer is.
    next: Position,
    /// Whether it has seen the end since it was placed at `next`.
    at_end: bool,
}

impl Readers {
    pub fn new(cluster: &Cluster, group: &str, names: Names) -> Self {
        Self {
            cluster: cluster.clone(),
            group: group.to_owned(),
            names,
            readers: Vec::new(),
            closing: Closing::default(),
        }
    }

    /// See [`crate::Log::read`].
    pub fn read(&mut self, at: TopicPartition, from: Position, max: usize) -> Result<Batch, LogError> {
        if max == 0 {
            return Ok(Batch {
                records: Vec::new(),
                next: from,
            });
        }
        let mut reader = self.take(at, from)?;
        let outcome = reader.read(&self.names, max);
        if outcome.is_ok() {
            self.readers.push(reader);
        }
        outcome
    }

    /// All records of partitions of one topic that are readable now, of each from that position on, all side by side.
    ///
    /// A consumer tells the end of a partition when a fetch from there found its last stable offset at that place.
    /// So what was readable before the call was read by then.
    pub fn read_all(
        &mut self,
        topic: Topic,
        from: &[(i32, Position)],
        take: &mut dyn FnMut(Record),
    ) -> Result<(), LogError> {
        let reading = |error: &KafkaError| failed(&format!("reading {}", topic.name()), error);
        let consumer = self.consumer()?;
        let places: Vec<_> = from
            .iter()
            .map(|&(partition, from)| (TopicPartition { topic, partition }, from))
            .collect();
        consumer
            .assign(&self.names.list(&places))
            .map_err(|error| reading(&error))?;
        let mut left: BTreeSet<i32> = from.iter().map(|(partition, _)| *partition).collect();
        let mut heard = Instant::now();
        while !left.is_empty() {
            match consumer.poll(READ_STEP) {
                Some(Ok(message)) => {
                    self.names.record(&message).into_iter().for_each(&mut *take);
                    heard = Instant::now();
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    left.remove(&partition);
                    heard = Instant::now();
                }
                Some(Err(error)) if !passing(&error) => return Err(reading(&error)),
                _ if heard.elapsed() < READ_MAX => {}
                _ => {
                    let reason = format!(
                        "reading {}: no answer within {} s",
                        topic.name(),
                        READ_MAX.as_secs()
                    );
                    return Err(LogError::Unavailable { reason });
                }
            }
        }
        self.closing.close(consumer);
        Ok(())
    }

    fn consumer(&self) -> Result<EndingConsumer, LogError> {
        let mut config = clients::consumer(&self.cluster, &self.group);
        config
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", END_WAIT_MS.to_string());
        config
            .create_with_context(EndIsNoError)
            .map_err(|error| failed("making a reader", &error))
    }

    /// A reader at that place: the one that is there, else one that is moved or made.
    fn take(&mut self, at: TopicPartition, from: Position) -> Result<Reader, LogError> {
        if let Some(index) = self.readers.iter().position(|reader| reader.at == at) {
            let mut reader = self.readers.remove(index);
            if reader.next != from {
                reader.place(&self.names, at, from)?;
            }
            return Ok(reader);
        }
        let mut reader = if self.readers.len() >= READERS_MAX {
            self.readers.remove(0)
        } else {
            Reader {
                consumer: self.consumer()?,
                at,
                next: from,
                at_end: false,
            }
        };
        reader.place(&self.names, at, from)?;
        Ok(reader)
    }
}

impl Reader {
    fn place(&mut self, names: &Names, at: TopicPartition, from: Position) -> Result<(), LogError> {
        (self.at, self.next, self.at_end) = (at, from, false);
        self.consumer
            .assign(&names.list(&[(at, from)]))
            .map_err(|error| failed("placing a reader", &error))
    }

    fn read(&mut self, names: &Names, max: usize) -> Result<Batch, LogError> {
        let deadline = Instant::now() + READ_MAX;
        if self.at_end && self.pass_marks(names, deadline)? {
            return Ok(Batch {
                records: Vec::new(),
                next: self.next,
            });
        }
        let mut batch = Batch {
            records: Vec::new(),
            next: self.next,
        };
        let mut bytes = 0;
        while batch.records.len() < max && bytes < READ_BYTES_MAX {
            let wait = if batch.records.is_empty() {
                deadline.saturating_duration_since(Instant::now())
            } else {
                Duration::ZERO
            };
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    let Some(record) = names.record(&message) else {
                        continue;
                    };
                    self.next = record.position();
                    bytes += size(record.key.as_deref(), record.value.as_deref());
                    batch.records.push(record);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.at_end = true;
                    if batch.records.is_empty() && !self.pass_marks(names, deadline)? {
                        continue;
                    }
                    break;
                }
                Some(Err(error)) if out_of_range(&error) => return Err(self.gone(names)?),
                Some(Err(error)) if passing(&error) && Instant::now() < deadline => {
                    tracing::debug!(%error, at = %self.at, "a reader lost its broker; it connects again");
                }
                Some(Err(error)) => return Err(failed(&format!("reading {}", self.at), &error)),
                None if batch.records.is_empty() => {
                    let reason = format!("reading {}: no answer within {} s", self.at, READ_MAX.as_secs());
                    return Err(LogError::Unavailable { reason });
                }
                None => break,
            }
        }
        batch.next = self.next;
        Ok(batch)
    }

    /// At the end: moves on past aborted records and control marks. False where there may be records after all.
    ///
    /// The client does not tell at which offset it saw the end. So the last stable offset is asked for, and the
    /// reader placed anew: if it then comes to the end without a record, there is none below that offset.
    fn pass_marks(&mut self, names: &Names, deadline: Instant) -> Result<bool, LogError> {
        let stable = self.stable(names)?;
        if stable <= self.next {
            return Ok(true);
        }
        let (at, from) = (self.at, self.next);
        self.place(names, at, from)?;
        loop {
            match self
                .consumer
                .poll(deadline.saturating_duration_since(Instant::now()))
            {
                Some(Ok(_)) => break,
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.next = stable;
                    self.place(names, at, stable)?;
                    self.at_end = true;
                    return Ok(true);
                }
                Some(Err(error)) if out_of_range(&error) => return Err(self.gone(names)?),
                Some(Err(error)) if passing(&error) && Instant::now() < deadline => {}
                Some(Err(error)) => return Err(failed(&format!("reading {at}"), &error)),
                None => {
                    return Err(LogError::Unavailable {
                        reason: format!("reading {at}: no answer in time"),
                    });
                }
            }
        }
        // A record it is: back to where it comes from, for the caller's loop.
        self.place(names, at, from)?;
        Ok(false)
    }

    /// The last stable offset: what a read_committed client is told as the end.
    fn stable(&self, names: &Names) -> Result<Position, LogError> {
        Ok(offsets::extent(&self.consumer, names, self.at)?.end)
    }

    fn gone(&self, names: &Names) -> Result<LogError, LogError> {
        let start = offsets::extent(&self.consumer, names, self.at)?.start;
        Ok(LogError::OutOfRange {
            at: self.at,
            wanted: self.next.0,
            start: start.0,
        })
    }
}
