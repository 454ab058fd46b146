//! `tacho read`: the records of a topic, from a cluster, from the process that holds the data directory, or from the
//! directory itself where no process runs.

pub mod source;
#[cfg(test)]
mod tests;

use crate::cli::ReadOptions;
use crate::show;
use processor_log::{Extent, LogError, ReadLog};
use schemas::id::{Position, TopicPartition};
use schemas::record::Record;
use schemas::topic::Cleanup;
use settings::process::{Failure, chain};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::time::Duration;

/// How many records of a topic that is not compacted are shown without flags.
const LAST: usize = 1000;
/// How many keys of a compacted topic are held to find the latest row of each.
const KEYS_MAX: usize = 1_000_000;
/// How many records one read asks for.
const READ_MAX: usize = 500;
/// How long `--follow` waits when there is nothing new.
const PAUSE: Duration = Duration::from_millis(200);

/// Prints what was asked for; ends when all is printed, or never with `--follow`.
pub fn run(options: &ReadOptions) -> Result<(), Failure> {
    let mut source = source::open(&options.place)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut reader = Reader {
        source: source.as_mut(),
        options,
        out: &mut out,
    };
    match reader.print(|| std::thread::sleep(PAUSE)) {
        Ok(()) => Ok(()),
        Err(ReadError::Closed) => Ok(()),
        Err(error) => Err(Failure::Running(chain(&error))),
    }
}

/// Why not all was printed.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("can't write: {0}")]
    Write(std::io::Error),
    /// Whoever read our output has enough.
    #[error("the output is closed")]
    Closed,
    #[error("the topic has more than {KEYS_MAX} keys: use --from-start and reduce the rows by key yourself")]
    TooManyKeys,
}

impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::Write(error)
        }
    }
}

/// One partition, and how far it is read.
struct Cursor {
    at: TopicPartition,
    extent: Extent,
    next: Position,
}

struct Reader<'r> {
    source: &'r mut dyn ReadLog,
    options: &'r ReadOptions,
    out: &'r mut dyn Write,
}

impl Reader<'_> {
    /// Prints; with `--follow` for ever, calling `pause` whenever there is nothing new.
    fn print(&mut self, mut pause: impl FnMut()) -> Result<(), ReadError> {
        let mut cursors = self.cursors()?;
        if !self.options.from_start {
            let first = match self.options.topic.cleanup() {
                Cleanup::Compact => self.latest_per_key(&mut cursors)?,
                Cleanup::Delete | Cleanup::Keep => self.last(&mut cursors)?,
            };
            first.iter().try_for_each(|record| self.show(record))?;
        } else {
            for cursor in &mut cursors {
                self.copy(cursor)?;
            }
        }
        self.out.flush()?;
        while self.options.follow {
            let mut idle = true;
            for cursor in &mut cursors {
                cursor.extent.end = Position(i64::MAX);
                idle &= !self.copy(cursor)?;
            }
            self.out.flush()?;
            if idle {
                pause();
            }
        }
        Ok(())
    }

    fn cursors(&mut self) -> Result<Vec<Cursor>, ReadError> {
        let topic = self.options.topic;
        let partitions = self.source.partitions(topic)?;
        let cursor = |partition| {
            let at = TopicPartition { topic, partition };
            let extent = self.source.extent(at)?;
            Ok(Cursor {
                at,
                extent,
                next: extent.start,
            })
        };
        (0..partitions).map(cursor).collect()
    }

    /// The next records before the cursor's end; empty at the end, or where a reader has to wait.
    fn step(&mut self, cursor: &mut Cursor) -> Result<Vec<Record>, ReadError> {
        while cursor.next < cursor.extent.end {
            let batch = match self.source.read(cursor.at, cursor.next, READ_MAX) {
                Ok(batch) => batch,
                // Retention was faster: go on with what is still there.
                Err(LogError::OutOfRange { start, .. }) if start > cursor.next.0 => {
                    cursor.next = Position(start);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let stuck = batch.next == cursor.next;
            cursor.next = batch.next;
            let end = cursor.extent.end;
            let records: Vec<Record> = batch
                .records
                .into_iter()
                .filter(|record| record.offset < end.0)
                .collect();
            if stuck || !records.is_empty() {
                return Ok(records);
            }
        }
        Ok(Vec::new())
    }

    /// Prints a partition up to the cursor's end; whether there was anything.
    fn copy(&mut self, cursor: &mut Cursor) -> Result<bool, ReadError> {
        let mut any = false;
        loop {
            let records = self.step(cursor)?;
            if records.is_empty() {
                return Ok(any);
            }
            any = true;
            records.iter().try_for_each(|record| self.show(record))?;
        }
    }

    fn latest_per_key(&mut self, cursors: &mut [Cursor]) -> Result<Vec<Record>, ReadError> {
        let mut rows = BTreeMap::new();
        for cursor in cursors {
            loop {
                let records = self.step(cursor)?;
                if records.is_empty() {
                    break;
                }
                for record in records {
                    let key = (record.from.partition, record.key.clone());
                    if record.value.is_none() {
                        rows.remove(&key);
                    } else {
                        rows.insert(key, record);
                    }
                }
                if rows.len() > KEYS_MAX {
                    return Err(ReadError::TooManyKeys);
                }
            }
        }
        Ok(in_order(rows.into_values().collect()))
    }

    /// The last records over all partitions. Goes back further where offsets are not all records.
    fn last(&mut self, cursors: &mut [Cursor]) -> Result<Vec<Record>, ReadError> {
        let mut all = Vec::new();
        for cursor in cursors {
            let Extent { start, end } = cursor.extent;
            let mut back = LAST as i64;
            loop {
                let from = (end.0 - back).max(start.0);
                cursor.next = Position(from);
                let mut records = std::collections::VecDeque::with_capacity(LAST);
                loop {
                    let some = self.step(cursor)?;
                    if some.is_empty() {
                        break;
                    }
                    for record in some {
                        if records.len() == LAST {
                            records.pop_front();
                        }
                        records.push_back(record);
                    }
                }
                if records.len() == LAST || from == start.0 {
                    all.extend(records);
                    break;
                }
                back = back.saturating_mul(2);
            }
        }
        let mut all = in_order(all);
        Ok(all.split_off(all.len().saturating_sub(LAST)))
    }

    fn show(&mut self, record: &Record) -> Result<(), ReadError> {
        Ok(writeln!(self.out, "{}", show::line(record, self.options.json))?)
    }
}

fn in_order(mut records: Vec<Record>) -> Vec<Record> {
    records.sort_by_key(|record| (record.appended, record.from.partition, record.offset));
    records
}
