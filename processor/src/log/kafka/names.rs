//! Topics by role to topics by name and back, and records out of messages.

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::{Offset, TopicPartitionList};
use schemas::id::{Position, TopicPartition};
use schemas::record::{HEADER_WRITER, NewRecord, Record};
use schemas::time::AppendTime;
use schemas::topic::Topic;

/// The prefix of all topics.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    pub fn name(&self, topic: Topic) -> String {
        format!("{}{}", self.prefix, topic.name())
    }

    pub fn topic(&self, name: &str) -> Option<Topic> {
        Topic::by_name(name.strip_prefix(&self.prefix)?)
    }

    pub fn list(&self, positions: &[(TopicPartition, Position)]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (at, position) in positions {
            let mut element = list.add_partition(&self.name(at.topic), at.partition);
            element.set_offset(Offset::Offset(position.0)).expect("a plain offset can be set");
        }
        list
    }

    pub fn unset(&self, at: &[TopicPartition]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(at.len());
        for at in at {
            list.add_partition(&self.name(at.topic), at.partition);
        }
        list
    }

    /// The record in a message; `None` if it is of no topic of ours.
    pub fn record(&self, message: &BorrowedMessage<'_>) -> Option<Record> {
        let mut headers = Vec::new();
        if let Some(found) = message.headers() {
            headers.reserve_exact(found.count());
            for header in found.iter() {
                headers.push((header.key.to_owned(), Bytes::copy_from_slice(header.value.unwrap_or_default())));
            }
        }
        Some(Record {
            from: TopicPartition { topic: self.topic(message.topic())?, partition: message.partition() },
            offset: message.offset(),
            appended: AppendTime(message.timestamp().to_millis().unwrap_or(0)),
            key: message.key().map(Bytes::copy_from_slice),
            value: message.payload().map(Bytes::copy_from_slice),
            headers,
        })
    }
}

/// The headers of a record to be sent; `writer` is named in one of its own.
pub(super) fn headers(record: &NewRecord, writer: Option<&str>) -> Option<OwnedHeaders> {
    if record.headers.is_empty() && writer.is_none() {
        return None;
    }
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len() + 1);
    if let Some(writer) = writer {
        headers = headers.insert(Header { key: HEADER_WRITER, value: Some(writer) });
    }
    for (name, value) in &record.headers {
        headers = headers.insert(Header { key: name, value: Some(value.as_ref()) });
    }
    Some(headers)
}

/// Bytes that a record takes in memory, roughly.
pub(super) fn size(record: &Record) -> usize {
    record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len)
}
