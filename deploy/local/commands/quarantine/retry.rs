//! Sends quarantined records again: the bytes go into the inbox topic of their signal, then a note goes into the
//! quarantine. After a crash between the two a record can be sent twice; its dedup marks make it count once.

use super::entry::{Entry, Note};
use super::options::Chosen;
use super::{ENTRIES_MAX, QUARANTINE, QuarantineError, READ_MAX, collect};
use bytes::Bytes;
use processor_log::kafka::KafkaLog;
use processor_log::{Log, ReadLog};
use schemas::id::{Position, TopicPartition};
use schemas::record::{
    HEADER_RETRIED, HEADER_RETRIED_TO, HEADER_RETRY_OF, NewRecord, RETRY_OF_BYTES_MAX, Record,
};
use std::collections::{BTreeSet, VecDeque};
use std::io::Write;

/// Sends the chosen records; prints for each where it is now, or why it was left out.
///
/// # Errors
/// The log can't be read or written, too many records are chosen, or records that were named are left out.
pub fn retry(
    log: &mut KafkaLog,
    chosen: &Chosen,
    again: bool,
    out: &mut dyn Write,
) -> Result<(), QuarantineError> {
    let named: BTreeSet<i64> = if let Chosen::Offsets(offsets) = chosen {
        offsets.iter().copied().collect()
    } else {
        BTreeSet::new()
    };
    let wanted = |entry: &Entry| match chosen {
        Chosen::All => true,
        Chosen::Reason(reason) => entry.reason == *reason,
        Chosen::Offsets(_) => named.contains(&entry.offset),
    };
    let (entries, notes) = collect(log, ENTRIES_MAX + 1, wanted)?;
    if entries.len() > ENTRIES_MAX {
        return Err(QuarantineError::TooMany);
    }
    let missing: Vec<i64> = named
        .into_iter()
        .filter(|offset| !entries.iter().any(|entry| entry.offset == *offset))
        .collect();
    let (mut sent, mut left) = (0_u64, 0_u64);
    let mut read_ahead = ReadAhead::default();
    for entry in &entries {
        let why = match (notes.get(&entry.offset), entry.cut_from, entry.inbox) {
            (Some(Note { to }), ..) if !again => Some(format!(
                "was sent again already, to {to}: --again does it once more"
            )),
            (_, Some(length), _) => Some(format!("is cut: {} of {length} bytes are there", entry.bytes)),
            (_, _, None) => Some(format!(
                "is of no signal that is known: its origin is {:?}",
                entry.origin
            )),
            _ => None,
        };
        match why {
            Some(why) => {
                left += 1;
                writeln!(out, "{} {}", entry.offset, crate::commands::render::visible(&why))?;
            }
            None => {
                let value = read_ahead.value(log, entry.offset)?;
                writeln!(out, "{} sent again to {}", entry.offset, send(log, entry, value)?)?;
                sent += 1;
            }
        }
        out.flush()?;
    }
    for offset in &missing {
        writeln!(out, "{offset} is not in the quarantine")?;
    }
    // Records that were named must all be sent; of a whole reason, or of all, those that can be sent are enough.
    if let Chosen::Offsets(_) = chosen
        && (left > 0 || !missing.is_empty())
    {
        out.flush()?;
        return Err(QuarantineError::NotAll {
            sent,
            left: left + missing.len() as u64,
        });
    }
    writeln!(out, "{sent} sent again, {left} left out")?;
    Ok(())
}

/// The records of the last read: those that are sent again mostly stand next to each other.
#[derive(Default)]
struct ReadAhead(VecDeque<Record>);

impl ReadAhead {
    /// The bytes of the record at an offset.
    fn value(&mut self, log: &mut KafkaLog, offset: i64) -> Result<Option<Bytes>, QuarantineError> {
        for _ in 0..2 {
            while let Some(record) = self.0.pop_front() {
                if record.offset == offset {
                    return Ok(record.value);
                }
            }
            self.0 = log.read(QUARANTINE, Position(offset), READ_MAX)?.records.into();
        }
        Err(QuarantineError::NotThere(offset))
    }
}

/// Sends the bytes of an entry and notes it in the quarantine; gives the new place as `topic/partition@offset`.
fn send(log: &mut KafkaLog, entry: &Entry, value: Option<Bytes>) -> Result<String, QuarantineError> {
    let inbox = entry.inbox.ok_or(QuarantineError::NotThere(entry.offset))?;
    // The retry of a retry keeps the origin of the first record.
    let first = entry
        .retry_of
        .as_ref()
        .and_then(|of| of.split_once(' '))
        .map_or(entry.origin.as_str(), |(_, origin)| origin);
    let mut retry_of = format!("{} {first}", entry.offset);
    retry_of.truncate(retry_of.floor_char_boundary(RETRY_OF_BYTES_MAX));
    let partitions = i64::from(log.partitions(inbox)?.max(1));
    let partition = i32::try_from(entry.offset.rem_euclid(partitions)).unwrap_or(0);
    let to = TopicPartition {
        topic: inbox,
        partition,
    };
    let headers = vec![(HEADER_RETRY_OF.to_owned(), Bytes::from(retry_of))];
    let appended = log.append(vec![NewRecord {
        to,
        key: None,
        value,
        headers,
    }])?;
    let place = format!("{to}@{}", appended.first().map_or(-1, |appended| appended.offset));
    let headers = vec![
        (HEADER_RETRIED.to_owned(), Bytes::from(entry.offset.to_string())),
        (HEADER_RETRIED_TO.to_owned(), Bytes::from(place.clone())),
    ];
    let key = Some(Bytes::from(entry.reason.clone()));
    log.append(vec![NewRecord {
        to: QUARANTINE,
        key,
        value: Some(Bytes::new()),
        headers,
    }])?;
    Ok(place)
}
