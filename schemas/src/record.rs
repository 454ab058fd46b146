//! Records of the log: as read, as to be appended, and the headers that they carry.

use crate::id::{Position, TopicPartition};
use crate::time::AppendTime;
use bytes::Bytes;

/// Header of every raw record and tick: the writer's wall time when it tried to append, decimal milliseconds.
pub const HEADER_WALL: &str = "tacho-wall";
/// Header of a raw record: the epoch of the privacy policy under which it was cleaned, decimal. Absent where
/// a setting of ingest keeps every text, whatever the policy.
pub const HEADER_POLICY: &str = "tacho-policy";
/// Header that marks a raw record as a tick; its value is empty.
pub const HEADER_TICK: &str = "tacho-tick";
/// Header of a tick that starts an epoch on its partition: the epoch, decimal.
pub const HEADER_EPOCH: &str = "epoch";
/// Header of a quarantined record: why it was quarantined, in one word.
pub const HEADER_REASON: &str = "tacho-reason";
/// Header of a quarantined record: `topic/partition@offset` of the raw or inbox record. A raw record that was
/// drained from an inbox carries an [`Origin`](crate::origin::Origin) under the same name.
pub const HEADER_ORIGIN: &str = "tacho-origin";
/// Header of a quarantined record whose value was cut because it did not fit: how many bytes it had, decimal.
pub const HEADER_CUT_FROM: &str = "tacho-cut-from";
/// Header of a quarantined record: its tenant, if that is known.
pub const HEADER_TENANT: &str = "tacho-tenant";
/// Header of a quarantined record: the key that it had in the raw topic.
pub const HEADER_KEY: &str = "tacho-key";
/// Header of an inbox record that is a quarantined record sent again, and of the raw records that it becomes:
/// `OFFSET ORIGIN`, the quarantined record's offset in the quarantine topic and its [`HEADER_ORIGIN`]. At
/// most [`RETRY_OF_BYTES_MAX`] bytes.
pub const HEADER_RETRY_OF: &str = "tacho-retry-of";
/// Header of a note in the quarantine topic, a record without a value: the offset of the quarantined record
/// that was sent again, decimal.
pub const HEADER_RETRIED: &str = "tacho-retried";
/// Header of a note with [`HEADER_RETRIED`]: `topic/partition@offset` of the inbox record that was sent.
pub const HEADER_RETRIED_TO: &str = "tacho-retried-to";

/// The most bytes of [`HEADER_RETRY_OF`]; ingest passes no longer one on to raw records.
pub const RETRY_OF_BYTES_MAX: usize = 128;

/// Header of a derived row: the worker's wall time when it was made, decimal milliseconds.
pub const HEADER_PROCESSED: &str = "tacho-processed";

/// Header of a derived row: the semantics that computed it ([`crate::settings::SEMANTICS`]), decimal. A row
/// without it is of semantics 1.
pub const HEADER_SEMANTICS: &str = "tacho-semantics";

/// Header of the first record that a transaction writes to a partition: the writer's `transactional.id`.
pub const HEADER_WRITER: &str = "tacho-writer";

/// A name and a value beside a record's key and value.
pub type Header = (String, Bytes);

/// A record as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The partition that holds the record.
    pub from: TopicPartition,
    /// The record's offset in its partition (the *position* after it is [`Record::position`]).
    pub offset: i64,
    /// When the log took the record in.
    pub appended: AppendTime,
    /// The key; `None` for a record without one.
    pub key: Option<Bytes>,
    /// The value; `None` for a tombstone.
    pub value: Option<Bytes>,
    /// The headers, in the order in which they were written.
    pub headers: Vec<Header>,
}

impl Record {
    /// The position after the record: the next offset to read.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position::after(self.offset)
    }

    /// The value of the last header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_ref())
    }

    /// The number in a header that holds a decimal one; `None` if the header is absent or holds no number.
    #[must_use]
    pub fn header_number(&self, name: &str) -> Option<i64> {
        std::str::from_utf8(self.header(name)?).ok()?.parse().ok()
    }
}

/// A record of the log, borrowed from the memory of the client that read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered<'a> {
    /// The partition that holds the record.
    pub from: TopicPartition,
    /// The record's offset in its partition.
    pub offset: i64,
    /// When the log took the record in.
    pub appended: AppendTime,
    /// The key; `None` for a record without one.
    pub key: Option<&'a [u8]>,
    /// The value; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, in the order in which they were written.
    pub headers: &'a [(&'a str, &'a [u8])],
}

impl Offered<'_> {
    /// Copies the record out of the client's memory.
    #[must_use]
    pub fn to_record(self) -> Record {
        Record {
            from: self.from,
            offset: self.offset,
            appended: self.appended,
            key: self.key.map(Bytes::copy_from_slice),
            value: self.value.map(Bytes::copy_from_slice),
            headers: self
                .headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Bytes::copy_from_slice(value)))
                .collect(),
        }
    }
}

impl Record {
    /// Calls `take` with the record in its borrowed form.
    pub fn offer<T>(&self, take: impl FnOnce(Offered<'_>) -> T) -> T {
        let headers: Vec<(&str, &[u8])> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_ref()))
            .collect();
        let Self {
            from,
            offset,
            appended,
            ..
        } = *self;
        take(Offered {
            from,
            offset,
            appended,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &headers,
        })
    }
}

/// A record to be appended; the log gives it its offset and, where the topic asks for it, its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// The partition to append to.
    pub to: TopicPartition,
    /// The key; `None` for a record without one.
    pub key: Option<Bytes>,
    /// The value; `None` deletes the key in a compacted topic.
    pub value: Option<Bytes>,
    /// The headers, in the order in which they are written.
    pub headers: Vec<Header>,
}
