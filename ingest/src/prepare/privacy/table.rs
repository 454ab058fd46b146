//! Describes the OTLP messages as tables from field numbers to what the fields hold.
//!
//! Source: opentelemetry-proto `common`, `resource`, `logs`, `trace`, `metrics` v1. Fields that are not listed are copied as
//! they are.

use schemas::signal::Signal;

/// What a field holds, which decides what cleaning does with it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Holds {
    /// A number of wire type varint.
    Varint,
    /// A number of eight bytes.
    Fixed64,
    /// A number of four bytes.
    Fixed32,
    /// Numbers of eight bytes each, packed or not.
    ManyFixed64,
    /// Numbers of wire type varint, packed or not.
    ManyVarint,
    /// A string.
    Text,
    /// A byte string.
    Bytes,
    /// A message without rules of its own.
    Message(&'static Message),
    /// An attribute: a `KeyValue` whose key decides what becomes of it.
    Attribute,
    /// An attribute of a span or link, whose texts are a field of the policy of their own, `span_attributes`.
    SpanAttribute,
    /// A string that describes a span, which belongs to field `span_attributes` too.
    SpanText,
    /// A log record.
    LogRecord,
    /// The body of a log record.
    Body,
    /// A span.
    Span,
    /// An event of a span: its target decides what becomes of it.
    SpanEvent,
}

/// The known fields of a message, by number.
#[derive(Debug)]
pub(super) struct Message(&'static [(u32, Holds)]);

impl Message {
    /// What the field with that number holds, if the table has it.
    pub fn holds(&self, number: u32) -> Option<Holds> {
        self.0
            .iter()
            .find(|(known, _)| *known == number)
            .map(|(_, holds)| *holds)
    }
}

/// The table of a signal's request message.
pub(super) fn request(signal: Signal) -> &'static Message {
    match signal {
        Signal::Logs => &LOGS_REQUEST,
        Signal::Traces => &TRACES_REQUEST,
        Signal::Metrics => &METRICS_REQUEST,
    }
}

use Holds::{
    Attribute, Body, Bytes, Fixed32, Fixed64, LogRecord, ManyFixed64, ManyVarint, Span, SpanAttribute,
    SpanEvent, SpanText, Text, Varint,
};

const fn message(message: &'static Message) -> Holds {
    Holds::Message(message)
}

// Messages of common.proto.
pub(super) static KEY_VALUE: Message = Message(&[(1, Text), (2, message(&ANY_VALUE)), (3, Varint)]);
pub(super) static ANY_VALUE: Message = Message(&[
    (1, Text),
    (2, Varint),
    (3, Varint),
    (4, Fixed64),
    (5, message(&ARRAY_VALUE)),
    (6, message(&KEY_VALUE_LIST)),
    (7, Bytes),
    (8, Varint),
]);
static ARRAY_VALUE: Message = Message(&[(1, message(&ANY_VALUE))]);
static KEY_VALUE_LIST: Message = Message(&[(1, Attribute)]);
static SCOPE: Message = Message(&[(1, Text), (2, Text), (3, Attribute), (4, Varint)]);
static ENTITY_REF: Message = Message(&[(1, Text), (2, Text), (3, Text), (4, Text)]);

// Messages of resource.proto.
static RESOURCE: Message = Message(&[(1, Attribute), (2, Varint), (3, message(&ENTITY_REF))]);

// Messages of logs.proto.
static LOGS_REQUEST: Message = Message(&[(1, message(&RESOURCE_LOGS))]);
static RESOURCE_LOGS: Message = Message(&[(1, message(&RESOURCE)), (2, message(&SCOPE_LOGS)), (3, Text)]);
static SCOPE_LOGS: Message = Message(&[(1, message(&SCOPE)), (2, LogRecord), (3, Text)]);
pub(super) static LOG_RECORD: Message = Message(&[
    (1, Fixed64),
    (2, Varint),
    (3, Text),
    (5, Body),
    (6, Attribute),
    (7, Varint),
    (8, Fixed32),
    (9, Bytes),
    (10, Bytes),
    (11, Fixed64),
    (12, Text),
]);

// Messages of trace.proto.
static TRACES_REQUEST: Message = Message(&[(1, message(&RESOURCE_SPANS))]);
static RESOURCE_SPANS: Message = Message(&[(1, message(&RESOURCE)), (2, message(&SCOPE_SPANS)), (3, Text)]);
static SCOPE_SPANS: Message = Message(&[(1, message(&SCOPE)), (2, Span), (3, Text)]);
pub(super) static SPAN: Message = Message(&[
    (1, Bytes),
    (2, Bytes),
    (3, Text),
    (4, Bytes),
    (5, Text),
    (6, Varint),
    (7, Fixed64),
    (8, Fixed64),
    (9, SpanAttribute),
    (10, Varint),
    (11, SpanEvent),
    (12, Varint),
    (13, message(&LINK)),
    (14, Varint),
    (15, message(&STATUS)),
    (16, Fixed32),
]);
pub(super) static SPAN_EVENT: Message = Message(&[(1, Fixed64), (2, Text), (3, Attribute), (4, Varint)]);
static LINK: Message = Message(&[
    (1, Bytes),
    (2, Bytes),
    (3, Text),
    (4, SpanAttribute),
    (5, Varint),
    (6, Fixed32),
]);
static STATUS: Message = Message(&[(2, SpanText), (3, Varint)]);

// Messages of metrics.proto.
static METRICS_REQUEST: Message = Message(&[(1, message(&RESOURCE_METRICS))]);
static RESOURCE_METRICS: Message =
    Message(&[(1, message(&RESOURCE)), (2, message(&SCOPE_METRICS)), (3, Text)]);
static SCOPE_METRICS: Message = Message(&[(1, message(&SCOPE)), (2, message(&METRIC)), (3, Text)]);
static METRIC: Message = Message(&[
    (1, Text),
    (2, Text),
    (3, Text),
    (5, message(&NUMBERS)),
    (7, message(&NUMBERS)),
    (9, message(&HISTOGRAM)),
    (10, message(&EXPONENTIAL_HISTOGRAM)),
    (11, message(&SUMMARY)),
    (12, Attribute),
]);
/// Both `Gauge` and `Sum`: a gauge has field 1 alone.
static NUMBERS: Message = Message(&[(1, message(&NUMBER_POINT)), (2, Varint), (3, Varint)]);
static HISTOGRAM: Message = Message(&[(1, message(&HISTOGRAM_POINT)), (2, Varint)]);
static EXPONENTIAL_HISTOGRAM: Message = Message(&[(1, message(&EXPONENTIAL_POINT)), (2, Varint)]);
static SUMMARY: Message = Message(&[(1, message(&SUMMARY_POINT))]);
static NUMBER_POINT: Message = Message(&[
    (2, Fixed64),
    (3, Fixed64),
    (4, Fixed64),
    (5, message(&EXEMPLAR)),
    (6, Fixed64),
    (7, Attribute),
    (8, Varint),
]);
static HISTOGRAM_POINT: Message = Message(&[
    (2, Fixed64),
    (3, Fixed64),
    (4, Fixed64),
    (5, Fixed64),
    (6, ManyFixed64),
    (7, ManyFixed64),
    (8, message(&EXEMPLAR)),
    (9, Attribute),
    (10, Varint),
    (11, Fixed64),
    (12, Fixed64),
]);
static EXPONENTIAL_POINT: Message = Message(&[
    (1, Attribute),
    (2, Fixed64),
    (3, Fixed64),
    (4, Fixed64),
    (5, Fixed64),
    (6, Varint),
    (7, Fixed64),
    (8, message(&BUCKETS)),
    (9, message(&BUCKETS)),
    (10, Varint),
    (11, message(&EXEMPLAR)),
    (12, Fixed64),
    (13, Fixed64),
    (14, Fixed64),
]);
static BUCKETS: Message = Message(&[(1, Varint), (2, ManyVarint)]);
static SUMMARY_POINT: Message = Message(&[
    (2, Fixed64),
    (3, Fixed64),
    (4, Fixed64),
    (5, Fixed64),
    (6, message(&QUANTILE)),
    (7, Attribute),
    (8, Varint),
]);
static QUANTILE: Message = Message(&[(1, Fixed64), (2, Fixed64)]);
static EXEMPLAR: Message = Message(&[
    (2, Fixed64),
    (3, Fixed64),
    (4, Bytes),
    (5, Bytes),
    (6, Fixed64),
    (7, Attribute),
]);
