//! What `/api/extent` and `/api/read` answer: records as they are in the log, in protobuf.

use bytes::Bytes;
use processor_log::Batch;
use prost::Message;
use schemas::id::{Position, TopicPartition};
use schemas::record::Record;
use schemas::time::AppendTime;

/// Answer of `/api/extent?topic=…&partition=…`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ExtentReply {
    /// How many partitions the topic has.
    #[prost(int32, tag = "1")]
    pub partitions: i32,
    /// The first offset still there.
    #[prost(int64, tag = "2")]
    pub start: i64,
    /// The offset that the next record gets.
    #[prost(int64, tag = "3")]
    pub end: i64,
}

/// Answer of `/api/read?topic=…&partition=…&from=…&max=…`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ReadReply {
    /// In order of offsets.
    #[prost(message, repeated, tag = "1")]
    pub records: Vec<RemoteRecord>,
    /// Where the next read begins.
    #[prost(int64, tag = "2")]
    pub next: i64,
}

/// One record.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RemoteRecord {
    /// Its offset.
    #[prost(int64, tag = "1")]
    pub offset: i64,
    /// When the log took it in, ms.
    #[prost(int64, tag = "2")]
    pub appended_ms: i64,
    /// Its key, if it has one.
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub key: Option<Bytes>,
    /// Its value; absent for a tombstone.
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub value: Option<Bytes>,
    /// Names of its headers, in order.
    #[prost(string, repeated, tag = "5")]
    pub header_names: Vec<String>,
    /// Values of its headers, in the same order.
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub header_values: Vec<Bytes>,
}

/// The answer that carries a batch.
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
    /// The batch that this answer carries, read from `at`.
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
