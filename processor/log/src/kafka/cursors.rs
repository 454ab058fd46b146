//! Consumers that read partitions from a position, without a group.
//!
//! A consumer is kept for each partition that was read of late, so that reads one after another go on without a seek. A
//! consumer that failed is given up: it may be cut off (see [`crate::contact`]), and a new one begins at the cluster's
//! addresses.

use super::clients::{self, EndIsNoError, EndingConsumer, out_of_range, passing};
use super::names::{Names, size};
use super::offsets;
use crate::cluster::Cluster;
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
const CURSORS_MAX: usize = 4;
/// How long one poll of a read of several partitions waits; between polls the time limit is looked at.
const READ_STEP: Duration = Duration::from_millis(100);
/// How long the brokers wait for a record at the end of a partition before they tell the end, ms.
const END_WAIT_MS: u64 = 20;
/// How many bytes of records one read gives out at most, unless its first record alone is larger.
const READ_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The consumers of one reader of a log.
pub(super) struct Cursors {
    cluster: Cluster,
    group: String,
    names: Names,
    /// How long a read waits for an answer of the brokers.
    answer_max: Duration,
    /// The cursors in order of use, the last used one last.
    cursors: Vec<Cursor>,
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
    /// Waits for the ends of all clients: none may work on while the process ends.
    fn drop(&mut self) {
        self.0.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Drop for Cursors {
    /// Closes all consumers side by side.
    fn drop(&mut self) {
        self.cursors
            .drain(..)
            .for_each(|cursor| self.closing.close(cursor.consumer));
    }
}

/// A consumer with its place in one partition.
struct Cursor {
    consumer: EndingConsumer,
    at: TopicPartition,
    /// The position that the consumer reads next.
    next: Position,
    /// Whether the consumer has told the end of the partition since it was placed at `next`.
    at_end: bool,
    answer_max: Duration,
}

impl Cursors {
    /// A set without consumers; a read waits up to `answer_max` for the brokers.
    pub fn new(cluster: &Cluster, group: &str, names: Names, answer_max: Duration) -> Self {
        Self {
            cluster: cluster.clone(),
            group: group.to_owned(),
            names,
            answer_max,
            cursors: Vec::new(),
            closing: Closing::default(),
        }
    }

    /// See [`crate::ReadLog::read`].
    pub fn read(&mut self, at: TopicPartition, from: Position, max: usize) -> Result<Batch, LogError> {
        if max == 0 {
            return Ok(Batch {
                records: Vec::new(),
                next: from,
            });
        }
        let mut cursor = self.take(at, from)?;
        match cursor.read(&self.names, max) {
            Ok(batch) => {
                self.cursors.push(cursor);
                Ok(batch)
            }
            Err(error) => {
                self.closing.close(cursor.consumer);
                Err(error)
            }
        }
    }

    /// All records of partitions of one topic that are readable now, of each from that position on, all side by side.
    ///
    /// A consumer tells the end of a partition when a fetch from there found the partition's last stable offset at that
    /// place. Hence what was readable before the call has been read when all partitions have ended.
    pub fn read_all(
        &mut self,
        topic: Topic,
        from: &[(i32, Position)],
        take: &mut dyn FnMut(Record),
    ) -> Result<(), LogError> {
        let reading = |error: KafkaError| LogError::failed(format!("reading {}", topic.name()), error);
        let consumer = self.consumer()?;
        let from: Vec<_> = from
            .iter()
            .map(|&(partition, from)| (TopicPartition { topic, partition }, from))
            .collect();
        consumer.assign(&self.names.list(&from)).map_err(reading)?;
        let mut not_ended: BTreeSet<i32> = from.iter().map(|(at, _)| at.partition).collect();
        let mut heard = Instant::now();
        while !not_ended.is_empty() {
            match consumer.poll(READ_STEP) {
                Some(Ok(message)) => {
                    self.names.record(&message).into_iter().for_each(&mut *take);
                    heard = Instant::now();
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    not_ended.remove(&partition);
                    heard = Instant::now();
                }
                Some(Err(error)) if !passing(&error) => return Err(reading(error)),
                Some(Err(_)) | None if heard.elapsed() < self.answer_max => {}
                Some(Err(_)) | None => return Err(no_answer(topic.name(), self.answer_max)),
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
            .map_err(|error| LogError::failed("making a reader", error))
    }

    /// A cursor at that position of that partition, taken out: the partition's own, else one that is moved or made.
    fn take(&mut self, at: TopicPartition, from: Position) -> Result<Cursor, LogError> {
        if let Some(index) = self.cursors.iter().position(|cursor| cursor.at == at) {
            let mut cursor = self.cursors.remove(index);
            if cursor.next != from {
                cursor.place(&self.names, at, from)?;
            }
            return Ok(cursor);
        }
        let mut cursor = if self.cursors.len() >= CURSORS_MAX {
            self.cursors.remove(0)
        } else {
            Cursor {
                consumer: self.consumer()?,
                at,
                next: from,
                at_end: false,
                answer_max: self.answer_max,
            }
        };
        cursor.place(&self.names, at, from)?;
        Ok(cursor)
    }
}

impl Cursor {
    fn place(&mut self, names: &Names, at: TopicPartition, from: Position) -> Result<(), LogError> {
        (self.at, self.next, self.at_end) = (at, from, false);
        self.consumer
            .assign(&names.list(&[(at, from)]))
            .and_then(|()| clients::wait_for_stops(&self.consumer))
            .map_err(|error| LogError::failed("placing a reader", error))
    }

    fn read(&mut self, names: &Names, max: usize) -> Result<Batch, LogError> {
        let deadline = Instant::now() + self.answer_max;
        let mut records = Vec::new();
        if self.at_end && self.pass_marks(names, deadline)? {
            return Ok(self.batch(records));
        }
        let mut bytes = 0;
        while records.len() < max && bytes < READ_BYTES_MAX {
            let wait = if records.is_empty() {
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
                    records.push(record);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.at_end = true;
                    if records.is_empty() && !self.pass_marks(names, deadline)? {
                        continue;
                    }
                    break;
                }
                Some(Err(error)) if out_of_range(&error) => return Err(self.gone(names)?),
                Some(Err(error)) if passing(&error) && Instant::now() < deadline => {
                    tracing::debug!(%error, at = %self.at, "a reader lost its broker; it connects again");
                }
                Some(Err(error)) => return Err(self.reading(error)),
                None if records.is_empty() => {
                    return Err(no_answer(&self.at.to_string(), self.answer_max));
                }
                None => break,
            }
        }
        Ok(self.batch(records))
    }

    const fn batch(&self, records: Vec<Record>) -> Batch {
        Batch {
            records,
            next: self.next,
        }
    }

    fn reading(&self, error: KafkaError) -> LogError {
        LogError::failed(format!("reading {}", self.at), error)
    }

    /// Moves on past aborted records and control marks at the end. False where there may be records after all.
    ///
    /// The client does not tell at which offset it saw the end. So the last stable offset is asked for, and the
    /// cursor placed anew: if it then comes to the end without a record, there is none below that offset.
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
                    self.place(names, at, stable)?;
                    self.at_end = true;
                    return Ok(true);
                }
                Some(Err(error)) if out_of_range(&error) => return Err(self.gone(names)?),
                Some(Err(error)) if passing(&error) && Instant::now() < deadline => {}
                Some(Err(error)) => return Err(self.reading(error)),
                None => return Err(no_answer(&at.to_string(), self.answer_max)),
            }
        }
        // The record just polled belongs to the caller's loop, so the cursor goes back to before it.
        self.place(names, at, from)?;
        Ok(false)
    }

    /// The last stable offset: what a read_committed client is told as the end.
    fn stable(&self, names: &Names) -> Result<Position, LogError> {
        Ok(offsets::extent(&self.consumer, names, self.at, self.answer_max)?.end)
    }

    fn gone(&self, names: &Names) -> Result<LogError, LogError> {
        let start = offsets::extent(&self.consumer, names, self.at, self.answer_max)?.start;
        Ok(LogError::OutOfRange {
            at: self.at,
            wanted: self.next.0,
            start: start.0,
        })
    }
}

fn no_answer(at: &str, waited: Duration) -> LogError {
    LogError::unavailable(format!("reading {at}: no answer within {} s", waited.as_secs()))
}
