//! Commits: turns the effects of all tasks into records of one atomic commit, and shows them after the commit
//! succeeded.

use super::restore::read_labels;
use super::tasks::{Held, Tasks};
use super::{RunError, Work, observe};
use crate::status::Status;
use crate::telemetry;
use crate::view::{PartitionView, Shown, View};
use bytes::Bytes;
use processor_core::{Deltas, Effects, Quarantined, RawDeltas};
use processor_log::{Commit, Log, LogError, Part};
use prost::Message;
use schemas::derived::{Row, SessionRow};
use schemas::id::{Position, TopicPartition, split_raw_key};
use schemas::record::{
    HEADER_KEY, HEADER_ORIGIN, HEADER_PROCESSED, HEADER_REASON, HEADER_SEMANTICS, HEADER_TENANT, Header,
    NewRecord,
};
use schemas::settings::SEMANTICS;
use schemas::stage::Stage;
use schemas::state::{Change, StateKey};
use schemas::topic::{Cleanup, Topic};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Room for the records of a part beside its changes, rows and quarantined records: usual numbers of delta
/// records, and the meta record.
const PART_RECORDS_USUAL: usize = 16;
/// How many rows of each restored partition are offered to the page.
const ROWS_RESTORED: usize = View::RECENT_MAX;

/// A commit, and what is shown after it.
pub struct Prepared {
    /// The commit that is given to the log.
    pub commit: Commit,
    /// The latest session rows of each input partition, at most as many as the page keeps.
    rows: Vec<SessionRow>,
    /// The keys of the series that changed, by deltas partition.
    touched: Vec<(i32, BTreeSet<String>)>,
    /// How many label values are shown as `other`, by label.
    overflow: Vec<(&'static str, u64)>,
}

/// The effects of a task as records, and its deltas, whose labels are not resolved yet.
struct Taken {
    input: TopicPartition,
    changelog: TopicPartition,
    deltas: RawDeltas,
    records: Vec<NewRecord>,
}

impl Prepared {
    /// Removes the parts of input partitions that this worker has lost, and what would be shown of them.
    pub fn leave_out(&mut self, lost: &[TopicPartition]) {
        self.commit.parts.retain(|part| !lost.contains(&part.input));
        self.touched
            .retain(|(partition, _)| !lost.contains(&deltas(*partition)));
    }
}

/// A partition of the deltas topic.
const fn deltas(partition: i32) -> TopicPartition {
    let topic = Topic::Deltas;
    TopicPartition { topic, partition }
}

/// Turns all that was folded since the last commit into a commit. Records for the quarantine topic are in it
/// only if `quarantines` is set.
pub fn prepare<L: Log>(work: &mut Work, log: &mut L, quarantines: bool) -> Result<Prepared, RunError> {
    let mut prepared = Prepared {
        commit: Commit::default(),
        rows: Vec::new(),
        touched: Vec::new(),
        overflow: Vec::new(),
    };
    let made = [
        (
            HEADER_PROCESSED.to_owned(),
            Bytes::from(log.wall_ms().to_string()),
        ),
        (HEADER_SEMANTICS.to_owned(), Bytes::from(SEMANTICS.to_string())),
    ];
    let mut taken = Vec::new();
    for input in work.tasks.moved() {
        taken.extend(take(work, input, &made, quarantines, &mut prepared));
    }
    admit_labels(work, log, taken.iter().map(|taken| &taken.deltas))?;
    for taken in taken {
        let Taken {
            input,
            changelog,
            deltas,
            mut records,
        } = taken;
        let Some(held) = work.tasks.get_mut(input) else {
            continue;
        };
        let resolved = if deltas.is_empty() {
            Deltas::none()
        } else {
            prepared.overflow.extend(work.labels.overflow(&deltas));
            work.labels.resolve(deltas)
        };
        let sealed = held.task.seal(resolved, log.writer(), &work.rules);
        for (partition, record) in sealed.deltas {
            records.push(plain(self::deltas(partition), None, record.encode_to_vec()));
        }
        let key = StateKey::Meta.to_string();
        records.push(plain(changelog, Some(key), sealed.meta.encode_to_vec()));
        prepared.commit.parts.push(Part {
            input,
            position: held.task.position(),
            records,
        });
    }
    Ok(prepared)
}

/// Takes the effects of a task, and turns them into records at once, since rows take much more memory than
/// their records. The headers `made` go with each row.
fn take(
    work: &mut Work,
    input: TopicPartition,
    made: &[Header; 2],
    quarantines: bool,
    prepared: &mut Prepared,
) -> Option<Taken> {
    let changelog = Stage::changelog_of(input)?;
    let held = work.tasks.get_mut(input)?;
    let Effects {
        changes,
        rows,
        deltas,
        quarantined,
        touched,
    } = held.task.take(&work.rules);
    let count = changes.len() + rows.len() + quarantined.len() + PART_RECORDS_USUAL;
    let mut records = Vec::with_capacity(count);
    records.extend(changes.into_iter().map(|change| changed(changelog, change)));
    let kept = quarantined.into_iter().filter(|_| quarantines);
    records.extend(kept.map(|record| quarantine(input, record)));
    records.extend(rows.iter().map(|row| derived(input, row, made)));
    // The timestamp and the latest final windows of a deltas partition move on even if no series changed.
    if held.task.series().is_some() {
        prepared.touched.push((input.partition, touched));
    }
    let hidden = rows.len().saturating_sub(View::RECENT_MAX);
    let shown = rows.into_iter().skip(hidden).filter_map(Row::into_session);
    prepared.rows.extend(shown);
    Some(Taken {
        input,
        changelog,
        deltas,
        records,
    })
}

/// Shows and counts what a commit made true, after the log has confirmed it.
pub fn done<L: Log>(
    work: &mut Work,
    log: &mut L,
    positions: Vec<(TopicPartition, Position)>,
    prepared: Prepared,
    (view, status): (&View, &Arc<Status>),
) {
    telemetry::transaction("committed");
    for (label, values) in prepared.overflow {
        telemetry::label_overflow(label, values);
    }
    let touched = prepared.touched.iter().map(|(partition, _)| *partition);
    observe::committed(&mut work.tasks, log.wall_ms(), touched);
    for (input, position) in positions {
        if let Some(held) = work.tasks.get_mut(input) {
            held.committed = position;
        }
    }
    show(work, view, status, prepared.touched, &prepared.rows);
}

/// Proposes the label values that have no verdict yet, those of all tasks at once, and reads the verdicts.
fn admit_labels<'d, L: Log>(
    work: &mut Work,
    log: &mut L,
    deltas: impl Iterator<Item = &'d RawDeltas> + Clone,
) -> Result<(), RunError> {
    let unknown = |work: &Work| -> BTreeSet<(String, String)> {
        deltas
            .clone()
            .flat_map(|deltas| work.labels.proposals(deltas))
            .collect()
    };
    let proposals = unknown(work);
    if proposals.is_empty() {
        return Ok(());
    }
    let to = TopicPartition {
        topic: Topic::Labels,
        partition: 0,
    };
    let records = proposals
        .into_iter()
        .map(|(key, value)| plain(to, Some(key), value.into_bytes()))
        .collect();
    log.append(records)?;
    work.labels_next = read_labels(log, &mut work.labels, work.labels_next)?;
    let undecided = unknown(work).len();
    if undecided > 0 {
        let reason = format!(
            "{undecided} proposed labels can't be read back from {}",
            Topic::Labels.name()
        );
        return Err(LogError::unavailable(reason).into());
    }
    Ok(())
}

fn plain(to: TopicPartition, key: Option<String>, value: Vec<u8>) -> NewRecord {
    NewRecord {
        to,
        key: key.map(Bytes::from),
        value: Some(value.into()),
        headers: Vec::new(),
    }
}

fn changed(to: TopicPartition, change: Change) -> NewRecord {
    NewRecord {
        to,
        key: Some(change.key.into()),
        value: change.value.map(Bytes::from),
        headers: Vec::new(),
    }
}

fn quarantine(input: TopicPartition, record: Quarantined) -> NewRecord {
    let origin = format!("{input}@{}", record.offset);
    let tenant = split_raw_key(&record.key).0.to_owned();
    let headers = [
        (HEADER_REASON, Bytes::from(record.reason)),
        (HEADER_ORIGIN, Bytes::from(origin)),
        (HEADER_TENANT, Bytes::from(tenant)),
        (HEADER_KEY, Bytes::from(record.key)),
    ];
    NewRecord {
        to: TopicPartition {
            topic: Topic::Quarantine,
            partition: 0,
        },
        key: Some(Bytes::from(record.reason)),
        value: Some(record.value.into()),
        headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
    }
}

/// The record of a row, for the partition with the number of the input partition that the row follows from.
/// When and by which semantics the row was made is in the headers `made`, so that values of equal rows are equal.
fn derived(input: TopicPartition, row: &Row, made: &[Header; 2]) -> NewRecord {
    NewRecord {
        to: TopicPartition {
            topic: row.topic(),
            partition: input.partition,
        },
        key: Some(row.key().into()),
        value: Some(row.encode().into()),
        headers: made.to_vec(),
    }
}

fn show(
    work: &Work,
    view: &View,
    status: &Arc<Status>,
    touched: Vec<(i32, BTreeSet<String>)>,
    rows: &[SessionRow],
) {
    for (partition, series) in touched {
        let (Some(task), Some(mut shown)) =
            (work.tasks.series(partition), view.partitions.get_mut(&partition))
        else {
            continue;
        };
        if !shown.is_of(status) {
            continue;
        }
        shown.timestamp = task.timestamp();
        shown.latest_final = task.latest_final(&work.rules);
        for key in series {
            let value = Shown {
                total: task.total(&key).cloned(),
                last_final: task.last_final(&key),
            };
            if value == Shown::default() {
                shown.series.remove(&key);
            } else {
                shown.series.insert(key, value);
            }
        }
    }
    show_rows(view, rows);
}

fn show_rows(view: &View, rows: &[SessionRow]) {
    // The page keeps the last rows only, so no others are turned into JSON.
    for row in &rows[rows.len().saturating_sub(View::RECENT_MAX)..] {
        match serde_json::to_value(row) {
            Ok(json) => view.session(&row.key(), json),
            Err(error) => tracing::error!(%error, "a session row can't be shown"),
        }
    }
}

/// Shows the restored state of input partitions: all series, and the latest sessions.
pub fn show_restored(work: &Work, inputs: &[TopicPartition], view: &View, status: &Arc<Status>) {
    let mut series = Vec::new();
    let mut rows: Vec<SessionRow> = Vec::new();
    for task in inputs.iter().filter_map(|input| work.tasks.get(*input)) {
        if let Some(task) = task.series() {
            let shown = PartitionView {
                worker: Some(Arc::clone(status)),
                ..PartitionView::default()
            };
            view.partitions.insert(task.partition(), shown);
            series.push((task.partition(), task.keys().map(str::to_owned).collect()));
        }
        if let Some(task) = task.sessions() {
            rows.extend(task.latest_rows(ROWS_RESTORED));
        }
    }
    rows.sort_by_key(|row| row.last_event_ms);
    show(work, view, status, series, &rows);
}

/// The committed positions of input partitions whose topic deletes consumed records.
pub fn consumed(tasks: &Tasks) -> Vec<(TopicPartition, Position)> {
    let is_consumed = |(input, held): &(TopicPartition, &Held)| {
        input.topic.def().cleanup == Cleanup::Consumed && held.committed.0 > 0
    };
    tasks
        .iter()
        .filter(is_consumed)
        .map(|(input, held)| (input, held.committed))
        .collect()
}
