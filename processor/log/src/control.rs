//! The control topic, `tacho.control`: its only partition, and how a record is written to it.

use crate::{Log, LogError};
use bytes::Bytes;
use schemas::id::TopicPartition;
use schemas::record::NewRecord;
use schemas::topic::Topic;

/// The only partition of the control topic.
pub const CONTROL: TopicPartition = TopicPartition {
    topic: Topic::Control,
    partition: 0,
};

/// The key of the record with the seed.
pub const SEED_KEY: &str = "seed";

/// Appends a control record, durably; gives its offset, which is the number of the epoch that it starts.
///
/// # Errors
/// The log can't be reached, or refuses the record.
pub fn append(log: &mut (impl Log + ?Sized), key: &'static str, value: Vec<u8>) -> Result<i64, LogError> {
    let record = NewRecord {
        to: CONTROL,
        key: Some(Bytes::from_static(key.as_bytes())),
        value: Some(value.into()),
        headers: Vec::new(),
    };
    let appended = log.append(vec![record])?;
    appended
        .first()
        .map(|appended| appended.offset)
        .ok_or_else(|| LogError::unavailable(format!("appending to {CONTROL}: no offset was given")))
}
