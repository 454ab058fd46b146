//! `tacho read`: prints the records of a topic. They come from a cluster, from the process that holds the data directory,
//! or from the directory itself where no process runs.

pub mod source;
#[cfg(test)]
mod tests;

use crate::commands::cursor::Cursor;
use crate::commands::render;
use crate::place::{Env, Place, PlaceArgs};
use processor_log::{Extent, LogError, ReadLog};
use schemas::id::{Position, TopicPartition};
use schemas::record::Record;
use schemas::topic::Topic;
use settings::process::{Failure, chain};
use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Write};
use std::time::Duration;
use strum::VariantArray;

/// How many records of a topic that is not compacted are shown without flags: the last ones.
const SHOWN_MAX: usize = 1000;
/// The most keys of a compacted topic that are held to find the latest row of each.
const KEYS_MAX: usize = 1_000_000;
/// The most records that one read asks for.
const READ_MAX: usize = 500;
/// How long `--follow` waits before it looks again for new records.
const FOLLOW_PAUSE: Duration = Duration::from_millis(200);

/// The flags of `tacho read`.
#[derive(Debug, clap::Args)]
pub struct ReadArgs {
    /// The topic, for example codex.sessions.v1.
    topic: String,
    /// Prints all records, from the first that is still there.
    #[arg(long)]
    from_start: bool,
    /// Goes on with records that come in.
    #[arg(long)]
    follow: bool,
    /// Prints one JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: PlaceArgs,
}

/// What to print.
#[derive(Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// The topic.
    pub topic: Topic,
    /// Whether to begin with the first record that is still there.
    pub from_start: bool,
    /// Whether to go on with new records when all is printed.
    pub follow: bool,
    /// Whether to print one JSON object a line.
    pub json: bool,
    /// Where the log is; never [`Place::Temporary`].
    pub place: Place,
}

impl ReadArgs {
    /// Everything that follows from the flags; what is wrong with them is added to `faults`. A topic may be named with
    /// the prefix of the cluster or without it.
    pub fn options(self, env: &Env, faults: &mut Vec<String>) -> Option<ReadOptions> {
        let place = self.at.resolve(env, faults);
        let named = |topic: &&Topic| match &place {
            Some(Place::Kafka(cluster)) => cluster.topic(**topic) == self.topic,
            Some(Place::Directory { .. } | Place::Temporary) | None => false,
        };
        let topic = Topic::by_name(&self.topic).or_else(|| Topic::VARIANTS.iter().find(named).copied());
        if topic.is_none() {
            let known: Vec<&str> = Topic::VARIANTS.iter().map(|topic| topic.name()).collect();
            faults.push(format!(
                "there is no topic {:?}: the topics are {}",
                self.topic,
                known.join(", ")
            ));
        }
        Some(ReadOptions {
            topic: topic?,
            from_start: self.from_start,
            follow: self.follow,
            json: self.json,
            place: place?,
        })
    }
}

/// Prints what was asked for. Ends when all is printed or the output is closed; with `--follow` only then.
///
/// # Errors
/// The log can't be opened or read, or the output can't be written.
pub fn run(options: &ReadOptions) -> Result<(), Failure> {
    let mut source = source::open(&options.place)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut reader = Reader {
        source: source.as_mut(),
        options,
        out: &mut out,
    };
    match reader.print(|| std::thread::sleep(FOLLOW_PAUSE)) {
        Ok(()) => Ok(()),
        Err(ReadError::Closed) => Ok(()),
        Err(error) => Err(Failure::Running(chain(&error))),
    }
}

/// Why not all was printed.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    /// The log can't be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The output can't be written.
    #[error("can't write")]
    Write(#[source] std::io::Error),
    /// The reader of the output closed it, as `head` does when it has enough.
    #[error("the output is closed")]
    Closed,
    /// The rows of a compacted topic do not fit into memory.
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

struct Reader<'r> {
    source: &'r mut dyn ReadLog,
    options: &'r ReadOptions,
    out: &'r mut dyn Write,
}

impl Reader<'_> {
    /// Prints everything. With `--follow` it goes on until the output is closed, and calls `pause` whenever there is
    /// nothing new.
    fn print(&mut self, mut pause: impl FnMut()) -> Result<(), ReadError> {
        let mut cursors = self.cursors()?;
        if !self.options.from_start {
            let first = if self.options.topic.def().cleanup.is_compacted() {
                self.latest_per_key(&mut cursors)?
            } else {
                self.last(&mut cursors)?
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
            Ok(Cursor::at_start(
                self.source,
                TopicPartition { topic, partition },
            )?)
        };
        (0..partitions).map(cursor).collect()
    }

    /// Prints a partition up to the cursor's end; whether there were records.
    fn copy(&mut self, cursor: &mut Cursor) -> Result<bool, ReadError> {
        let mut any = false;
        loop {
            let records = cursor.step(self.source, READ_MAX)?;
            if records.is_empty() {
                return Ok(any);
            }
            any = true;
            records.iter().try_for_each(|record| self.show(record))?;
        }
    }

    /// The latest row of each key, without those that a tombstone removed.
    fn latest_per_key(&mut self, cursors: &mut [Cursor]) -> Result<Vec<Record>, ReadError> {
        let mut rows = BTreeMap::new();
        for cursor in cursors {
            loop {
                let records = cursor.step(self.source, READ_MAX)?;
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

    /// The last [`SHOWN_MAX`] records over all partitions.
    fn last(&mut self, cursors: &mut [Cursor]) -> Result<Vec<Record>, ReadError> {
        let mut all = Vec::new();
        for cursor in cursors {
            all.extend(self.last_of(cursor)?);
        }
        let mut all = in_order(all);
        Ok(all.split_off(all.len().saturating_sub(SHOWN_MAX)))
    }

    /// The last [`SHOWN_MAX`] records of a partition. Not every offset is a record, since transactions leave marks: where
    /// too few are found, it begins again twice as far back.
    fn last_of(&mut self, cursor: &mut Cursor) -> Result<VecDeque<Record>, ReadError> {
        let Extent { start, end } = cursor.extent;
        let mut back = SHOWN_MAX as i64;
        loop {
            let from = (end.0 - back).max(start.0);
            cursor.next = Position(from);
            let mut records = VecDeque::with_capacity(SHOWN_MAX);
            loop {
                let some = cursor.step(self.source, READ_MAX)?;
                if some.is_empty() {
                    break;
                }
                for record in some {
                    if records.len() == SHOWN_MAX {
                        records.pop_front();
                    }
                    records.push_back(record);
                }
            }
            if records.len() == SHOWN_MAX || from == start.0 {
                return Ok(records);
            }
            back = back.saturating_mul(2);
        }
    }

    fn show(&mut self, record: &Record) -> Result<(), ReadError> {
        Ok(writeln!(self.out, "{}", render::line(record, self.options.json))?)
    }
}

/// Records by append time, then by place.
fn in_order(mut records: Vec<Record>) -> Vec<Record> {
    records.sort_by_key(|record| (record.appended, record.from.partition, record.offset));
    records
}
