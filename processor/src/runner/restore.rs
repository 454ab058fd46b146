//! State from the log: settings, labels, and each task from its changelog.
//!
//! Order matters: the committed position first, then the end of the changelog, then the changelog up to there. A
//! changelog may be ahead of a position read earlier, never behind one; what was committed in between shows as a
//! mismatch, never as silent loss. (Kafka Streams once shipped the other order: KAFKA-10167.)

use super::control::{self, SeedSource};
use super::ticks::Ticks;
use super::{RunError, State};
use crate::status::Status;
use crate::telemetry;
use processor_core::{LabelTable, RestoreError, SeriesTask, SessionTask};
use processor_log::{Log, LogError, changelog_of};
use prost::Message;
use schemas::changelog::{META_KEY, Meta};
use schemas::id::{Position, TopicPartition};
use schemas::topic::Topic;
use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

/// How many label records one read takes.
const LABELS_BATCH: usize = 10_000;
/// How many partitions are restored side by side: their changelogs are held beside the state that is built from them.
const TOGETHER_MAX: usize = 16;

/// Settings and labels, and no partition yet.
pub fn begin<L: Log>(log: &mut L, seed: &SeedSource) -> Result<State, RunError> {
    let (rules, control) = control::load(log, seed)?;
    let mut labels = LabelTable::new(&rules.seed);
    let labels_next = read_labels(log, &mut labels, Position(0))?;
    let ticks = Ticks::new(rules.seed.time.mark_ms);
    Ok(State {
        rules,
        labels,
        labels_next,
        control,
        control_read_ms: log.wall_ms(),
        committed: BTreeMap::new(),
        sessions: BTreeMap::new(),
        series: BTreeMap::new(),
        ticks,
        pending: 0,
        pending_since: None,
        newest: None,
        lags: false,
        commit_began: None,
        commit_took: Duration::ZERO,
        trimmed_ms: log.wall_ms(),
        observed_ms: 0,
        held: BTreeMap::new(),
    })
}

/// Rebuilds the tasks of these input partitions, and lets the log's poll give them out from where their state ends.
pub fn tasks<L: Log>(
    state: &mut State,
    log: &mut L,
    inputs: &[TopicPartition],
    status: &Status,
) -> Result<(), RunError> {
    let began = Instant::now();
    let mut from = Vec::with_capacity(inputs.len());
    for inputs in inputs.chunks(TOGETHER_MAX) {
        let committed = log.committed(inputs)?;
        let mut changelogs = read_changelogs(log, inputs, status)?;
        for (&input, committed) in inputs.iter().zip(committed) {
            status.beat();
            let entries = changelogs.remove(&changelog_of(input)).unwrap_or_default();
            let saved = saved(log, input, committed.map(|position| position.0), entries)?;
            let position = match input.topic {
                Topic::RawLogs => session_task(state, log, input, saved)?,
                _ => series_task(state, input, saved)?,
            };
            state.committed.insert(input, position);
            from.push((input, Position(position)));
        }
    }
    log.take_over(&from)?;
    telemetry::restored(began.elapsed());
    Ok(())
}

fn session_task<L: Log>(
    state: &mut State,
    log: &mut L,
    input: TopicPartition,
    saved: Saved,
) -> Result<i64, RunError> {
    let partition = input.partition;
    let task = match saved {
        Saved::Nothing(start) => SessionTask::new(partition, &state.rules, start.0),
        Saved::State(meta, entries) => {
            control::wait_for(state, log, meta.epoch)?;
            SessionTask::restore(partition, &state.rules, &meta, borrowed(&entries)).map_err(|source| {
                RunError::Restore {
                    at: changelog_of(input),
                    source,
                }
            })?
        }
    };
    let position = task.position();
    state.sessions.insert(partition, task);
    state.ticks.watch(partition, log.wall_ms());
    Ok(position)
}

fn series_task(state: &mut State, input: TopicPartition, saved: Saved) -> Result<i64, RunError> {
    let partition = input.partition;
    let task = match saved {
        Saved::Nothing(start) => SeriesTask::new(partition, &state.rules, start.0),
        Saved::State(meta, entries) => {
            SeriesTask::restore(partition, &state.rules, &meta, borrowed(&entries)).map_err(|source| {
                RunError::Restore {
                    at: changelog_of(input),
                    source,
                }
            })?
        }
    };
    let position = task.position();
    state.series.insert(partition, task);
    Ok(position)
}

/// What a changelog says, by key.
type Entries = BTreeMap<String, Vec<u8>>;

/// What was committed for an input partition.
enum Saved {
    /// Nothing: a first start, at the start of the log.
    Nothing(Position),
    /// State of that position.
    State(Meta, Entries),
}

fn saved<L: Log>(
    log: &mut L,
    input: TopicPartition,
    committed: Option<i64>,
    mut entries: Entries,
) -> Result<Saved, RunError> {
    let changelog = changelog_of(input);
    let meta = match entries.remove(META_KEY) {
        None => None,
        Some(bytes) => Some(
            Meta::decode(bytes.as_slice()).map_err(|source| RunError::Restore {
                at: changelog,
                source: RestoreError::Entry {
                    key: META_KEY.to_owned(),
                    source,
                },
            })?,
        ),
    };
    match (committed, meta) {
        (None, None) if entries.is_empty() => {
            let start = log.extent(input)?.start;
            if start.0 > 0 {
                tracing::error!(%input, lost = start.0, "records were deleted before anything was folded");
                telemetry::lost(input.topic.name(), input.partition, start.0.unsigned_abs());
            }
            Ok(Saved::Nothing(start))
        }
        (Some(position), Some(meta)) if meta.position == position => Ok(Saved::State(meta, entries)),
        (committed, meta) => Err(RunError::Mismatch {
            input,
            changelog,
            committed,
            state: meta.map(|meta| meta.position),
        }),
    }
}

fn read_changelogs<L: Log>(
    log: &mut L,
    inputs: &[TopicPartition],
    status: &Status,
) -> Result<BTreeMap<TopicPartition, Entries>, RunError> {
    let mut found: BTreeMap<TopicPartition, Entries> = BTreeMap::new();
    let mut foreign = None;
    let changelogs: Vec<TopicPartition> = inputs.iter().map(|input| changelog_of(*input)).collect();
    log.read_all(&changelogs, &mut |record| {
        status.beat();
        let entries = found.entry(record.from).or_default();
        match (record.key.as_deref().map(std::str::from_utf8), record.value) {
            (Some(Ok(key)), Some(value)) => drop(entries.insert(key.to_owned(), value.to_vec())),
            (Some(Ok(key)), None) => drop(entries.remove(key)),
            _ => {
                foreign = Some(RunError::Foreign {
                    at: record.from,
                    offset: record.offset,
                })
            }
        }
    })?;
    foreign.map_or(Ok(found), Err)
}

fn borrowed(entries: &BTreeMap<String, Vec<u8>>) -> impl Iterator<Item = (&str, &[u8])> {
    entries
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_slice()))
}

/// Takes in the labels topic from `from` to its end; where to go on.
pub fn read_labels<L: Log>(
    log: &mut L,
    labels: &mut LabelTable,
    mut from: Position,
) -> Result<Position, LogError> {
    let at = TopicPartition {
        topic: Topic::Labels,
        partition: 0,
    };
    let end = log.extent(at)?.end;
    while from < end {
        let batch = log.read(at, from, LABELS_BATCH)?;
        for record in &batch.records {
            let text = |bytes: &Option<bytes::Bytes>| {
                bytes
                    .as_deref()
                    .and_then(|bytes| std::str::from_utf8(bytes).ok())
                    .map(str::to_owned)
            };
            if let (Some(key), Some(value)) = (text(&record.key), text(&record.value)) {
                labels.apply(&key, &value);
            }
        }
        from = batch.next;
    }
    Ok(from)
}
