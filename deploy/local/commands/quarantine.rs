//! `tacho quarantine`: lists, shows and sends again the records that could not be understood.
//!
//! A quarantined record says in its headers why it is there, where it came from, whose it is, and which key it had in the
//! raw topic; its own key is the reason. Ingest puts records of an inbox there, which may be there twice after a crash and
//! then name the same origin, and the processor raw records, once.
//!
//! `retry` appends the bytes of a record to the inbox topic of their signal with header `tacho-retry-of`, which ingest
//! passes on to what becomes of them, and then a note to the quarantine: an empty record with header `tacho-retried`.
//! Notes are records because the topic is a log like the others: nothing in it is changed or deleted.

mod entry;
mod options;
mod retry;
#[cfg(test)]
mod tests;

use crate::commands::cursor::Cursor;
use crate::commands::failed;
use crate::commands::read::source;
use crate::place::Place;
use entry::{Entry, Note};
use options::{Filter, QuarantineTask, ShownAs};
pub use options::{QuarantineArgs, QuarantineOptions};
use processor_log::{LogError, ReadLog};
use schemas::id::{Position, TopicPartition};
use schemas::record::Record;
use schemas::topic::Topic;
use settings::process::Failure;
use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, IsTerminal, Write};

/// The only partition of the quarantine topic.
const QUARANTINE: TopicPartition = TopicPartition {
    topic: Topic::Quarantine,
    partition: 0,
};
/// The most records that one read asks for: each may have megabytes.
const READ_MAX: usize = 50;
/// The most entries, and the most notes, that are held at once.
const ENTRIES_MAX: usize = 1_000_000;

/// Why a command on the quarantine was not done.
#[derive(Debug, thiserror::Error)]
enum QuarantineError {
    /// The log can't be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The output can't be written.
    #[error("can't write")]
    Write(#[source] std::io::Error),
    /// The reader of the output closed it, as `head` does when it has enough.
    #[error("the output is closed")]
    Closed,
    /// No quarantined record has this offset.
    #[error(
        "there is no quarantined record at offset {0}: `tacho quarantine list` names those that are still there"
    )]
    NotThere(i64),
    /// The bytes of a record were asked for, and the output is a terminal.
    #[error("these are bytes as they came, which can drive a terminal: send them to a file or a pipe")]
    Terminal,
    /// Too many records were chosen to be held at once.
    #[error("the quarantine holds more than {ENTRIES_MAX} records: choose by offset")]
    TooMany,
    /// Records that were named by offset are left out: the lines that were printed say why.
    #[error("{sent} sent again, {left} not: see above")]
    NotAll {
        /// How many records were sent.
        sent: u64,
        /// How many records were not sent.
        left: u64,
    },
}

impl From<std::io::Error> for QuarantineError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::Write(error)
        }
    }
}

/// Lists, shows or sends again what was asked for.
///
/// # Errors
/// The log can't be opened, read or written, the output can't be written, or not all of the named records were sent.
pub fn run(options: &QuarantineOptions) -> Result<(), Failure> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let done = match &options.what {
        QuarantineTask::List { filter, limit, json } => list(
            source::open(&options.place)?.as_mut(),
            filter,
            *limit,
            *json,
            &mut out,
        ),
        QuarantineTask::Show {
            form: ShownAs::Bytes, ..
        } if std::io::stdout().is_terminal() => Err(QuarantineError::Terminal),
        QuarantineTask::Show { offset, form } => {
            show(source::open(&options.place)?.as_mut(), *offset, *form, &mut out)
        }
        QuarantineTask::Retry { chosen, again } => {
            let Place::Kafka(cluster) = &options.place else {
                unreachable!("the command line gives `retry` a cluster")
            };
            let mut log = crate::adapters::kafka_log(cluster).map_err(failed)?;
            retry::retry(&mut log, chosen, *again, &mut out)
        }
    };
    match done.and_then(|()| Ok(out.flush()?)) {
        Ok(()) | Err(QuarantineError::Closed) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Calls `take` with every record that is there now, in order.
fn each(
    source: &mut (impl ReadLog + ?Sized),
    mut take: impl FnMut(Record) -> Result<(), QuarantineError>,
) -> Result<(), QuarantineError> {
    let mut cursor = Cursor::at_start(source, QUARANTINE)?;
    loop {
        let records = cursor.step(source, READ_MAX)?;
        if records.is_empty() {
            return Ok(());
        }
        records.into_iter().try_for_each(&mut take)?;
    }
}

/// The entries that `wanted` accepts, at most the last `limit`, and the last note about each entry by the entry's offset.
fn collect(
    source: &mut (impl ReadLog + ?Sized),
    limit: usize,
    wanted: impl Fn(&Entry) -> bool,
) -> Result<(VecDeque<Entry>, BTreeMap<i64, Note>), QuarantineError> {
    let (mut entries, mut notes) = (VecDeque::new(), BTreeMap::new());
    each(source, |record| {
        if let Some((of, note)) = Note::of(&record) {
            notes.insert(of, note);
            if notes.len() > ENTRIES_MAX {
                notes.pop_first();
            }
            return Ok(());
        }
        let entry = Entry::of(&record);
        if wanted(&entry) {
            if entries.len() == limit {
                entries.pop_front();
            }
            entries.push_back(entry);
        }
        Ok(())
    })?;
    Ok((entries, notes))
}

/// Prints a line for each entry that the filter takes.
fn list(
    source: &mut (impl ReadLog + ?Sized),
    filter: &Filter,
    limit: usize,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), QuarantineError> {
    let (entries, notes) = collect(source, limit, |entry| filter.takes(entry))?;
    for entry in &entries {
        let note = notes.get(&entry.offset);
        if json {
            writeln!(out, "{}", entry.json(note))?
        } else {
            writeln!(out, "{}", entry.line(note))?
        }
    }
    Ok(())
}

/// Prints one record.
fn show(
    source: &mut (impl ReadLog + ?Sized),
    offset: i64,
    form: ShownAs,
    out: &mut dyn Write,
) -> Result<(), QuarantineError> {
    let record = record_at(source, offset)?;
    let bytes = record.value.as_deref().unwrap_or_default();
    if form == ShownAs::Bytes {
        return Ok(out.write_all(bytes)?);
    }
    let mut note = None;
    each(source, |later| {
        note = Note::of(&later)
            .filter(|(of, _)| *of == offset)
            .map(|(_, note)| note)
            .or(note.take());
        Ok(())
    })?;
    let entry = Entry::of(&record);
    match form {
        ShownAs::Json => writeln!(out, "{}", entry.json_with_bytes(&record, note.as_ref()))?,
        ShownAs::Text | ShownAs::Bytes => entry.write(&record, note.as_ref(), out)?,
    }
    Ok(())
}

/// The quarantined record at an offset.
fn record_at(source: &mut (impl ReadLog + ?Sized), offset: i64) -> Result<Record, QuarantineError> {
    let extent = source.extent(QUARANTINE)?;
    if !(extent.start.0..extent.end.0).contains(&offset) {
        return Err(QuarantineError::NotThere(offset));
    }
    let batch = source.read(QUARANTINE, Position(offset), 1)?;
    let found = batch
        .records
        .into_iter()
        .next()
        .filter(|record| record.offset == offset && Note::of(record).is_none());
    found.ok_or(QuarantineError::NotThere(offset))
}
