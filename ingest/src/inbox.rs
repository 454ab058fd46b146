//! Drains the inbox topics, which foreign writers fill, through the path of the doors into the raw topics.
//!
//! At least once: positions are committed only when every part of the records before them is durable, so what a crash
//! leaves undone is done again. Each raw record says where it came from ([`schemas::origin::Origin`]), and the task that
//! folds its partition drops what is not above the last one taken of that source. Together that is exactly once, if on
//! every raw partition the parts of one source come in order and without a hole, by whomever they are written:
//!
//! - A drainer takes a partition over at the group's position. All before it is durable, so the parts that it writes
//!   begin at or before the first one that is missing.
//! - It writes through an idempotent producer of its own that never gives a record up (`message.timeout.ms=0`), has one
//!   request in flight, and ends at the first record that fails (`enable.gapless.guarantee`): what comes out on a
//!   partition is a run without a hole. One request, since brokers take any first sequence number of a producer that they
//!   do not know: with several, the second could be taken where the first was turned down.
//! - After any failure producer and consumer are dropped, and all begins again at the group's positions.
//! - A drainer that was stopped, and whose partitions others have by now, goes on with its own run when it wakes up:
//!   each of its records is below the mark, or the next one.
//! - The conversations of a record, their order and their partitions follow from its bytes, whatever the privacy policy
//!   keeps. A part's number is the rank of its last item. Where a request over 8 MiB is cut does depend on what is kept: if
//!   it is drained again under another policy, a part that reaches further is taken whole, so that nothing is lost; of what
//!   was taken before, records are told by their dedup marks, and only those that have none are counted again.
//!
//! - Routes are settings of a process. While ingests with other routes drain the same inbox, as during an update, a record
//!   that is drained twice can end up in two environments.
//!
//! What can't become raw records (no OTLP, or too large) goes to `codex.quarantine.v1`, through the same producer, and is
//! passed: see [`crate::inbox::quarantine`]. `tacho quarantine retry` puts it into the inbox again.
//!
//! Memory: one batch, the parts of one record, and the producer's queue.

mod group;
mod outlet;
mod quarantine;

use crate::connection::reply::Reject;
use crate::control::policy::{Policies, Rule};
use crate::prepare::admit::Admission;
use crate::prepare::coding::Coding;
use crate::prepare::config::Config;
use crate::prepare::pipeline::{self, Form, Incoming};
use crate::telemetry::{InboxTelemetry, Telemetry};
use bytes::Bytes;
use group::Group;
use outlet::{Outlet, Sent};
use rdkafka::error::KafkaError;
use schemas::cluster::Cluster;
use schemas::id::DEFAULT_TENANT;
use schemas::origin::Origin;
use schemas::signal::Signal;
use shell::process::chain;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// A member that is silent for so long loses its partitions, unless set otherwise.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(15);
/// A batch takes at most that many records.
const BATCH_RECORDS_MAX: usize = 1_000;
/// And at most that many bytes, unless its first record alone is larger.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// How long to wait for the first record of a batch: so long an end may be noticed late.
const IDLE: Duration = Duration::from_millis(100);
/// How long between two looks for topics that are missing.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long to wait after a failure, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// What the log refused as too large is remembered until it is passed; so many at once.
const REFUSED_MAX: usize = 1_024;
/// Why a record is quarantined that the brokers turned down.
const TOO_LARGE: &str = "message_size";
/// At the end, the batch in flight may take that long.
const END_MAX: Duration = Duration::from_secs(3);

/// What to drain, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster.
    pub cluster: Cluster,
    /// The pinned number of raw partitions.
    pub raw_partitions: i32,
    /// Where the environments of [`Config::routes`] are, in order.
    pub others: Vec<Target>,
    /// Limits and routes: as those of the doors.
    pub config: Config,
    /// The privacy policy: as that of the doors.
    pub policies: Arc<Policies>,
    /// A member that is silent for so long loses its partitions.
    pub session_timeout: Duration,
}

/// The raw topics of another environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Before the names of its topics.
    pub prefix: String,
    /// The pinned number of its raw partitions.
    pub raw_partitions: i32,
}

/// Why draining begins anew.
#[derive(Debug, thiserror::Error)]
enum DrainError {
    /// A client does not do what it was asked for.
    #[error("{doing}")]
    Client {
        /// What it was asked for.
        doing: &'static str,
        /// What it said.
        #[source]
        source: KafkaError,
    },
    /// A record is not durable, and those behind it are not written.
    #[error("a record could not be written")]
    Write(#[source] KafkaError),
    /// A client is cut off.
    #[error("{0}: the client reaches no broker")]
    CutOff(&'static str),
    /// A raw topic is missing or has another count.
    #[error("the raw topics have not the pinned number of partitions")]
    Mismatch,
    /// Nothing can be cleaned yet.
    #[error("the privacy policy in tacho.control is not read yet")]
    NoPolicy,
    /// The end did not wait for what is in flight: it is done again by whoever comes next.
    #[error("the process ends before all is written")]
    Ending,
}

/// The thread that drains.
pub struct Inbox {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Inbox {
    /// Joins those who share the inbox, as soon as there is one. Call it after a metrics recorder is installed.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(settings: Settings) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("inbox".to_owned())
            .spawn(move || Drain::new(settings, stopped).run())?;
        Ok(Self { stop, thread })
    }

    /// Finishes the batch in flight, commits and leaves; gives up waiting for that after `wait`. False: it did not end.
    #[must_use]
    pub fn end(self, wait: Duration) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + wait;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.thread.is_finished()
    }
}

/// A record of an inbox, as read.
struct Received {
    signal: Signal,
    place: Place,
    /// When the brokers took it in, ms; 0 where they did not stamp it.
    stamped_ms: i64,
    /// What it says of the quarantine that it was in: passed on.
    retry_of: Option<String>,
    value: Bytes,
}

/// Where a record of an inbox is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// `topic/partition`, without the prefix.
    source: Arc<str>,
    offset: i64,
}

struct Drain {
    settings: Settings,
    stop: Stop,
    doors: Telemetry,
    telemetry: InboxTelemetry,
    /// What the log does not take, whatever is tried: to be quarantined.
    refused: BTreeSet<Place>,
}

/// Whether to stop, and since when.
struct Stop {
    told: Arc<AtomicBool>,
    since: std::cell::OnceCell<Instant>,
}

impl Stop {
    fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    /// Whether what is in flight is not waited for any longer.
    fn is_over(&self) -> bool {
        self.is_told() && self.since.get_or_init(Instant::now).elapsed() > END_MAX
    }

    fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_told() && Instant::now() < until {
            std::thread::sleep(IDLE.min(time));
        }
    }
}

impl Drain {
    fn new(settings: Settings, told: Arc<AtomicBool>) -> Self {
        let stop = Stop {
            told,
            since: std::cell::OnceCell::new(),
        };
        Self {
            settings,
            stop,
            doors: Telemetry::new(),
            telemetry: InboxTelemetry::new(),
            refused: BTreeSet::new(),
        }
    }

    fn run(&mut self) {
        let (mut told, mut pause) = (String::new(), PAUSES.0);
        while !self.stop.is_told() {
            let began = Instant::now();
            let Err(error) = self.drain() else { continue };
            let why = chain(&error);
            if began.elapsed() > PAUSES.1 {
                (pause, told) = (PAUSES.0, String::new());
            }
            if why != told {
                tracing::warn!(
                    reason = why,
                    "draining the inbox begins anew, at what is committed"
                );
                told = why;
            }
            self.telemetry.restarted();
            self.stop.sleep(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Drains with one consumer and one producer until the process ends, or something fails.
    fn drain(&mut self) -> Result<(), DrainError> {
        let mut group = Group::connect(&self.settings, self.telemetry.lags())?;
        let outlet = Outlet::connect(
            &self.settings.cluster,
            self.settings.raw_partitions,
            &self.settings.others,
        )?;
        let mut looked: Option<Instant> = None;
        while !self.stop.is_told() {
            if group.lacks_topics() && looked.is_none_or(|at| at.elapsed() > LOOK_EVERY) {
                group.look()?;
                looked = Some(Instant::now());
            }
            if let Err(error) = self.turn(&mut group, &outlet) {
                self.refused.extend(outlet.refused());
                while self.refused.len() > REFUSED_MAX {
                    self.refused.pop_first();
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// One batch: everything that it holds is durable, and committed, or it is an error.
    fn turn(&mut self, group: &mut Group, outlet: &Outlet) -> Result<(), DrainError> {
        for (signal, lost) in group.answer()? {
            self.telemetry.lost(signal, lost);
        }
        let batch = group.collect(BATCH_RECORDS_MAX, BATCH_BYTES_MAX, IDLE)?;
        if batch.is_empty() {
            return Ok(());
        }
        let rule = self
            .settings
            .policies
            .rule(&self.settings.config, DEFAULT_TENANT)
            .ok_or(DrainError::NoPolicy)?;
        let mut parts = [0; 3];
        let mut quarantined = Vec::new();
        for record in &batch {
            match self.pass(record, rule, outlet)? {
                Passed::Parts(count) => parts[record.signal as usize] += count,
                Passed::Quarantined(reason) => quarantined.push((&record.place, reason)),
            }
        }
        outlet.wait(&self.stop)?;
        group.commit(&batch)?;
        if let Some((Place { source, offset }, reason)) = quarantined.first() {
            tracing::warn!(records = quarantined.len(), %source, offset, reason, "inbox records quarantined; the first one is named");
        }
        quarantined
            .iter()
            .for_each(|(_, reason)| self.telemetry.quarantined(reason));
        Signal::ALL
            .iter()
            .zip(parts)
            .for_each(|(signal, parts)| self.telemetry.parts(*signal, parts));
        for record in &batch {
            self.telemetry.drained(record.signal);
            self.refused.remove(&record.place);
        }
        Ok(())
    }

    /// Hands over what becomes of one record.
    fn pass(&self, record: &Received, rule: Rule, outlet: &Outlet) -> Result<Passed, DrainError> {
        let Received {
            signal,
            place,
            stamped_ms,
            retry_of,
            value,
        } = record;
        let whole = Sent {
            place: place.clone(),
            bytes: value.len(),
        };
        if self.refused.contains(place) {
            outlet.quarantine(record, TOO_LARGE, whole, &self.stop)?;
            return Ok(Passed::Quarantined(TOO_LARGE));
        }
        let records = match prepare(&self.settings.config, rule, *signal, value) {
            Ok(prepared) => {
                self.doors.payload(*signal, prepared.decoded_bytes);
                self.doors.cleaned(&prepared.counts);
                prepared.records
            }
            Err(reject) => {
                let reason = reject.verdict().reason;
                outlet.quarantine(record, reason, whole, &self.stop)?;
                return Ok(Passed::Quarantined(reason));
            }
        };
        for raw in &records {
            let abroad = (raw.environment != 0).then(|| abroad(&place.source, &self.settings.cluster.prefix));
            let source = abroad.as_deref().unwrap_or(&place.source);
            let origin = Origin {
                source,
                offset: place.offset,
                part: raw.part,
                stamped_ms: *stamped_ms,
            };
            outlet.raw(
                raw,
                origin,
                retry_of.as_deref(),
                Sent {
                    place: place.clone(),
                    bytes: raw.value.len(),
                },
                &self.stop,
            )?;
        }
        Ok(Passed::Parts(records.len() as u64))
    }
}

/// A source as topics of another prefix know it: they may have an inbox of their own, whose topics have the same names.
fn abroad(source: &str, prefix: &str) -> String {
    format!("{source}~{:016x}", xxh3_64(prefix.as_bytes()))
}

/// What became of an inbox record.
enum Passed {
    /// So many raw records.
    Parts(u64),
    /// It is in the quarantine, for that reason.
    Quarantined(&'static str),
}

/// The path of the doors, for a body that came without one.
fn prepare(config: &Config, rule: Rule, signal: Signal, value: &Bytes) -> Result<pipeline::Prepared, Reject> {
    if value.len() > config.body_bytes_max {
        return Err(Reject::BodyTooLarge(config.body_bytes_max));
    }
    // One record at a time: its size is bounded, and no other waits for it.
    let permit = Admission::new(u64::MAX, u64::MAX).permit(DEFAULT_TENANT)?;
    pipeline::prepare(
        config,
        rule,
        Incoming {
            signal: Some(signal),
            form: Form::Protobuf,
            coding: Coding::Identity,
            body: value.clone(),
            permit,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_abroad_is_another_one_and_still_a_source() {
        let (near, far) = (
            abroad("codex.inbox.metrics.v1/2147483647", ""),
            abroad("codex.inbox.metrics.v1/2147483647", "main."),
        );
        assert_ne!(near, far);
        for source in [&near, &far] {
            let text = Origin {
                source,
                offset: i64::MAX,
                part: 0,
                stamped_ms: 1,
            }
            .to_string();
            assert_eq!(
                Origin::parse(&text).map(|origin| origin.source),
                Some(source.as_str())
            );
        }
    }
}
