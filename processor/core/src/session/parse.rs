//! The records of one raw record, in the order in which they are folded.

use schemas::event::{Attr, EventKind};
use schemas::fact::TimeSource;
use schemas::otlp::mark::mark;
use schemas::otlp::scan::{Attrs, LogRecord, ScanError, Visit, scan_for};
use schemas::settings::TimeRules;
use schemas::time::parse_rfc3339;

use super::marks::Mark;
use super::told::{OF_RESOURCE, Saying, Told};

/// The attributes that are learnt and that few records have.
const SELDOM: [Attr; 6] = [
    Attr::AgentName,
    Attr::ApprovalPolicy,
    Attr::SandboxPolicy,
    Attr::ModelReasoningEffort,
    Attr::ReasoningEffort,
    Attr::ServiceTier,
];

/// One log record with its event time decided.
#[derive(Clone, Debug)]
pub struct Parsed<'a> {
    /// Its attributes, if it changes something derived beside counts of records, or has some of the seldom ones. They are
    /// large, and most records have none of use.
    pub attrs: Option<Box<Attrs<'a>>>,
    /// What it and its resource say of who sent it.
    pub said: Said,
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

/// What a record and its resource say, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    pub resource: Saying,
    pub record: Saying,
}

impl Said {
    /// Whether the numbers stand for the same for good.
    pub const fn are_kept(&self) -> bool {
        matches!((self.resource, self.record), (Saying::Kept(_), Saying::Kept(_)))
    }
}

/// Where a raw record is, and the rules for its time.
#[derive(Clone, Copy, Debug)]
pub struct Context<'c> {
    pub tenant: &'c str,
    pub appended: i64,
    /// The partition clock after the record moved it.
    pub clock: i64,
    pub rules: &'c TimeRules,
}

/// Reads a raw record's value.
///
/// Source of the order: event time, observed time, `tool_result_seq`, index within the record.
pub fn parse<'a>(
    value: &'a [u8],
    context: Context<'_>,
    told: &mut Told,
) -> Result<Vec<Parsed<'a>>, ScanError> {
    told.begin();
    let mut reading = Reading {
        context,
        told,
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
    told: &'c mut Told,
    /// The resource of the records to come, and its saying once it is known.
    encoded: Option<&'a [u8]>,
    resource: Option<Saying>,
    records: Vec<Parsed<'a>>,
}

impl<'a> Visit<'a> for Reading<'_, 'a> {
    fn resource(&mut self, encoded: Option<&'a [u8]>) -> bool {
        self.encoded = encoded;
        self.resource = encoded.and_then(|encoded| self.told.resources.find(encoded));
        self.resource.is_some()
    }

    fn record(&mut self, record: LogRecord<'_, 'a>) {
        let Self {
            context,
            told,
            encoded,
            ..
        } = self;
        let resource = *self
            .resource
            .get_or_insert_with(|| told.resources.add(*encoded, record.resource, &OF_RESOURCE));
        let said = Said {
            resource,
            record: told.of_record(&record.attrs),
        };
        self.records.push(one(record, said, *context));
    }
}

fn one<'a>(record: LogRecord<'_, 'a>, said: Said, context: Context<'_>) -> Parsed<'a> {
    let Context {
        tenant,
        appended,
        clock,
        rules,
    } = context;
    let (told, time_source) = event_time(&record, appended);
    let time = told.clamp(
        clock.saturating_sub(rules.max_age_ms),
        clock.saturating_add(rules.max_skew_ms),
    );
    let conversation = record
        .attrs
        .text(Attr::ConversationId)
        .filter(|id| !id.is_empty());
    let derives = derives(&record);
    let marked = derives && time_source != TimeSource::Received;
    let is_read = derives || SELDOM.into_iter().any(|attr| record.attrs.get(attr).is_some());
    Parsed {
        mark: marked.then(|| mark(&record, tenant, conversation.unwrap_or(""))),
        said,
        event: record.event,
        conversation,
        time,
        time_source,
        clamped: time != told,
        derives,
        order: (
            record.observed_ns,
            record.attrs.int(Attr::ToolResultSeq).unwrap_or(0),
            record.index,
        ),
        attrs: is_read.then(|| Box::new(record.attrs)),
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
        EventKind::SseEvent => [Attr::InputTokenCount, Attr::ErrorMessage, Attr::TachoError]
            .into_iter()
            .any(|attr| record.attrs.get(attr).is_some()),
        event => event.def().derives,
    }
}
