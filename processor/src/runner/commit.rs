//! One commit: effects as records, everything in one atomic step, and only then what people see.

use super::observe;
use super::restore::read_labels;
use super::{RunError, State, is_due};
use crate::log::{Commit, Log, LogError};
use crate::telemetry;
use crate::view::{Shown, View};
use bytes::Bytes;
use processor_core::session::Quarantined;
use prost::Message;
use schemas::changelog::{Change, META_KEY, Meta};
use schemas::derived::{SessionRow, WindowRow};
use schemas::id::{Position, TopicPartition};
use schemas::record::{HEADER_ORIGIN, HEADER_PROCESSED, HEADER_REASON, NewRecord};
use schemas::time::AppendTime;
use schemas::topic::Topic;
use std::collections::BTreeSet;

/// How often consumed deltas are deleted.
const TRIM_EVERY_MS: u64 = 10_000;
/// How many rows the page is given at a restart.
const ROWS_RESTORED: usize = View::RECENT_MAX;

/// Commits everything folded since the last commit.
pub fn commit<L: Log>(state: &mut State, log: &mut L, view: &View) -> Result<(), RunError> {
    let mut step = Commit::default();
    let mut rows = Vec::new();
    let mut overflow = Vec::new();
    let wall_ms = log.wall_ms();
    let writer = log.writer().to_owned();
    for partition in moved(state, Topic::RawLogs) {
        let effects = match state.sessions.get_mut(&partition) {
            Some(task) => task.take(&state.rules),
            None => continue,
        };
        admit_labels(state, log, &effects.deltas)?;
        overflow.push(state.labels.overflow(&effects.deltas));
        let resolved = state.labels.resolve(effects.deltas);
        let Some(task) = state.sessions.get_mut(&partition) else { continue };
        let changelog = TopicPartition { topic: Topic::SessionsChangelog, partition };
        for (target, record) in task.seal(resolved, &state.rules) {
            step.records.push(plain(TopicPartition { topic: Topic::Deltas, partition: target }, None, record.encode_to_vec()));
        }
        step.records.extend(effects.changes.into_iter().map(|change| changed(changelog, change)));
        step.records.push(meta(changelog, &task.meta(&writer, &state.rules)));
        step.records.extend(effects.quarantined.into_iter().map(|record| quarantined(partition, record)));
        step.records.extend(effects.rows.iter().map(|row| session_row(partition, row, wall_ms)));
        rows.extend(effects.rows);
        step.positions.push((TopicPartition { topic: Topic::RawLogs, partition }, Position(task.position())));
    }
    let mut touched = Vec::new();
    for partition in moved(state, Topic::Deltas) {
        let Some(task) = state.series.get_mut(&partition) else { continue };
        let effects = task.take();
        let changelog = TopicPartition { topic: Topic::SeriesChangelog, partition };
        step.records.extend(effects.changes.into_iter().map(|change| changed(changelog, change)));
        step.records.push(meta(changelog, &task.meta(&writer, &state.rules)));
        step.records.extend(effects.rows.iter().map(|(topic, row)| window_row(*topic, partition, row, wall_ms)));
        step.positions.push((TopicPartition { topic: Topic::Deltas, partition }, Position(task.position())));
        touched.push((partition, effects.touched));
    }
    let positions = step.positions.clone();
    log.commit(step)?;
    telemetry::transaction(true);
    overflow.into_iter().flatten().for_each(|(label, values)| telemetry::label_overflow(label, values));
    observe::committed(state, log.wall_ms(), touched.iter().map(|(partition, _)| *partition));
    for (at, position) in positions {
        state.committed.insert(at, position.0);
    }
    state.pending = 0;
    state.pending_since = None;
    show(state, view, touched, &rows);
    trim(state, log)?;
    Ok(())
}

/// The partitions of a topic whose tasks are ahead of what is committed.
fn moved(state: &State, topic: Topic) -> Vec<i32> {
    let ahead = |partition: i32, position: i64| state.committed.get(&TopicPartition { topic, partition }) != Some(&position);
    match topic {
        Topic::RawLogs => state.sessions.iter().filter(|(p, task)| ahead(**p, task.position())).map(|(p, _)| *p).collect(),
        _ => state.series.iter().filter(|(p, task)| ahead(**p, task.position())).map(|(p, _)| *p).collect(),
    }
}

/// Proposes the values that have no verdict yet, and reads the verdicts back.
fn admit_labels<L: Log>(state: &mut State, log: &mut L, deltas: &processor_core::labels::DeltaMap) -> Result<(), RunError> {
    let proposals = state.labels.proposals(deltas);
    if proposals.is_empty() {
        return Ok(());
    }
    let to = TopicPartition { topic: Topic::Labels, partition: 0 };
    let records = proposals.into_iter().map(|(key, value)| plain(to, Some(key), value.into_bytes())).collect();
    log.append(records)?;
    state.labels_next = read_labels(log, &mut state.labels, state.labels_next)?;
    let undecided = state.labels.proposals(deltas).len();
    if undecided > 0 {
        let reason = format!("{undecided} proposed labels can't be read back from {}", Topic::Labels.name());
        return Err(LogError::Unavailable { reason }.into());
    }
    Ok(())
}

fn plain(to: TopicPartition, key: Option<String>, value: Vec<u8>) -> NewRecord {
    NewRecord { to, key: key.map(Bytes::from), value: Some(value.into()), headers: Vec::new() }
}

fn changed(to: TopicPartition, change: Change) -> NewRecord {
    NewRecord { to, key: Some(change.key.into()), value: change.value.map(Bytes::from), headers: Vec::new() }
}

fn meta(to: TopicPartition, meta: &Meta) -> NewRecord {
    plain(to, Some(META_KEY.to_owned()), meta.encode_to_vec())
}

fn quarantined(partition: i32, record: Quarantined) -> NewRecord {
    let origin = format!("{}/{partition}@{}", Topic::RawLogs.name(), record.offset);
    NewRecord {
        to: TopicPartition { topic: Topic::Quarantine, partition: 0 },
        key: Some(record.key.into()),
        value: Some(record.value.into()),
        headers: vec![(HEADER_REASON.to_owned(), Bytes::from(record.reason)), (HEADER_ORIGIN.to_owned(), Bytes::from(origin))],
    }
}

fn session_row(partition: i32, row: &SessionRow, wall_ms: i64) -> NewRecord {
    let to = TopicPartition { topic: Topic::Sessions, partition };
    derived(to, row_key(row), row.encode(), wall_ms)
}

/// The key of a session's row: tenant, conversation, segment.
fn row_key(row: &SessionRow) -> String {
    format!("{}/{}/{}", row.tenant, row.conversation_id, row.segment_start_ms)
}

fn window_row(topic: Topic, partition: i32, row: &WindowRow, wall_ms: i64) -> NewRecord {
    derived(TopicPartition { topic, partition }, row.series(), row.encode(), wall_ms)
}

/// A row with the facts about its making in headers, where comparisons do not look.
fn derived(to: TopicPartition, key: String, value: Vec<u8>, wall_ms: i64) -> NewRecord {
    let headers = vec![(HEADER_PROCESSED.to_owned(), Bytes::from(wall_ms.to_string()))];
    NewRecord { to, key: Some(key.into()), value: Some(value.into()), headers }
}

fn show(state: &State, view: &View, touched: Vec<(i32, BTreeSet<String>)>, rows: &[SessionRow]) {
    for (partition, series) in touched {
        let Some(task) = state.series.get(&partition) else { continue };
        let mut shown = view.partitions.entry(partition).or_default();
        shown.timestamp = AppendTime(task.timestamp());
        shown.latest_final = task.latest_final(&state.rules);
        for key in series {
            let value = Shown { total: task.total(&key).cloned(), last_final: task.last_final(&key) };
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
    for row in rows {
        match serde_json::to_value(row) {
            Ok(json) => view.session(&row_key(row), json),
            Err(error) => tracing::error!(%error, "a session row can't be shown"),
        }
    }
}

/// Shows the restored state: all of it, and the latest sessions.
pub fn show_restored(state: &State, view: &View) {
    let all = |(partition, task): (&i32, &processor_core::SeriesTask)| (*partition, task.keys().map(str::to_owned).collect());
    view.partitions.clear();
    let mut rows: Vec<SessionRow> = state.sessions.values().flat_map(|task| task.latest_rows(ROWS_RESTORED)).collect();
    rows.sort_by_key(|row| row.last_event_ms);
    show(state, view, state.series.iter().map(all).collect(), &rows);
}

/// Deletes the deltas that are merged and committed, now and then.
fn trim<L: Log>(state: &mut State, log: &mut L) -> Result<(), RunError> {
    let now = log.wall_ms();
    if !is_due(now, state.trimmed_ms, TRIM_EVERY_MS) {
        return Ok(());
    }
    state.trimmed_ms = now;
    for task in state.series.values().filter(|task| task.position() > 0) {
        log.trim(TopicPartition { topic: Topic::Deltas, partition: task.partition() }, Position(task.position()))?;
    }
    Ok(())
}
