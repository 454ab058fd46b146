//! The answers of `/api/extent` and `/api/read`: extents and records of the log, in protobuf.

use bytes::Bytes;
use processor_log::Batch;
use prost::Message;
use schemas::id::{Position, TopicPartition};
use schemas::record::Record;
use schemas::time::AppendTime;

/// The answer of `/api/extent?topic=…&partition=…`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ExtentReply {
    /// How many partitions the topic has.
    #[prost(int32, tag = "1")]
    pub partitions: i32,
    /// The first offset that is still in the log.
    #[prost(int64, tag = "2")]
    pub start: i64,
    /// The offset that the next record gets.
    #[prost(int64, tag = "3")]
    pub end: i64,
}

/// The answer of `/api/read?topic=…&partition=…&from=…&max=…`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ReadReply {
    /// The records, in the order of their offsets.
    #[prost(message, repeated, tag = "1")]
    pub records: Vec<RemoteRecord>,
    /// The position from which the next read goes on.
    #[prost(int64, tag = "2")]
    pub next: i64,
}

/// A record in an answer.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RemoteRecord {
    /// Offset of the record.
    #[prost(int64, tag = "1")]
    pub offset: i64,
    /// Append time of the record, ms since the Unix epoch.
    #[prost(int64, tag = "2")]
    pub appended_ms: i64,
    /// Key of the record; absent for a record without one.
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub key: Option<Bytes>,
    /// Value of the record; absent for a tombstone.
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub value: Option<Bytes>,
    /// Names of the headers, in order.
    #[prost(string, repeated, tag = "5")]
    pub header_names: Vec<String>,
    /// Values of the headers, in the same order.
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub header_values: Vec<Bytes>,
}

/// The answer with the records of a batch.
#[must_use]
pub fn reply_of(batch: Batch) -> ReadReply {
    let records = batch.records.into_iter().map(|record| {
        let (header_names, header_values) = record.headers.into_iter().unzip();
        RemoteRecord {
            offset: record.offset,
            appended_ms: record.appended.0,
            key: record.key,
            value: record.value,
            header_names,
            header_values,
        }
    });
    ReadReply {
        records: records.collect(),
        next: batch.next.0,
    }
}

impl ReadReply {
    /// The batch in the answer, which was read from partition `at`.
    #[must_use]
    pub fn into_batch(self, at: TopicPartition) -> Batch {
        let records = self.records.into_iter().map(|record| Record {
            from: at,
            offset: record.offset,
            appended: AppendTime(record.appended_ms),
            key: record.key,
            value: record.value,
            headers: record
                .header_names
                .into_iter()
                .zip(record.header_values)
                .collect(),
        });
        Batch {
            records: records.collect(),
            next: Position(self.next),
        }
    }
}
