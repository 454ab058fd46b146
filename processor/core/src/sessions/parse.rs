//! Reads the log records of one raw record, and sorts them into the order in which they are folded: event
//! time, observed time, `tool_result_seq`, index.
//!
//! **Event time** of a log record is the first of these that it has: the attribute `event.timestamp`,
//! `time_unix_nano`, the observed time, the append time of the raw record. `tacho_event_time_source_total`
//! counts which one it was. The time is clamped to [clock − `max_age_ms`, clock + `max_skew_ms`], by default
//! 7 days and 5 s, and clamped records are counted.

use super::identity_cache::{IdentityCache, OF_RESOURCE, ReportId};
use super::marks::Mark;
use schemas::event::{Attr, Derives, EventKind};
use schemas::fact::TimeSource;
use schemas::otlp::mark::mark;
use schemas::otlp::scan::{Attrs, LogRecord, ScanError, Visit, scan_for};
use schemas::settings::TimeRules;
use schemas::time::{AppendTime, EventTime, PartitionClock, parse_rfc3339};

/// One log record, with its event time and its dedup mark.
#[derive(Clone, Debug)]
pub struct Parsed<'a> {
    /// What derivation reads, if the record changes something derived beside counts of records. It is large, and of no use
    /// for most records.
    pub derives: Option<Box<Derived<'a>>>,
    pub event: EventKind,
    pub conversation: Option<&'a str>,
    pub time: EventTime,
    pub time_source: TimeSource,
    pub clamped: bool,
    /// When Codex made the record, µs since the Unix epoch: the observed time, else the time that it claims. Two records of
    /// one process tell by it how much time was between them.
    pub made_us: i64,
    /// The dedup mark; `None` for records that do not derive, and for those without a time of their own.
    pub mark: Option<Mark>,
    order: (u64, i64, usize),
}

/// What derivation reads of a record that derives.
#[derive(Clone, Debug)]
pub struct Derived<'a> {
    pub attrs: Attrs<'a>,
    /// Who sent the record.
    pub sender: Sender,
}

/// Who sent a record: what its resource and the record itself report of that, interned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    pub resource: ReportId,
    pub record: ReportId,
}

impl Sender {
    /// Whether both reports are interned, so that an equal sender always means equal reports.
    pub const fn is_interned(&self) -> bool {
        matches!(
            (self.resource, self.record),
            (ReportId::Interned(_), ReportId::Interned(_))
        )
    }
}

/// What decides the event time of a raw record's log records.
#[derive(Clone, Copy, Debug)]
pub struct Context<'c> {
    pub tenant: &'c str,
    pub appended: AppendTime,
    /// The partition clock after the record moved it.
    pub clock: PartitionClock,
    pub rules: &'c TimeRules,
}

/// Reads the log records of a raw record's value, in the order in which they are folded.
///
/// # Errors
/// The value is not an OTLP log request.
pub fn parse<'a>(
    value: &'a [u8],
    context: Context<'_>,
    cache: &mut IdentityCache,
) -> Result<Vec<Parsed<'a>>, ScanError> {
    cache.begin();
    let mut reading = Reading {
        context,
        cache,
        encoded: None,
        resource: None,
        records: Vec::new(),
    };
    scan_for(value, &mut reading)?;
    let mut records = reading.records;
    records.sort_by_key(|record: &Parsed<'_>| (record.time, record.order));
    Ok(records)
}

struct Reading<'c, 'a> {
    context: Context<'c>,
    cache: &'c mut IdentityCache,
    /// The encoded resource of the records that come next, if it is in one piece.
    encoded: Option<&'a [u8]>,
    /// The report of the resource of the records that come next, once it is found or added.
    resource: Option<ReportId>,
    records: Vec<Parsed<'a>>,
}

impl<'a> Visit<'a> for Reading<'_, 'a> {
    fn resource(&mut self, encoded: Option<&'a [u8]>) -> bool {
        self.encoded = encoded;
        self.resource = encoded.and_then(|encoded| self.cache.resources.find(encoded));
        self.resource.is_some()
    }

    fn record(&mut self, record: LogRecord<'_, 'a>) {
        let Self {
            context,
            cache,
            encoded,
            ..
        } = self;
        let sender = derives(&record).then(|| Sender {
            resource: *self
                .resource
                .get_or_insert_with(|| cache.resources.add(*encoded, record.resource, &OF_RESOURCE)),
            record: cache.of_record(&record.attrs),
        });
        self.records.push(one(record, sender, *context));
    }
}

fn one<'a>(record: LogRecord<'_, 'a>, sender: Option<Sender>, context: Context<'_>) -> Parsed<'a> {
    let Context {
        tenant,
        appended,
        clock,
        rules,
    } = context;
    let (claimed, time_source) = event_time(&record, appended);
    let time = claimed.clamp(
        EventTime(clock.0.saturating_sub(rules.max_age_ms)),
        EventTime(clock.0.saturating_add(rules.max_skew_ms)),
    );
    let conversation = record
        .attrs
        .text(Attr::ConversationId)
        .filter(|id| !id.is_empty());
    let marked = sender.is_some() && time_source != TimeSource::Received;
    Parsed {
        mark: marked.then(|| mark(&record, tenant, conversation.unwrap_or(""))),
        event: record.event,
        made_us: match record.observed_ns {
            0 => claimed.0.saturating_mul(1_000),
            ns => i64::try_from(ns / 1_000).unwrap_or(i64::MAX),
        },
        conversation,
        time,
        time_source,
        clamped: time != claimed,
        order: (
            record.observed_ns,
            record.attrs.int(Attr::ToolResultSeq).unwrap_or(0),
            record.index,
        ),
        derives: sender.map(|sender| {
            let attrs = record.attrs;
            Box::new(Derived { attrs, sender })
        }),
    }
}

/// The event time that a record claims, and where it was found.
fn event_time(record: &LogRecord<'_, '_>, appended: AppendTime) -> (EventTime, TimeSource) {
    let from_ns = |ns: u64| EventTime(i64::try_from(ns / 1_000_000).unwrap_or(i64::MAX));
    if let Some(time) = record.attrs.text(Attr::EventTimestamp).and_then(parse_rfc3339) {
        (time, TimeSource::Attribute)
    } else if record.time_ns != 0 {
        (from_ns(record.time_ns), TimeSource::Time)
    } else if record.observed_ns != 0 {
        (from_ns(record.observed_ns), TimeSource::Observed)
    } else {
        (EventTime(appended.0), TimeSource::Received)
    }
}

/// Whether a record changes something derived beside counts of records.
fn derives(record: &LogRecord<'_, '_>) -> bool {
    match record.event.def().derives {
        Derives::Always => true,
        Derives::WithAny(attrs) => attrs.iter().any(|attr| record.attrs.get(*attr).is_some()),
        Derives::WithPrefix(attr, prefix) => {
            let text = record.attrs.text(attr);
            text.is_some_and(|text| text.starts_with(prefix))
        }
        Derives::Never => false,
    }
}
