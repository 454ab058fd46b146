//! State from the log: settings, labels, and each task from its changelog.
//!
//! The order is: control, labels; then, sixteen partitions side by side, (1) the group's committed positions,
//! (2) after that the ends of the changelogs, (3) the changelogs up to there. A changelog may be ahead of a
//! position read earlier, never behind one; what was committed in between shows as a mismatch, never as
//! silent loss. (Kafka Streams once shipped the other order: KAFKA-10167.)
//!
//! A restore is done only if the position in the `meta` record is the committed position. Where neither is
//! there it is a first start, from the start of the log, and records that were deleted before count as lost.
//! Anything else stops the worker with a message that names the way out.
//!
//! **Invariant:** a partition is restored before its first record is folded.

use super::control::{self, SeedSource};
use super::pace::Pace;
use super::tasks::Tasks;
use super::ticks::Ticks;
use super::{Options, RunError, Work};
use crate::status::Status;
use crate::telemetry;
use processor_core::{AnyTask, LabelTable, RestoreError};
use processor_log::{Log, LogError};
use prost::Message;
use schemas::id::{Epoch, Position, TopicPartition};
use schemas::settings::SEMANTICS;
use schemas::stage::Stage;
use schemas::state::{Meta, StateKey};
use schemas::topic::Topic;
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// The most label records of one read.
const LABELS_BATCH: usize = 10_000;
/// The most partitions that are restored side by side, since their changelogs are held in memory beside the
/// state that is built from them.
const TOGETHER_MAX: usize = 16;

/// Makes state with settings and labels, and without partitions.
pub fn begin<L: Log>(log: &mut L, seed: &SeedSource, options: &Options) -> Result<Work, RunError> {
    let control::Loaded {
        rules,
        follower: control,
        derivation_id,
    } = control::load(log, seed, &options.derived_prefix)?;
    let mut labels = LabelTable::new(&rules.seed);
    let labels_next = read_labels(log, &mut labels, Position(0))?;
    let ticks = Ticks::new(rules.seed.time.mark_ms);
    Ok(Work {
        rules,
        labels,
        labels_next,
        control,
        control_read_ms: log.wall_ms(),
        tasks: Tasks::default(),
        ticks,
        backlog: VecDeque::new(),
        pace: Pace::new(options),
        began: Instant::now(),
        trimmed_ms: log.wall_ms(),
        observed_ms: 0,
        derivation_id,
    })
}

/// Rebuilds the tasks of input partitions, and lets polls give out their records from the positions of the
/// tasks on.
pub fn tasks<L: Log>(
    work: &mut Work,
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
            let stage = stage_of(input)?;
            let changelog = changelog_of(input)?;
            let entries = changelogs.remove(&changelog).unwrap_or_default();
            let saved = saved(log, (input, changelog), committed, entries)?;
            let mut task = task(work, log, (stage, input, changelog), saved)?;
            skip_lost(log, input, &mut task)?;
            from.push((input, task.position()));
            if stage.def().ticked {
                work.ticks.watch(input, log.wall_ms());
            }
            work.tasks.insert(input, task);
        }
    }
    log.take_over(&from)?;
    telemetry::restored(began.elapsed());
    Ok(())
}

/// Goes on behind raw records that were deleted before they were folded: they are lost, and counted.
fn skip_lost<L: Log>(log: &mut L, input: TopicPartition, task: &mut AnyTask) -> Result<(), RunError> {
    if !task.stage().def().ticked {
        return Ok(());
    }
    let (position, start) = (task.position(), log.extent(input)?.start);
    if start > position && task.skip_to(start) {
        let records = start.0.abs_diff(position.0);
        tracing::error!(%input, from = position.0, until = start.0, "raw records were deleted before they were folded: they are lost");
        telemetry::lost(input.topic.name(), input.partition, records);
    }
    Ok(())
}

fn stage_of(input: TopicPartition) -> Result<Stage, RunError> {
    Stage::of_input(input.topic).ok_or(RunError::NoInput { at: input })
}

fn changelog_of(input: TopicPartition) -> Result<TopicPartition, RunError> {
    Stage::changelog_of(input).ok_or(RunError::NoInput { at: input })
}

fn task<L: Log>(
    work: &mut Work,
    log: &mut L,
    (stage, input, changelog): (Stage, TopicPartition, TopicPartition),
    saved: Saved,
) -> Result<AnyTask, RunError> {
    let failed = |source| RunError::Restore {
        at: changelog,
        source,
    };
    match saved {
        Saved::Nothing(start) => Ok(AnyTask::new(stage, input, &work.rules, start)),
        Saved::State(meta, entries) => {
            if meta.semantics != SEMANTICS {
                return Err(RunError::Semantics {
                    at: changelog,
                    found: meta.semantics,
                });
            }
            control::wait_for(work, log, Epoch(meta.epoch))?;
            let parsed: Result<Vec<_>, _> = entries
                .iter()
                .map(|(key, value)| Ok((StateKey::parse(key)?, value.as_slice())))
                .collect();
            let parsed = parsed.map_err(RestoreError::Key).map_err(failed)?;
            AnyTask::restore(stage, input, &work.rules, &meta, parsed).map_err(failed)
        }
    }
}

/// The latest values of a changelog partition, by key.
type Entries = BTreeMap<String, Vec<u8>>;

/// What is committed for an input partition.
enum Saved {
    /// Nothing is committed: it is a first start, at the start of the log, which is this position.
    Nothing(Position),
    /// There is state: the meta record, and the other entries.
    State(Meta, Entries),
}

fn saved<L: Log>(
    log: &mut L,
    (input, changelog): (TopicPartition, TopicPartition),
    committed: Option<Position>,
    mut entries: Entries,
) -> Result<Saved, RunError> {
    let meta_key = StateKey::Meta.to_string();
    let meta = match entries.remove(&meta_key) {
        None => None,
        Some(bytes) => Some(
            Meta::decode(bytes.as_slice()).map_err(|source| RunError::Restore {
                at: changelog,
                source: RestoreError::Entry {
                    key: meta_key,
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
        (Some(position), Some(meta)) if meta.position == position.0 => Ok(Saved::State(meta, entries)),
        (committed, meta) => Err(RunError::Mismatch {
            input,
            changelog,
            committed: committed.map(|position| position.0),
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
    let changelogs: Vec<TopicPartition> = inputs
        .iter()
        .filter_map(|input| Stage::changelog_of(*input))
        .collect();
    log.read_all(&changelogs, &mut |record| {
        status.beat();
        let entries = found.entry(record.from).or_default();
        match (record.key.as_deref().map(std::str::from_utf8), record.value) {
            (Some(Ok(key)), Some(value)) => drop(entries.insert(key.to_owned(), value.to_vec())),
            (Some(Ok(key)), None) => drop(entries.remove(key)),
            (Some(Err(_)) | None, _) => {
                foreign = Some(RunError::Foreign {
                    at: record.from,
                    offset: record.offset,
                })
            }
        }
    })?;
    foreign.map_or(Ok(found), Err)
}

/// Applies the records of the labels topic from `from` to its end, and gives the position at the end.
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
            if let (Some(key), Some(value)) = (text(&record.key), text(&record.value)) {
                labels.apply(key, value);
            }
        }
        from = batch.next;
    }
    Ok(from)
}

fn text(bytes: &Option<bytes::Bytes>) -> Option<&str> {
    std::str::from_utf8(bytes.as_deref()?).ok()
}
