//! Drains the inbox batch by batch: reads, prepares, writes, waits until everything is durable, commits.

use super::Settings;
use super::group::Group;
use super::outlet::{Outlet, Sent};
use super::telemetry::InboxTelemetry;
use crate::control::policy::Rule;
use crate::prepare::admit::Admission;
use crate::prepare::coding::Coding;
use crate::prepare::config::Config;
use crate::prepare::error::PipelineError;
use crate::prepare::reason::Reason;
use crate::prepare::request::{self, BadRecords, Format, Incoming, Prepared};
use crate::prepare::telemetry::PrepareTelemetry;
use bytes::Bytes;
use rdkafka::error::KafkaError;
use schemas::id::DEFAULT_TENANT;
use schemas::origin::Origin;
use schemas::signal::Signal;
use settings::process::chain;
use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// How many records a batch takes.
const BATCH_RECORDS_MAX: usize = 1_000;
/// How many bytes a batch takes, unless its first record alone is larger.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// How long to wait for the first record of a batch, and so how late an end may be noticed.
const IDLE: Duration = Duration::from_millis(100);
/// How long between two looks for topics that are missing.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long to wait after the first failure; each further one doubles the pause.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause after a failure. Draining that lasted longer than that counts as a recovery.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How many records that the brokers refused as too large are remembered until they are passed.
const REFUSED_MAX: usize = 1_024;
/// How long the batch in flight may take at the end.
const END_MAX: Duration = Duration::from_secs(3);

/// Why draining begins anew.
#[derive(Debug, thiserror::Error)]
pub(super) enum DrainError {
    /// A client does not do what it was asked for.
    #[error("{doing}")]
    Client {
        /// What the client was asked for.
        doing: &'static str,
        /// What the client answered.
        #[source]
        source: KafkaError,
    },
    /// A record is not durable, and those behind it are not written.
    #[error("a record could not be written")]
    Write(#[source] KafkaError),
    /// A client reaches no broker any more.
    #[error("{0}: the client reaches no broker")]
    CutOff(&'static str),
    /// A raw topic is missing or has another number of partitions.
    #[error("the raw topics have not the pinned number of partitions")]
    Mismatch,
    /// There is no privacy policy yet to clean records under.
    #[error("the privacy policy in tacho.control is not read yet")]
    NoPolicy,
    /// The process ends without what is in flight, which whoever comes next does again.
    #[error("the process ends before all is written")]
    Ending,
}

/// The place of an inbox record: its partition and offset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RecordId {
    /// The name of the inbox topic, without the prefix, and the partition: `topic/partition`.
    pub source: Arc<str>,
    pub offset: i64,
}

/// A record of an inbox, as read.
pub(super) struct Received {
    pub signal: Signal,
    pub partition: i32,
    pub id: RecordId,
    /// When the brokers took the record in, ms since the Unix epoch; 0 where they did not stamp it.
    pub stamped_ms: i64,
    /// The quarantined record that this inbox record retries, as its header names it; `None` without that header.
    pub retry_of: Option<String>,
    pub value: Bytes,
}

/// What became of an inbox record.
enum Passed {
    /// The record became that many raw records.
    Parts(u64),
    /// The record is in the quarantine.
    Quarantined(Reason),
}

/// Whether to stop, and since when.
pub(super) struct Stop {
    requested: Arc<AtomicBool>,
    since: OnceCell<Instant>,
}

impl Stop {
    fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// Whether the time for what is in flight at the end is over.
    pub fn is_over(&self) -> bool {
        self.is_requested() && self.since.get_or_init(Instant::now).elapsed() > END_MAX
    }

    /// Sleeps for that time, or until a stop is requested.
    fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_requested() && Instant::now() < until {
            std::thread::sleep(IDLE.min(time));
        }
    }
}

/// The work of the thread that drains.
pub(super) struct Drain {
    settings: Settings,
    stop: Stop,
    preparing: PrepareTelemetry,
    telemetry: InboxTelemetry,
    /// Records with a part that the brokers do not take, whatever is tried; they go to the quarantine.
    refused: BTreeSet<RecordId>,
}

impl Drain {
    pub fn new(settings: Settings, requested: Arc<AtomicBool>) -> Self {
        let stop = Stop {
            requested,
            since: OnceCell::new(),
        };
        Self {
            settings,
            stop,
            preparing: PrepareTelemetry::new(),
            telemetry: InboxTelemetry::new(),
            refused: BTreeSet::new(),
        }
    }

    /// Drains until a stop is requested, beginning anew after each failure.
    pub fn run(&mut self) {
        let (mut last_logged, mut pause) = (String::new(), PAUSE_MIN);
        while !self.stop.is_requested() {
            let began = Instant::now();
            let Err(error) = self.drain() else { continue };
            let why = chain(&error);
            if began.elapsed() > PAUSE_MAX {
                (pause, last_logged) = (PAUSE_MIN, String::new());
            }
            if why != last_logged {
                tracing::warn!(
                    reason = why,
                    "draining the inbox begins anew, at what is committed"
                );
                last_logged = why;
            }
            self.telemetry.restarted();
            self.stop.sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Drains with one consumer and one producer until a stop is requested, or something fails.
    fn drain(&mut self) -> Result<(), DrainError> {
        let mut group = Group::connect(&self.settings, self.telemetry.lags())?;
        let outlet = Outlet::connect(
            &self.settings.cluster,
            self.settings.raw_partitions,
            &self.settings.others,
        )?;
        let mut looked: Option<Instant> = None;
        while !self.stop.is_requested() {
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

    /// Drains one batch: all of it is durable and committed, or it is an error.
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
            .rule(self.settings.config.text_settings(), DEFAULT_TENANT)
            .ok_or(DrainError::NoPolicy)?;
        let mut parts = [0; 3];
        let mut quarantined = Vec::new();
        for record in &batch {
            match self.pass(record, rule, outlet)? {
                Passed::Parts(count) => parts[record.signal as usize] += count,
                Passed::Quarantined(reason) => quarantined.push((&record.id, reason.name())),
            }
        }
        outlet.wait(&self.stop)?;
        group.commit(&batch)?;
        if let Some((RecordId { source, offset }, reason)) = quarantined.first() {
            tracing::warn!(records = quarantined.len(), %source, offset, reason, "inbox records quarantined; the first one is named");
        }
        for (_, reason) in &quarantined {
            self.telemetry.quarantined(reason);
        }
        for (signal, parts) in Signal::ALL.into_iter().zip(parts) {
            self.telemetry.parts(signal, parts);
        }
        for record in &batch {
            self.telemetry.drained(record.signal);
            self.refused.remove(&record.id);
        }
        Ok(())
    }

    /// Hands the parts of one record to the outlet, or the record itself for the quarantine.
    fn pass(&self, record: &Received, rule: Rule, outlet: &Outlet) -> Result<Passed, DrainError> {
        if self.refused.contains(&record.id) {
            return self.quarantine(record, Reason::MessageSize, outlet);
        }
        let prepared = match prepare(&self.settings.config, rule, record.signal, &record.value) {
            Ok(prepared) => prepared,
            Err(error) => return self.quarantine(record, error.reason(), outlet),
        };
        self.preparing.payload(record.signal, prepared.decoded_bytes);
        self.preparing.cleaned(&prepared.counts);
        let RecordId { source, offset } = &record.id;
        for raw in &prepared.records {
            let abroad = (raw.environment != 0).then(|| abroad(source, &self.settings.cluster.prefix));
            let origin = Origin {
                source: abroad.as_deref().unwrap_or(source),
                offset: *offset,
                part: raw.part,
                stamped_ms: record.stamped_ms,
            };
            let sent = Sent {
                id: record.id.clone(),
                bytes: raw.value.len(),
            };
            outlet.raw(raw, origin, record.retry_of.as_deref(), sent, &self.stop)?;
        }
        Ok(Passed::Parts(prepared.records.len() as u64))
    }

    fn quarantine(&self, record: &Received, reason: Reason, outlet: &Outlet) -> Result<Passed, DrainError> {
        let sent = Sent {
            id: record.id.clone(),
            bytes: record.value.len(),
        };
        outlet.quarantine(record, reason.name(), sent, &self.stop)?;
        Ok(Passed::Quarantined(reason))
    }
}

/// The name of a source in topics of another prefix, which may have an inbox of their own with topics of the same names.
fn abroad(source: &str, prefix: &str) -> String {
    format!("{source}~{:016x}", xxh3_64(prefix.as_bytes()))
}

/// Prepares an inbox record like a request of a client. All of it is taken, or nothing.
fn prepare(config: &Config, rule: Rule, signal: Signal, value: &Bytes) -> Result<Prepared, PipelineError> {
    if value.len() > config.body_bytes_max {
        return Err(PipelineError::BodyTooLarge(config.body_bytes_max));
    }
    // Records are prepared one at a time, so the size of one bounds the bytes in memory, and the permit need not.
    let permit = Admission::new(u64::MAX, u64::MAX).permit(DEFAULT_TENANT)?;
    let incoming = Incoming {
        signal: Some(signal),
        format: Format::Protobuf,
        coding: Coding::Identity,
        body: value.clone(),
        permit,
    };
    request::prepare(config, rule, BadRecords::Refuse, incoming)
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
