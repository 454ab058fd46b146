//! One commit: effects as records, everything in one atomic step, and only then what people see.

use super::observe;
use super::restore::read_labels;
use super::{RunError, State, is_due};
use crate::status::Status;
use crate::telemetry;
use crate::view::{PartitionView, Shown, View};
use bytes::Bytes;
use processor_core::SeriesTask;
use processor_core::labels::DeltaMap;
use processor_core::session::Quarantined;
use processor_log::{Commit, Log, LogError};
use prost::Message;
use schemas::changelog::{Change, META_KEY, Meta};
use schemas::derived::{SessionRow, WindowRow};
use schemas::id::{Position, TopicPartition, split_raw_key};
use schemas::record::{HEADER_KEY, HEADER_ORIGIN, HEADER_PROCESSED, HEADER_REASON, HEADER_TENANT, NewRecord};
use schemas::time::AppendTime;
use schemas::topic::Topic;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How often consumed deltas are deleted.
const TRIM_EVERY_MS: u64 = 10_000;
/// Records of a part beside its changes and rows: deltas and the meta record.
const TARGETS_USUAL: usize = 16;
/// How many rows the page is given at a restart.
const ROWS_RESTORED: usize = View::RECENT_MAX;

/// A commit and what becomes visible after it.
pub struct Prepared {
    /// What the log is given.
    pub step: Commit,
    /// For each position of the step, the records that belong to it: where they begin, each part up to the next one.
    parts: Vec<usize>,
    rows: Vec<SessionRow>,
    /// Changed series by deltas partition.
    touched: Vec<(i32, BTreeSet<String>)>,
    /// Values that were shown as `other`, by label.
    overflow: Vec<(&'static str, u64)>,
}

impl Prepared {
    fn part(&mut self, input: TopicPartition, position: i64, records: impl IntoIterator<Item = NewRecord>) {
        self.parts.push(self.step.records.len());
        self.step.positions.push((input, Position(position)));
        self.step.records.extend(records);
    }

    /// Takes out all that belongs to input partitions that are no longer ours.
    pub fn leave_out(&mut self, lost: &[TopicPartition]) {
        let ends: Vec<usize> = self
            .parts
            .iter()
            .skip(1)
            .copied()
            .chain([self.step.records.len()])
            .collect();
        let mut records = std::mem::take(&mut self.step.records).into_iter();
        let positions = std::mem::take(&mut self.step.positions);
        let starts = std::mem::take(&mut self.parts);
        for ((input, position), (start, end)) in positions.into_iter().zip(starts.into_iter().zip(ends)) {
            let part: Vec<NewRecord> = records.by_ref().take(end - start).collect();
            if !lost.contains(&input) {
                self.part(input, position.0, part);
            }
        }
        self.touched.retain(|(partition, _)| {
            !lost.contains(&TopicPartition {
                topic: Topic::Deltas,
                partition: *partition,
            })
        });
    }
}

/// Everything folded since the last commit, as records.
pub fn prepare<L: Log>(state: &mut State, log: &mut L) -> Result<Prepared, RunError> {
    let mut prepared = Prepared {
        step: Commit::default(),
        parts: Vec::new(),
        rows: Vec::new(),
        touched: Vec::new(),
        overflow: Vec::new(),
    };
    let changelog = |partition| TopicPartition {
        topic: Topic::SessionsChangelog,
        partition,
    };
    let wall = Bytes::from(log.wall_ms().to_string());
    let writer = log.writer().to_owned();
    let mut taken = Vec::new();
    for partition in moved(state, Topic::RawLogs) {
        let Some(task) = state.sessions.get_mut(&partition) else {
            continue;
        };
        let effects = task.take(&state.rules);
        // At once, one partition after the other: rows are large, and the next ones' take the same place.
        let mut records = Vec::with_capacity(
            effects.changes.len() + effects.rows.len() + effects.quarantined.len() + TARGETS_USUAL,
        );
        records.extend(
            effects
                .changes
                .into_iter()
                .map(|change| changed(changelog(partition), change)),
        );
        records.extend(
            effects
                .quarantined
                .into_iter()
                .map(|record| quarantined(partition, record)),
        );
        records.extend(effects.rows.iter().map(|row| session_row(partition, row, &wall)));
        let hidden = effects.rows.len().saturating_sub(View::RECENT_MAX);
        prepared.rows.extend(effects.rows.into_iter().skip(hidden));
        taken.push((partition, effects.deltas, records));
    }
    admit_labels(state, log, taken.iter().map(|(_, deltas, _)| deltas))?;
    for (partition, deltas, mut records) in taken {
        prepared.overflow.extend(state.labels.overflow(&deltas));
        let resolved = state.labels.resolve(deltas);
        let Some(task) = state.sessions.get_mut(&partition) else {
            continue;
        };
        for (target, record) in task.seal(resolved, &state.rules) {
            records.push(plain(
                TopicPartition {
                    topic: Topic::Deltas,
                    partition: target,
                },
                None,
                record.encode_to_vec(),
            ));
        }
        records.push(meta(changelog(partition), &task.meta(&writer, &state.rules)));
        prepared.part(
            TopicPartition {
                topic: Topic::RawLogs,
                partition,
            },
            task.position(),
            records,
        );
    }
    for partition in moved(state, Topic::Deltas) {
        let Some(task) = state.series.get_mut(&partition) else {
            continue;
        };
        let effects = task.take();
        let changelog = TopicPartition {
            topic: Topic::SeriesChangelog,
            partition,
        };
        let mut records: Vec<NewRecord> = effects
            .changes
            .into_iter()
            .map(|change| changed(changelog, change))
            .collect();
        records.push(meta(changelog, &task.meta(&writer, &state.rules)));
        records.extend(
            effects
                .rows
                .iter()
                .map(|(topic, row)| window_row(*topic, partition, row, &wall)),
        );
        prepared.part(
            TopicPartition {
                topic: Topic::Deltas,
                partition,
            },
            task.position(),
            records,
        );
        prepared.touched.push((partition, effects.touched));
    }
    Ok(prepared)
}

/// After the log has taken a commit, whose `positions` say up to where: shows what it made true.
pub fn done<L: Log>(
    state: &mut State,
    log: &mut L,
    positions: Vec<(TopicPartition, Position)>,
    prepared: Prepared,
    (view, status): (&View, &Arc<Status>),
) -> Result<(), RunError> {
    telemetry::transaction("committed");
    prepared
        .overflow
        .into_iter()
        .for_each(|(label, values)| telemetry::label_overflow(label, values));
    observe::committed(
        state,
        log.wall_ms(),
        prepared.touched.iter().map(|(partition, _)| *partition),
    );
    for (at, position) in positions {
        state.committed.insert(at, position.0);
    }
    state.pending = 0;
    state.pending_since = None;
    (state.newest, state.lags) = (None, false);
    show(state, view, status, prepared.touched, &prepared.rows);
    trim(state, log)?;
    Ok(())
}

/// The partitions of a topic whose tasks are ahead of what is committed.
fn moved(state: &State, topic: Topic) -> Vec<i32> {
    let ahead = |partition: i32, position: i64| {
        state.committed.get(&TopicPartition { topic, partition }) != Some(&position)
    };
    match topic {
        Topic::RawLogs => state
            .sessions
            .iter()
            .filter(|(p, task)| ahead(**p, task.position()))
            .map(|(p, _)| *p)
            .collect(),
        _ => state
            .series
            .iter()
            .filter(|(p, task)| ahead(**p, task.position()))
            .map(|(p, _)| *p)
            .collect(),
    }
}

/// Proposes the values that have no verdict yet, those of all partitions at once, and reads the verdicts back.
fn admit_labels<'d, L: Log>(
    state: &mut State,
    log: &mut L,
    deltas: impl Iterator<Item = &'d DeltaMap> + Clone,
) -> Result<(), RunError> {
    let unknown = |state: &State| -> BTreeSet<(String, String)> {
        deltas
            .clone()
            .flat_map(|deltas| state.labels.proposals(deltas))
            .collect()
    };
    let proposals = unknown(state);
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
    state.labels_next = read_labels(log, &mut state.labels, state.labels_next)?;
    let undecided = unknown(state).len();
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

fn meta(to: TopicPartition, meta: &Meta) -> NewRecord {
    plain(to, Some(META_KEY.to_owned()), meta.encode_to_vec())
}

fn quarantined(partition: i32, record: Quarantined) -> NewRecord {
    let origin = format!("{}/{partition}@{}", Topic::RawLogs.name(), record.offset);
    NewRecord {
        to: TopicPartition {
            topic: Topic::Quarantine,
            partition: 0,
        },
        key: Some(Bytes::from(record.reason)),
        value: Some(record.value.into()),
        headers: [
            (HEADER_REASON, Bytes::from(record.reason)),
            (HEADER_ORIGIN, Bytes::from(origin)),
            (
                HEADER_TENANT,
                Bytes::from(split_raw_key(&record.key).0.to_owned()),
            ),
            (HEADER_KEY, Bytes::from(record.key)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
    }
}

fn session_row(partition: i32, row: &SessionRow, wall: &Bytes) -> NewRecord {
    let to = TopicPartition {
        topic: Topic::Sessions,
        partition,
    };
    derived(to, row_key(row), row.encode(), wall)
}

/// The key of a session's row: tenant, conversation, segment.
fn row_key(row: &SessionRow) -> String {
    format!("{}/{}/{}", row.tenant, row.conversation_id, row.segment_start_ms)
}

fn window_row(topic: Topic, partition: i32, row: &WindowRow, wall: &Bytes) -> NewRecord {
    derived(
        TopicPartition { topic, partition },
        row.series(),
        row.encode(),
        wall,
    )
}

/// A row with the facts about its making in headers, where comparisons do not look.
fn derived(to: TopicPartition, key: String, value: Vec<u8>, wall: &Bytes) -> NewRecord {
    let headers = vec![(HEADER_PROCESSED.to_owned(), wall.clone())];
    NewRecord {
        to,
        key: Some(key.into()),
        value: Some(value.into()),
        headers,
    }
}

fn show(
    state: &State,
    view: &View,
    status: &Arc<Status>,
    touched: Vec<(i32, BTreeSet<String>)>,
    rows: &[SessionRow],
) {
    for (partition, series) in touched {
        let (Some(task), Some(mut shown)) =
            (state.series.get(&partition), view.partitions.get_mut(&partition))
        else {
            continue;
        };
        if !shown.is_of(status) {
            continue;
        }
        shown.timestamp = AppendTime(task.timestamp());
        shown.latest_final = task.latest_final(&state.rules);
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
    // The page keeps no more: those before would be made for nothing.
    for row in &rows[rows.len().saturating_sub(View::RECENT_MAX)..] {
        match serde_json::to_value(row) {
            Ok(json) => view.session(&row_key(row), json),
            Err(error) => tracing::error!(%error, "a session row can't be shown"),
        }
    }
}

/// Shows the restored state of input partitions: all of it, and the latest sessions.
pub fn show_restored(state: &State, inputs: &[TopicPartition], view: &View, status: &Arc<Status>) {
    let of = |topic| {
        inputs
            .iter()
            .filter(move |at| at.topic == topic)
            .map(|at| at.partition)
    };
    let mut series = Vec::new();
    for (partition, task) in
        of(Topic::Deltas).filter_map(|partition| Some((partition, state.series.get(&partition)?)))
    {
        view.partitions.insert(
            partition,
            PartitionView {
                worker: Some(Arc::clone(status)),
                ..PartitionView::default()
            },
        );
        series.push((partition, task.keys().map(str::to_owned).collect()));
    }
    let tasks = of(Topic::RawLogs).filter_map(|partition| state.sessions.get(&partition));
    let mut rows: Vec<SessionRow> = tasks.flat_map(|task| task.latest_rows(ROWS_RESTORED)).collect();
    rows.sort_by_key(|row| row.last_event_ms);
    show(state, view, status, series, &rows);
}

/// Deletes the deltas that are merged and committed, now and then.
fn trim<L: Log>(state: &mut State, log: &mut L) -> Result<(), RunError> {
    let now = log.wall_ms();
    if !is_due(now, state.trimmed_ms, TRIM_EVERY_MS) {
        return Ok(());
    }
    state.trimmed_ms = now;
    let merged = |task: &SeriesTask| {
        (
            TopicPartition {
                topic: Topic::Deltas,
                partition: task.partition(),
            },
            Position(task.position()),
        )
    };
    let before: Vec<_> = state
        .series
        .values()
        .filter(|task| task.position() > 0)
        .map(merged)
        .collect();
    Ok(log.trim(&before)?)
}
