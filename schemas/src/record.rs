//! A record of the log, as read and as to be appended.

use crate::id::{Position, TopicPartition};
use crate::time::AppendTime;
use bytes::Bytes;

/// Header of every raw record and tick: the writer's wall time at the append attempt, decimal milliseconds.
pub const HEADER_WALL: &str = "tacho-wall";
/// Header of a raw record: the epoch that set the privacy policy under which it was cleaned, decimal. Absent where the
/// process was told to keep every text.
pub const HEADER_POLICY: &str = "tacho-policy";
/// Header that marks a raw record as a tick; its value is empty.
pub const HEADER_TICK: &str = "tacho-tick";
/// Header of a tick that starts an epoch on its partition: decimal.
pub const HEADER_EPOCH: &str = "epoch";
/// Header of a quarantined record: why, in one word.
pub const HEADER_REASON: &str = "tacho-reason";
/// Header of a quarantined record: `topic/partition@offset` of the raw or inbox record. Header of a raw record that was
/// drained from an inbox: see [`crate::origin::Origin`].
pub const HEADER_ORIGIN: &str = "tacho-origin";
/// Header of a quarantined record that was cut because it did not fit: how many bytes it had, decimal.
pub const HEADER_CUT_FROM: &str = "tacho-cut-from";
/// Header of a quarantined record: whose it is, as far as that is known.
pub const HEADER_TENANT: &str = "tacho-tenant";
/// Header of a quarantined record: the key that it had in the raw topic.
pub const HEADER_KEY: &str = "tacho-key";
/// Header of an inbox record that was quarantined before, and of what becomes of it: `OFFSET ORIGIN`, its own offset in the
/// quarantine and its origin there. At most [`RETRY_OF_BYTES_MAX`] bytes.
pub const HEADER_RETRY_OF: &str = "tacho-retry-of";
/// Header that marks a record in the quarantine as a note, with no bytes of its own: the offset of the record there that
/// was sent again, decimal.
pub const HEADER_RETRIED: &str = "tacho-retried";
/// Header of such a note: `topic/partition@offset` of the inbox record that was sent.
pub const HEADER_RETRIED_TO: &str = "tacho-retried-to";

/// A longer [`HEADER_RETRY_OF`] is not ours.
pub const RETRY_OF_BYTES_MAX: usize = 128;

/// Header of a derived row: the worker's wall time when it was made, decimal milliseconds.
pub const HEADER_PROCESSED: &str = "tacho-processed";

/// Header of a derived row: the semantics that computed it ([`crate::settings::SEMANTICS`]), decimal. Rows from before there
/// was one are of semantics 1.
pub const HEADER_SEMANTICS: &str = "tacho-semantics";

/// Header of the first record that a transaction writes to a partition: the writer's `transactional.id`.
pub const HEADER_WRITER: &str = "tacho-writer";

/// A name and a value beside a record's key and value.
pub type Header = (String, Bytes);

/// A record as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it is.
    pub from: TopicPartition,
    /// Its own offset (the *position* after it is [`Record::position`]).
    pub offset: i64,
    /// When the log took it in.
    pub appended: AppendTime,
    /// Its key, if it has one.
    pub key: Option<Bytes>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers, in order.
    pub headers: Vec<Header>,
}

impl Record {
    /// The position after this record: the next offset to read.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position::after(self.offset)
    }

    /// The last header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_ref())
    }

    /// A header that holds a decimal number; `None` where it is absent or not a number.
    #[must_use]
    pub fn header_number(&self, name: &str) -> Option<i64> {
        std::str::from_utf8(self.header(name)?).ok()?.parse().ok()
    }
}

/// A record of the log where it is, not copied out of the client's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered<'a> {
    /// Where it is.
    pub from: TopicPartition,
    /// Its own offset.
    pub offset: i64,
    /// When the log took it in.
    pub appended: AppendTime,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order.
    pub headers: &'a [(&'a str, &'a [u8])],
}

impl Offered<'_> {
    /// A copy of it.
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
    /// Shows the record as one that is offered.
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
    /// Where it goes.
    pub to: TopicPartition,
    /// Its key, if it has one.
    pub key: Option<Bytes>,
    /// Its value; `None` deletes the key in a compacted topic.
    pub value: Option<Bytes>,
    /// Its headers, in order.
    pub headers: Vec<Header>,
}
