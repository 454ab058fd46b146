//! `tacho quarantine`: what could not be understood. A record there says where it came from and why it is there; one
//! that was sent again has a note behind it, which is a record too.

mod entry;
mod retry;
#[cfg(test)]
mod tests;

use crate::cli::{Env, Place, place};
use crate::cluster::ClusterArgs;
use crate::read::source;
use entry::{Entry, Note};
use processor_log::{LogError, ReadLog};
use schemas::id::{Position, TopicPartition};
use schemas::record::Record;
use schemas::time::parse_rfc3339;
use schemas::topic::Topic;
use settings::process::{Failure, chain};
use settings::units::Span;
use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// The only partition there is.
const QUARANTINE: TopicPartition = TopicPartition {
    topic: Topic::Quarantine,
    partition: 0,
};
/// How many records one read asks for: each may have megabytes.
const READ_MAX: usize = 50;
/// Entries that are listed unless told otherwise.
const LIMIT: usize = 1_000;
/// Most entries, and notes, that are held at once.
const ENTRIES_MAX: usize = 1_000_000;

/// `tacho quarantine …`
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// One line a record, the latest last: offset, time, tenant, signal, reason, origin, size, and what became of it.
    List {
        #[command(flatten)]
        which: Which,
        /// At most that many, the latest.
        #[arg(long, value_name = "NUMBER", default_value_t = LIMIT)]
        limit: usize,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: At,
    },
    /// One record, with its bytes: as OTLP or text if they are that, else as a dump.
    Show {
        /// As `list` gives it.
        offset: i64,
        /// Nothing but the bytes, as they are: for a file or a pipe.
        #[arg(long, conflicts_with = "json")]
        raw: bool,
        /// One JSON object.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: At,
    },
    /// Puts records into the inbox topics once more, and prints where; ingest takes them from there. A record that was
    /// sent again already is left out.
    Retry {
        /// As `list` gives them.
        #[arg(required_unless_present_any = ["reason", "all"])]
        offsets: Vec<i64>,
        /// All of that reason.
        #[arg(long, conflicts_with = "offsets")]
        reason: Option<String>,
        /// All.
        #[arg(long, conflicts_with_all = ["offsets", "reason"])]
        all: bool,
        /// Those too that were sent again already.
        #[arg(long)]
        again: bool,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Only of that reason.
    #[arg(long)]
    reason: Option<String>,
    /// Only from then on: 2026-11-23T05:00:00Z, or for so long: 30m, 24h.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

#[derive(Debug, clap::Args)]
struct At {
    /// Directory of the embedded log.
    #[arg(long, value_name = "DIR")]
    data: Option<std::path::PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    place: Place,
    what: What,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    List {
        filter: Filter,
        limit: usize,
        json: bool,
    },
    Show {
        offset: i64,
        form: Form,
    },
    Retry {
        chosen: Chosen,
        again: bool,
    },
}

/// How a record is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    People,
    Json,
    Raw,
}

/// Which records are sent again.
#[derive(Debug, PartialEq, Eq)]
enum Chosen {
    Offsets(Vec<i64>),
    Reason(String),
    All,
}

/// Which records are listed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Filter {
    reason: Option<String>,
    since_ms: Option<i64>,
}

impl Filter {
    fn takes(&self, entry: &Entry) -> bool {
        self.reason.as_ref().is_none_or(|reason| *reason == entry.reason)
            && self.since_ms.is_none_or(|since| entry.appended.0 >= since)
    }
}

impl Args {
    /// Everything that follows from the flags.
    pub fn options(self, env: &Env, faults: &mut Vec<String>) -> Option<Options> {
        let (at, what) = match self.command {
            Command::List {
                which,
                limit,
                json,
                at,
            } => {
                if !(1..=ENTRIES_MAX).contains(&limit) {
                    faults.push(format!("--limit must be between 1 and {ENTRIES_MAX}"));
                }
                let since_ms = which.since.and_then(|text| since(&text, faults));
                (
                    at,
                    What::List {
                        filter: Filter {
                            reason: which.reason,
                            since_ms,
                        },
                        limit,
                        json,
                    },
                )
            }
            Command::Show {
                offset,
                raw,
                json,
                at,
            } => {
                let form = if raw {
                    Form::Raw
                } else if json {
                    Form::Json
                } else {
                    Form::People
                };
                (at, What::Show { offset, form })
            }
            Command::Retry {
                offsets,
                reason,
                again,
                at,
                ..
            } => {
                let chosen = match reason {
                    Some(reason) => Chosen::Reason(reason),
                    None if offsets.is_empty() => Chosen::All,
                    None => Chosen::Offsets(offsets),
                };
                (at, What::Retry { chosen, again })
            }
        };
        let place = place(at.data, &at.cluster, env, faults)?;
        if matches!((&what, &place), (What::Retry { .. }, Place::Directory(_))) {
            faults.push(
                "the embedded log has no inbox: write the bytes to a file with `tacho quarantine show OFFSET --raw`, and post it to /v1/logs"
                    .to_owned(),
            );
        }
        Some(Options { place, what })
    }
}

/// A time, or a span before now: ms since the Unix epoch.
fn since(text: &str, faults: &mut Vec<String>) -> Option<i64> {
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    let ago = |span: Span| i64::try_from(now_ms.saturating_sub(span.0.as_millis())).unwrap_or(i64::MAX);
    let since = parse_rfc3339(text)
        .map(|time| time.0)
        .or_else(|| text.parse().ok().map(ago));
    if since.is_none() {
        faults.push(format!(
            "--since {text:?} is neither a time such as 2026-11-23T05:00:00Z nor a span such as 24h"
        ));
    }
    since
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
enum QuarantineError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("can't write: {0}")]
    Write(std::io::Error),
    /// Whoever read our output has enough.
    #[error("the output is closed")]
    Closed,
    #[error(
        "there is no quarantined record at offset {0}: `tacho quarantine list` names those that are still there"
    )]
    NotThere(i64),
    #[error("these are bytes as they came, which can drive a terminal: send them to a file or a pipe")]
    Terminal,
    #[error("the quarantine holds more than {ENTRIES_MAX} records: choose by offset")]
    TooMany,
    #[error("{0}")]
    NotAll(String),
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

/// Does it.
pub fn run(options: &Options) -> Result<(), Failure> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let done = match &options.what {
        What::List { filter, limit, json } => list(
            source::open(&options.place)?.as_mut(),
            filter,
            *limit,
            *json,
            &mut out,
        ),
        What::Show { form: Form::Raw, .. } if std::io::stdout().is_terminal() => {
            Err(QuarantineError::Terminal)
        }
        What::Show { offset, form } => show(source::open(&options.place)?.as_mut(), *offset, *form, &mut out),
        What::Retry { chosen, again } => {
            let Place::Kafka(cluster) = &options.place else {
                unreachable!("the command line gives `retry` a cluster")
            };
            let mut log = crate::adapters::kafka_log(cluster).map_err(Failure::Running)?;
            retry::retry(&mut log, chosen, *again, &mut out)
        }
    };
    match done.and_then(|()| Ok(out.flush()?)) {
        Ok(()) | Err(QuarantineError::Closed) => Ok(()),
        Err(error) => Err(Failure::Running(chain(&error))),
    }
}

/// Hands over every record that is there now, in order.
fn each(
    source: &mut (impl ReadLog + ?Sized),
    mut take: impl FnMut(Record) -> Result<(), QuarantineError>,
) -> Result<(), QuarantineError> {
    let extent = source.extent(QUARANTINE)?;
    let mut next = extent.start;
    while next < extent.end {
        let batch = match source.read(QUARANTINE, next, READ_MAX) {
            Ok(batch) => batch,
            // Retention was faster: go on with what is still there.
            Err(LogError::OutOfRange { start, .. }) if start > next.0 => {
                next = Position(start);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if batch.next == next {
            break;
        }
        next = batch.next;
        batch.records.into_iter().try_for_each(&mut take)?;
    }
    Ok(())
}

/// The entries that `wanted` wants, at most the last `limit`, and the last note about each entry.
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

fn show(
    source: &mut (impl ReadLog + ?Sized),
    offset: i64,
    form: Form,
    out: &mut dyn Write,
) -> Result<(), QuarantineError> {
    let record = record_at(source, offset)?;
    let bytes = record.value.as_deref().unwrap_or_default();
    if form == Form::Raw {
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
        Form::Json => writeln!(out, "{}", entry.json_with_bytes(&record, note.as_ref()))?,
        _ => entry.write(&record, note.as_ref(), out)?,
    }
    Ok(())
}

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
