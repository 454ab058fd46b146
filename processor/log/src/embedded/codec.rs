//! How the embedded log stores records and partitions: keys that sort by topic, partition and offset, and versioned values.

use crate::LogError;
use bytes::Bytes;
use prost::Message;
use schemas::id::TopicPartition;
use schemas::record::{NewRecord, Record};
use schemas::time::AppendTime;
use schemas::topic::Prefix;

/// Version of the values in the keyspace `records`: the first byte of each.
const RECORD_VERSION: u8 = 1;

/// A record as stored, without topic, partition and offset, which are in its key.
#[derive(Clone, PartialEq, Message)]
struct StoredRecord {
    #[prost(int64, tag = "1")]
    appended_ms: i64,
    #[prost(bytes = "bytes", optional, tag = "2")]
    key: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    value: Option<Bytes>,
    #[prost(message, repeated, tag = "4")]
    headers: Vec<StoredHeader>,
}

/// A header of a [`StoredRecord`].
#[derive(Clone, PartialEq, Message)]
struct StoredHeader {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// Where a partition begins and ends, and how large it is; written with every batch that changes it.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct PartitionState {
    /// The first offset that was not deleted by age, by size or by [`crate::Log::trim`].
    #[prost(int64, tag = "1")]
    pub start: i64,
    /// The offset that the next record gets.
    #[prost(int64, tag = "2")]
    pub end: i64,
    /// Append time of the last record, ms: the next record's is not smaller.
    #[prost(int64, tag = "3")]
    pub last_ms: i64,
    /// Bytes of the stored records.
    #[prost(uint64, tag = "4")]
    pub bytes: u64,
}

/// Partition counts, fixed when the directory was made.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct PartitionCounts {
    /// Partitions of the raw topics.
    #[prost(int32, tag = "1")]
    pub raw: i32,
    /// Partitions of the deltas topic.
    #[prost(int32, tag = "2")]
    pub delta: i32,
}

/// Number of a derivation in the keys of what is its own. Number 0 is the one without a prefix, which every directory has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Derivation(pub u16);

/// The keys of a log as one derivation sees it: what all derivations share has the same keys for each, and what is derived
/// has keys of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys {
    pub derivation: Derivation,
}

impl Keys {
    /// Key of a record in the keyspace `records`.
    pub fn record(self, at: TopicPartition, offset: i64) -> [u8; 13] {
        let mut key = [0; 13];
        key[..5].copy_from_slice(&self.partition(at));
        key[5..].copy_from_slice(&offset.to_be_bytes());
        key
    }

    /// Key in the keyspace `latest`, whose value is the offset of the latest record with that key in a compacted topic.
    pub fn latest(self, at: TopicPartition, key: &[u8]) -> Vec<u8> {
        let mut out = self.partition(at).to_vec();
        out.extend_from_slice(key);
        out
    }

    /// Key in the keyspace `meta` of a partition's [`PartitionState`].
    pub fn state(self, at: TopicPartition) -> [u8; 6] {
        meta_key(b'p', self.partition(at))
    }

    /// Key in the keyspace `meta` of the derivation's committed position in a partition, also of a topic that all share.
    pub fn committed(self, at: TopicPartition) -> [u8; 6] {
        meta_key(b'g', partition_key(self.derivation, at))
    }

    /// The bytes that the keys of a partition begin with.
    fn partition(self, at: TopicPartition) -> [u8; 5] {
        match at.topic.def().prefix {
            Prefix::Log => partition_key(Derivation::default(), at),
            Prefix::Derived => partition_key(self.derivation, at),
        }
    }
}

/// The topic's code, the derivation's number, and the partition's.
fn partition_key(derivation: Derivation, at: TopicPartition) -> [u8; 5] {
    let mut key = [at.topic.def().code, 0, 0, 0, 0];
    key[1..].copy_from_slice(&at.partition.to_be_bytes());
    // Partitions are below 2^16, so these two bytes are free.
    key[1..3].copy_from_slice(&derivation.0.to_be_bytes());
    key
}

/// The offset in a key of the keyspace `records`.
pub(super) fn offset_of(key: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(key.get(5..)?.try_into().ok()?))
}

/// Key in the keyspace `meta` of the [`PartitionCounts`].
pub(super) const COUNTS_KEY: &[u8] = b"counts";

/// What keys in the keyspace `meta` begin with whose value is the number of a derivation; its prefix follows.
pub(super) const DERIVATION_KEY: &[u8] = b"derivation/";

/// What keys in the keyspace `meta` begin with that mark a derivation as retired; its prefix follows.
pub(super) const RETIRED_KEY: &[u8] = b"retired/";

fn meta_key(kind: u8, partition: [u8; 5]) -> [u8; 6] {
    let mut key = [kind, 0, 0, 0, 0, 0];
    key[1..].copy_from_slice(&partition);
    key
}

/// The value of a record in the keyspace `records`.
pub(super) fn encode(record: NewRecord, appended: AppendTime) -> Vec<u8> {
    let stored = StoredRecord {
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

/// Reads a value of the keyspace `records` back.
///
/// # Errors
/// [`LogError::Corrupt`]: another version, or no record.
pub(super) fn decode(at: TopicPartition, offset: i64, bytes: &[u8]) -> Result<Record, LogError> {
    let place = || format!("{at}@{offset}");
    let body = match bytes.split_first() {
        Some((&RECORD_VERSION, body)) => body,
        Some((version, _)) => {
            let reason = format!("record version {version}; this build reads {RECORD_VERSION}");
            return Err(LogError::corrupt(place(), reason));
        }
        None => return Err(LogError::corrupt(place(), "an empty record")),
    };
    // One copy out of the store's block; key, value and headers then share it.
    let stored = StoredRecord::decode(Bytes::copy_from_slice(body))
        .map_err(|error| LogError::undecodable(place(), "a record", error))?;
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
    fn derivations_share_raw_records_and_nothing_that_is_derived() {
        let at = |topic| TopicPartition { topic, partition: 3 };
        let (first, second) = (
            Keys::default(),
            Keys {
                derivation: Derivation(1),
            },
        );
        let raw = at(Topic::RawLogs);
        assert_eq!(first.record(raw, 7), second.record(raw, 7));
        assert_ne!(
            first.committed(raw),
            second.committed(raw),
            "each has positions of its own"
        );
        let rows = at(Topic::Sessions);
        assert_ne!(first.record(rows, 7), second.record(rows, 7));
        assert_ne!(first.state(rows), second.state(rows));
        assert_ne!(first.latest(rows, b"k"), second.latest(rows, b"k"));
        assert_eq!(
            first.record(rows, 7)[..5],
            [5, 0, 0, 0, 3],
            "as before there were derivations"
        );
    }

    #[test]
    fn keys_sort_by_offset() {
        let offsets = [0, 1, 255, 256, 65_536, i64::MAX];
        let keys: Vec<_> = offsets
            .iter()
            .map(|offset| Keys::default().record(AT, *offset))
            .collect();
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
