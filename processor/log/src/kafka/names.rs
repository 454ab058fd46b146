//! Topics by role to topics by name and back, and records out of messages.

use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::{Offset, TopicPartitionList};
use schemas::id::{Position, TopicPartition};
use schemas::record::{HEADER_WRITER, NewRecord, Offered, Record};
use schemas::time::AppendTime;
use schemas::topic::Topic;

/// A record with more headers than this costs an allocation: ours have two or three.
const HEADERS_USUAL: usize = 4;

/// The prefix of all topics.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
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
            element
                .set_offset(Offset::Offset(position.0))
                .expect("a plain offset can be set");
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
        self.offer(message, |record| record.to_record())
    }

    /// Shows the record in a message; `None` if it is of no topic of ours.
    pub fn offer<T>(&self, message: &BorrowedMessage<'_>, take: impl FnOnce(Offered<'_>) -> T) -> Option<T> {
        let from = TopicPartition {
            topic: self.topic(message.topic())?,
            partition: message.partition(),
        };
        let (offset, appended) = (
            message.offset(),
            AppendTime(message.timestamp().to_millis().unwrap_or(0)),
        );
        let (key, value, headers) = (message.key(), message.payload(), message.headers());
        let mut few = [("", &[][..]); HEADERS_USUAL];
        let Some(found) = headers.filter(|found| found.count() > HEADERS_USUAL) else {
            let mut count = 0;
            for header in headers.iter().flat_map(|found| found.iter()) {
                few[count] = (header.key, header.value.unwrap_or_default());
                count += 1;
            }
            return Some(take(Offered {
                from,
                offset,
                appended,
                key,
                value,
                headers: &few[..count],
            }));
        };
        let many: Vec<(&str, &[u8])> = found
            .iter()
            .map(|header| (header.key, header.value.unwrap_or_default()))
            .collect();
        Some(take(Offered {
            from,
            offset,
            appended,
            key,
            value,
            headers: &many,
        }))
    }
}

/// The headers of a record to be sent; `writer` is named in one of its own.
pub(super) fn headers(record: &NewRecord, writer: Option<&str>) -> Option<OwnedHeaders> {
    if record.headers.is_empty() && writer.is_none() {
        return None;
    }
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len() + 1);
    if let Some(writer) = writer {
        headers = headers.insert(Header {
            key: HEADER_WRITER,
            value: Some(writer),
        });
    }
    for (name, value) in &record.headers {
        headers = headers.insert(Header {
            key: name,
            value: Some(value.as_ref()),
        });
    }
    Some(headers)
}

/// Bytes that a record takes in memory, roughly.
pub(super) fn size(key: Option<&[u8]>, value: Option<&[u8]>) -> usize {
    key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len)
}
