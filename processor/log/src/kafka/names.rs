//! Names of topics on the cluster, from and to their roles; records out of messages, and headers of messages to send.

use crate::cluster::Cluster;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::{Offset, TopicPartitionList};
use schemas::id::{Position, TopicPartition};
use schemas::record::{HEADER_WRITER, NewRecord, Offered, Record};
use schemas::time::AppendTime;
use schemas::topic::{Prefix, Topic};

/// How many headers of a record are read without an allocation: ours have two or three.
const HEADERS_USUAL: usize = 4;

/// The names of all topics of one derivation of a log.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
    derived_prefix: String,
}

impl Names {
    pub fn new(cluster: &Cluster) -> Self {
        Self {
            prefix: cluster.prefix.clone(),
            derived_prefix: cluster.derived_prefix.clone(),
        }
    }

    /// A topic's name on the cluster.
    pub fn name(&self, topic: Topic) -> String {
        let def = topic.def();
        format!("{}{}", self.prefix_of(def.prefix), def.name)
    }

    /// The topic of that name; `None` for one of another log or derivation, and for a stranger's.
    pub fn topic(&self, name: &str) -> Option<Topic> {
        [Prefix::Log, Prefix::Derived].into_iter().find_map(|prefix| {
            let topic = Topic::by_name(name.strip_prefix(self.prefix_of(prefix))?)?;
            (topic.def().prefix == prefix).then_some(topic)
        })
    }

    fn prefix_of(&self, prefix: Prefix) -> &str {
        match prefix {
            Prefix::Log => &self.prefix,
            Prefix::Derived => &self.derived_prefix,
        }
    }

    /// Partitions with positions, as librdkafka takes them.
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

    /// Partitions without positions, as librdkafka takes them.
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

/// The headers of a record to be sent; `writer`, if there is one, is named in a header of its own.
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

/// Bytes of a record's key and value: roughly what it takes in memory.
pub(super) fn size(key: Option<&[u8]>, value: Option<&[u8]>) -> usize {
    key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len)
}
