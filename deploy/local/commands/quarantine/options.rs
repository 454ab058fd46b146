//! The flags of `tacho quarantine`, and what follows from them.

use super::ENTRIES_MAX;
use super::entry::Entry;
use crate::place::{Env, Place, PlaceArgs};
use schemas::time::parse_rfc3339;
use settings::units::Span;
use std::time::{SystemTime, UNIX_EPOCH};

/// The most entries that are listed, unless `--limit` says otherwise.
pub(super) const LISTED_MAX: usize = 1_000;
/// The flags of `tacho quarantine`.
#[derive(Debug, clap::Args)]
pub struct QuarantineArgs {
    #[command(subcommand)]
    command: QuarantineCommand,
}

#[derive(Debug, clap::Subcommand)]
enum QuarantineCommand {
    /// Lists one record a line, the latest last: offset, time, tenant, signal, reason, origin, size, and what became of it.
    List {
        #[command(flatten)]
        which: FilterArgs,
        /// Lists at most that many records, the latest.
        #[arg(long, value_name = "NUMBER", default_value_t = LISTED_MAX)]
        limit: usize,
        /// Prints one JSON object a line.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: PlaceArgs,
    },
    /// Shows one record with its bytes: as OTLP or text if they are that, else as a dump.
    Show {
        /// The offset of the record, as `list` gives it.
        offset: i64,
        /// Prints nothing but the bytes, as they are: for a file or a pipe.
        #[arg(long, conflicts_with = "json")]
        raw: bool,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: PlaceArgs,
    },
    /// Puts records into the inbox topics once more, and prints where; ingest takes them from there. A record that was
    /// sent again already is left out.
    Retry {
        /// The offsets of the records, as `list` gives them.
        #[arg(required_unless_present_any = ["reason", "all"])]
        offsets: Vec<i64>,
        /// Sends all records with this reason.
        #[arg(long, conflicts_with = "offsets")]
        reason: Option<String>,
        /// Sends all records.
        #[arg(long, conflicts_with_all = ["offsets", "reason"])]
        all: bool,
        /// Sends records even if they were sent again already.
        #[arg(long)]
        again: bool,
        #[command(flatten)]
        at: PlaceArgs,
    },
}

/// The flags that choose the records to list.
#[derive(Debug, clap::Args)]
struct FilterArgs {
    /// Lists only records with this reason.
    #[arg(long)]
    reason: Option<String>,
    /// Lists only records since a time, 2026-11-23T05:00:00Z, or within a span before now, 30m or 24h.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

/// What to do with the quarantine of a log.
#[derive(Debug, PartialEq, Eq)]
pub struct QuarantineOptions {
    pub(super) place: Place,
    pub(super) what: QuarantineTask,
}

/// What to do, and with which records.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum QuarantineTask {
    /// Print a line for each record that the filter takes.
    List {
        filter: Filter,
        limit: usize,
        json: bool,
    },
    /// Print one record.
    Show { offset: i64, form: ShownAs },
    /// Send records again; `again`: those too that were sent again already.
    Retry { chosen: Chosen, again: bool },
}

/// How a record is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShownAs {
    /// As text for people.
    Text,
    /// As one JSON object.
    Json,
    /// As nothing but its bytes.
    Bytes,
}

/// The records that are sent again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chosen {
    /// The records at these offsets.
    Offsets(Vec<i64>),
    /// All records with this reason.
    Reason(String),
    /// All records.
    All,
}

/// The records that are listed: those that meet every condition that is set.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) reason: Option<String>,
    pub(super) since_ms: Option<i64>,
}

impl Filter {
    /// Whether an entry is listed.
    pub(super) fn takes(&self, entry: &Entry) -> bool {
        self.reason.as_ref().is_none_or(|reason| *reason == entry.reason)
            && self.since_ms.is_none_or(|since| entry.appended.0 >= since)
    }
}

impl QuarantineArgs {
    /// Everything that follows from the flags; what is wrong with them is added to `faults`.
    pub fn options(self, env: &Env, faults: &mut Vec<String>) -> Option<QuarantineOptions> {
        let (at, what) = match self.command {
            QuarantineCommand::List {
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
                    QuarantineTask::List {
                        filter: Filter {
                            reason: which.reason,
                            since_ms,
                        },
                        limit,
                        json,
                    },
                )
            }
            QuarantineCommand::Show {
                offset,
                raw,
                json,
                at,
            } => {
                let form = if raw {
                    ShownAs::Bytes
                } else if json {
                    ShownAs::Json
                } else {
                    ShownAs::Text
                };
                (at, QuarantineTask::Show { offset, form })
            }
            QuarantineCommand::Retry {
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
                (at, QuarantineTask::Retry { chosen, again })
            }
        };
        let place = at.resolve(env, faults)?;
        if matches!(
            (&what, &place),
            (QuarantineTask::Retry { .. }, Place::Directory { .. })
        ) {
            faults.push(
                "the embedded log has no inbox: write the bytes to a file with `tacho quarantine show OFFSET --raw`, and post it to /v1/logs"
                    .to_owned(),
            );
        }
        Some(QuarantineOptions { place, what })
    }
}

/// The time that `--since` names, ms since the Unix epoch: an RFC 3339 time, or a span before now.
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
