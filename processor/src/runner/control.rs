//! Follows the control topic for the worker: writes the seed of a new log, takes up epochs, and starts them
//! on the partitions that it owns.
//!
//! An epoch reaches a partition as a tick with header `epoch`, so that it begins at one offset of that
//! partition. A worker that does not understand the record of an epoch stops, and one that does not have it
//! yet waits at the tick: it never goes on with older rules.

use super::tasks::Held;
use super::{RunError, Work, is_due};
use bytes::Bytes;
use processor_core::Rules;
use processor_log::control::{self, CONTROL, SEED_KEY};
use processor_log::follow::Follower;
use processor_log::{Log, LogError};
use schemas::control::EpochChange;
use schemas::id::{Epoch, TopicPartition};
use schemas::record::{HEADER_EPOCH, HEADER_TICK, HEADER_WALL, NewRecord, Record};
use schemas::settings::Seed;
use schemas::topic::Topic;
use std::time::{Duration, Instant};

/// How often the control topic is read for new epochs, ms.
const FOLLOW_EVERY_MS: u64 = 500;
/// How long a worker waits for the control record of an epoch that a tick starts.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a worker waits between two reads of the control topic for that record.
const WAIT_STEP: Duration = Duration::from_millis(50);

/// The seed that is written to an empty control topic, with the partition counts that the topics really have.
#[derive(Clone, Debug)]
pub struct SeedSource(pub Seed);

/// What was read from the control topic.
pub struct Loaded {
    /// The seed, and what each epoch changes.
    pub rules: Rules,
    /// The follower of the topic, at the position up to which it was read.
    pub follower: Follower,
    /// The id of this derivation of the log.
    pub derivation_id: String,
}

/// Reads the whole control topic, after writing the seed if the topic is empty.
pub fn load<L: Log>(log: &mut L, source: &SeedSource, derived_prefix: &str) -> Result<Loaded, RunError> {
    let mut follower = Follower::new(CONTROL);
    let mut records = follower.collect(log)?;
    if records.is_empty() {
        let mut seed = source.0.clone();
        seed.raw_partitions = log.partitions(Topic::RawLogs)?;
        seed.delta_partitions = log.partitions(Topic::Deltas)?;
        control::append(log, SEED_KEY, seed.to_json())?;
        // Another worker may have written its seed first: the record at offset 0 is the seed.
        records = follower.collect(log)?;
    }
    let rules = rules_of(&records)?;
    let seed_json = records.first().map_or(&[] as &[u8], value);
    let derivation_id = rules.seed.derivation_id(seed_json, derived_prefix);
    check_counts(log, &rules.seed)?;
    Ok(Loaded {
        rules,
        follower,
        derivation_id,
    })
}

/// The rules of a log by all records of its control topic, in order.
///
/// # Errors
/// The topic is empty, or one of its records can't be followed by this version.
pub fn rules_of(records: &[Record]) -> Result<Rules, RunError> {
    let Some(first) = records.first() else {
        let reason = "the settings that are fixed are not there: `tacho topics apply`, or the first start, writes them";
        return Err(LogError::corrupt(CONTROL.to_string(), reason).into());
    };
    let seed = Seed::from_json(value(first)).map_err(|source| RunError::Settings {
        at: CONTROL,
        offset: first.offset,
        source,
    })?;
    let mut rules = Rules::new(seed);
    for record in records.iter().skip(1) {
        add(&mut rules, record)?;
    }
    Ok(rules)
}

fn check_counts<L: Log>(log: &mut L, seed: &Seed) -> Result<(), RunError> {
    for (topic, pinned) in [
        (Topic::RawLogs, seed.raw_partitions),
        (Topic::Deltas, seed.delta_partitions),
    ] {
        let real = log.partitions(topic)?;
        if real != pinned {
            let fault = format!(
                "has {real} partitions, but {} pins {pinned}; partition counts can't change: use a new prefix, or restore the topic",
                Topic::Control.name()
            );
            return Err(LogError::Topic {
                topic: topic.name().to_owned(),
                fault,
            }
            .into());
        }
    }
    Ok(())
}

fn value(record: &Record) -> &[u8] {
    record.value.as_deref().unwrap_or_default()
}

/// Adds the epoch that a control record starts. A record that starts none, such as a second seed, is ignored.
fn add(rules: &mut Rules, record: &Record) -> Result<(), RunError> {
    let Some(change) = EpochChange::of_record(record.key.as_deref(), value(record)) else {
        return Ok(());
    };
    let change = change.map_err(|source| RunError::Settings {
        at: CONTROL,
        offset: record.offset,
        source,
    })?;
    rules.add(Epoch(record.offset), change);
    Ok(())
}

/// Reads the control topic for new epochs, at most every [`FOLLOW_EVERY_MS`], and appends a tick that starts
/// the latest epoch to each ticked partition that is not in it yet.
pub fn follow<L: Log>(work: &mut Work, log: &mut L) -> Result<(), RunError> {
    if !is_due(log.wall_ms(), work.control_read_ms, FOLLOW_EVERY_MS) {
        return Ok(());
    }
    read_new(work, log)?;
    let latest = work.rules.latest();
    let lacks = |(at, held): &(TopicPartition, &Held)| {
        let is_ticked = held.task.stage().def().ticked;
        is_ticked && held.task.epoch() < latest && work.ticks.announced(*at) < latest
    };
    let behind: Vec<TopicPartition> = work.tasks.iter().filter(lacks).map(|(at, _)| at).collect();
    if behind.is_empty() {
        return Ok(());
    }
    let wall_ms = log.wall_ms();
    let ticks = behind.iter().map(|at| tick(*at, wall_ms, Some(latest))).collect();
    log.append(ticks)?;
    behind.iter().for_each(|at| work.ticks.announce(*at, latest));
    Ok(())
}

fn read_new<L: Log>(work: &mut Work, log: &mut L) -> Result<(), RunError> {
    work.control_read_ms = log.wall_ms();
    let Work { control, rules, .. } = work;
    control.read_next(log, |record| add(rules, record))?;
    Ok(())
}

/// Waits until the rules know `epoch`, so that a record of that epoch can be folded.
pub fn wait_for<L: Log>(work: &mut Work, log: &mut L, epoch: Epoch) -> Result<(), RunError> {
    let began = Instant::now();
    while !work.rules.knows(epoch) {
        read_new(work, log)?;
        if work.rules.knows(epoch) {
            break;
        }
        if began.elapsed() > WAIT_MAX {
            let reason = format!(
                "{CONTROL} has no settings at {}, which a tick says start an epoch",
                epoch.0
            );
            return Err(LogError::unavailable(reason).into());
        }
        std::thread::sleep(WAIT_STEP);
    }
    Ok(())
}

/// The record of a tick, which moves the clock of its partition and can start an epoch there. Its value is
/// empty, and not null.
pub fn tick(to: TopicPartition, wall_ms: i64, epoch: Option<Epoch>) -> NewRecord {
    let mut headers = vec![
        (HEADER_WALL.to_owned(), Bytes::from(wall_ms.to_string())),
        (HEADER_TICK.to_owned(), Bytes::new()),
    ];
    headers.extend(epoch.map(|epoch| (HEADER_EPOCH.to_owned(), Bytes::from(epoch.0.to_string()))));
    NewRecord {
        to,
        key: Some(Bytes::from_static(b"tick")),
        value: Some(Bytes::new()),
        headers,
    }
}
