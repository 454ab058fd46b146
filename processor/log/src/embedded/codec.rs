//! How the embedded log writes things down: keys that sort by topic, partition and offset, and versioned values.

use crate::LogError;
use bytes::Bytes;
use prost::Message;
use schemas::id::TopicPartition;
use schemas::record::{NewRecord, Record};
use schemas::time::AppendTime;

/// Version of the values in `records`; the first byte of each.
const RECORD_VERSION: u8 = 1;

/// A record without its place, as stored.
#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(int64, tag = "1")]
    appended_ms: i64,
    #[prost(bytes = "bytes", optional, tag = "2")]
    key: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    value: Option<Bytes>,
    #[prost(message, repeated, tag = "4")]
    headers: Vec<StoredHeader>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredHeader {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// What is known of a partition; written with every batch that changes it.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Part {
    /// The first offset that was not deleted by age, size or trim.
    #[prost(int64, tag = "1")]
    pub start: i64,
    /// The next offset.
    #[prost(int64, tag = "2")]
    pub end: i64,
    /// Append time of the last record, ms: the next one is not before it.
    #[prost(int64, tag = "3")]
    pub last_ms: i64,
    /// Bytes of the stored records.
    #[prost(uint64, tag = "4")]
    pub bytes: u64,
}

/// Partition counts, fixed when the directory was made.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Counts {
    /// Of the raw topics.
    #[prost(int32, tag = "1")]
    pub raw: i32,
    /// Of the deltas topic.
    #[prost(int32, tag = "2")]
    pub delta: i32,
}

fn place(at: TopicPartition) -> [u8; 5] {
    let mut key = [at.topic.def().code, 0, 0, 0, 0];
    key[1..].copy_from_slice(&at.partition.to_be_bytes());
    key
}

/// Key in `records`.
pub(super) fn record_key(at: TopicPartition, offset: i64) -> [u8; 13] {
    let mut key = [0; 13];
    key[..5].copy_from_slice(&place(at));
    key[5..].copy_from_slice(&offset.to_be_bytes());
    key
}

/// The offset in a key of `records`.
pub(super) fn offset_of(key: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(key.get(5..)?.try_into().ok()?))
}

/// Key in `latest`: where the latest record of a compacted topic's key is.
pub(super) fn latest_key(at: TopicPartition, key: &[u8]) -> Vec<u8> {
    let mut out = place(at).to_vec();
    out.extend_from_slice(key);
    out
}

/// Key in `meta` of a partition's [`Part`].
pub(super) fn part_key(at: TopicPartition) -> [u8; 6] {
    meta_key(b'p', at)
}

/// Key in `meta` of the group's position.
pub(super) fn group_key(at: TopicPartition) -> [u8; 6] {
    meta_key(b'g', at)
}

/// Key in `meta` of the [`Counts`].
pub(super) const COUNTS_KEY: &[u8] = b"counts";

fn meta_key(kind: u8, at: TopicPartition) -> [u8; 6] {
    let mut key = [kind, 0, 0, 0, 0, 0];
    key[1..].copy_from_slice(&place(at));
    key
}

/// The value in `records`.
pub(super) fn encode(record: NewRecord, appended: AppendTime) -> Vec<u8> {
    let stored = Stored {
        appended_ms: appended.0,
        key: record.key,
        value: record.value,
        headers: record
            .headers
            .into_iter()
            .map(|(name, value)| StoredHeader { name, value })
            .collect(),
    };
    let mut out = Vec::with_capacity(stored.encoded_len() + 1);
    out.push(RECORD_VERSION);
    stored.encode_raw(&mut out);
    out
}

/// Reads a value of `records` back.
pub(super) fn decode(at: TopicPartition, offset: i64, bytes: &[u8]) -> Result<Record, LogError> {
    let corrupt = |reason: String| LogError::Corrupt {
        at: format!("{at}@{offset}"),
        reason,
    };
    let body = match bytes.split_first() {
        Some((&RECORD_VERSION, body)) => body,
        Some((version, _)) => {
            return Err(corrupt(format!(
                "record version {version}; this build reads {RECORD_VERSION}"
            )));
        }
        None => return Err(corrupt("an empty record".to_owned())),
    };
    // One copy out of the store's block; key, value and headers then share it.
    let stored = Stored::decode(Bytes::copy_from_slice(body)).map_err(|error| corrupt(error.to_string()))?;
    Ok(Record {
        from: at,
        offset,
        appended: AppendTime(stored.appended_ms),
        key: stored.key,
        value: stored.value,
        headers: stored
            .headers
            .into_iter()
            .map(|header| (header.name, header.value))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::topic::Topic;

    const AT: TopicPartition = TopicPartition {
        topic: Topic::RawLogs,
        partition: 3,
    };

    #[test]
    fn keys_sort_by_offset() {
        let offsets = [0, 1, 255, 256, 65_536, i64::MAX];
        let keys: Vec<_> = offsets.iter().map(|offset| record_key(AT, *offset)).collect();
        assert!(keys.is_sorted());
        assert_eq!(
            keys.iter().map(|key| offset_of(key)).collect::<Option<Vec<_>>>(),
            Some(offsets.to_vec())
        );
    }

    #[test]
    fn a_tombstone_is_not_an_empty_value() {
        for value in [None, Some(Bytes::new()), Some(Bytes::from_static(b"v"))] {
            let record = NewRecord {
                to: AT,
                key: None,
                value: value.clone(),
                headers: vec![("h".to_owned(), Bytes::new())],
            };
            let back = decode(AT, 7, &encode(record, AppendTime(5))).unwrap();
            assert_eq!(
                (back.value, back.appended, back.headers.len()),
                (value, AppendTime(5), 1)
            );
        }
    }

    #[test]
    fn unknown_versions_are_named() {
        let error = decode(AT, 7, &[9, 1]).unwrap_err().to_string();
        assert!(
            error.contains("codex.raw.logs.v1/3@7") && error.contains("version 9"),
            "{error}"
        );
    }
}
