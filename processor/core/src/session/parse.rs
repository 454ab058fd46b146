//! The records of one raw record, in the order in which they are folded.

use schemas::event::{Attr, EventKind};
use schemas::fact::TimeSource;
use schemas::otlp::mark::mark;
use schemas::otlp::scan::{Attrs, LogRecord, ScanError, scan};
use schemas::settings::TimeRules;
use schemas::time::parse_rfc3339;

use super::marks::Mark;

/// The attributes of a resource that derivation reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resource<'a> {
    pub service_name: Option<&'a str>,
    pub team: Option<&'a str>,
    pub project: Option<&'a str>,
    pub cost_centre: Option<&'a str>,
    pub department: Option<&'a str>,
    pub env: Option<&'a str>,
}

/// One log record with its event time decided.
#[derive(Clone, Debug)]
pub struct Parsed<'a> {
    pub attrs: Attrs<'a>,
    pub resource: Resource<'a>,
    pub event: EventKind,
    pub conversation: Option<&'a str>,
    pub time: i64,
    pub time_source: TimeSource,
    pub clamped: bool,
    /// `None` for records that change nothing derived, and for those without any time of their own.
    pub mark: Option<Mark>,
    /// Whether it changes something derived.
    pub derives: bool,
    order: (u64, i64, usize),
}

/// Reads a raw record's value; `clock` is the partition clock after the record moved it.
///
/// Source of the order: event time, observed time, `tool_result_seq`, index within the record.
pub fn parse<'a>(value: &'a [u8], tenant: &str, appended: i64, clock: i64, rules: &TimeRules) -> Result<Vec<Parsed<'a>>, ScanError> {
    let mut records = Vec::new();
    scan(value, |record| records.push(one(record, tenant, appended, clock, rules)))?;
    records.sort_by_key(|record: &Parsed<'_>| (record.time, record.order));
    Ok(records)
}

fn one<'a>(record: LogRecord<'_, 'a>, tenant: &str, appended: i64, clock: i64, rules: &TimeRules) -> Parsed<'a> {
    let (told, time_source) = event_time(&record, appended);
    let time = told.clamp(clock.saturating_sub(rules.max_age_ms), clock.saturating_add(rules.max_skew_ms));
    let conversation = record.attrs.text(Attr::ConversationId).filter(|id| !id.is_empty());
    let derives = derives(&record);
    let marked = derives && time_source != TimeSource::Received;
    let resource = record.resource;
    Parsed {
        mark: marked.then(|| mark(&record, tenant, conversation.unwrap_or(""))),
        resource: Resource {
            service_name: resource.text(Attr::ServiceName),
            team: resource.text(Attr::TeamId),
            project: resource.text(Attr::Project),
            cost_centre: resource.text(Attr::CostCentre),
            department: resource.text(Attr::Department),
            env: resource.text(Attr::Env),
        },
        event: record.event,
        conversation,
        time,
        time_source,
        clamped: time != told,
        derives,
        order: (record.observed_ns, record.attrs.int(Attr::ToolResultSeq).unwrap_or(0), record.index),
        attrs: record.attrs,
    }
}

fn event_time(record: &LogRecord<'_, '_>, appended: i64) -> (i64, TimeSource) {
    let from_ns = |ns: u64| i64::try_from(ns / 1_000_000).unwrap_or(i64::MAX);
    if let Some(time) = record.attrs.text(Attr::EventTimestamp).and_then(parse_rfc3339) {
        (time.0, TimeSource::Attribute)
    } else if record.time_ns != 0 {
        (from_ns(record.time_ns), TimeSource::Time)
    } else if record.observed_ns != 0 {
        (from_ns(record.observed_ns), TimeSource::Observed)
    } else {
        (appended, TimeSource::Received)
    }
}

/// Stream noise changes nothing: of the many events of a response, those with tokens or an error count.
fn derives(record: &LogRecord<'_, '_>) -> bool {
    match record.event {
        EventKind::SseEvent => {
            [Attr::InputTokenCount, Attr::ErrorMessage, Attr::TachoError].into_iter().any(|attr| record.attrs.get(attr).is_some())
        }
        event => event.def().derives,
    }
}
