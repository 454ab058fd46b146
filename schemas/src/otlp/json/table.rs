//! The table of OTLP messages: JSON name, field number and form of each field.
//!
//! Source: opentelemetry-proto `common`, `resource`, `logs`, `trace`, `metrics` v1 and the three collector
//! services.

/// The form of a field in JSON and in protobuf. A plural is a repeated field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A string in both forms.
    Text,
    /// Bytes that are hexadecimal digits in JSON: trace and span ids.
    Hex,
    /// Bytes that are base64 in JSON.
    Base64,
    Bool,
    Fixed64,
    Sfixed64,
    Fixed32,
    Uint32,
    /// A 32-bit integer, or an enum, which OTLP/JSON writes as an integer.
    Int32,
    Int64,
    Sint32,
    Double,
    Texts,
    Fixed64s,
    Uint64s,
    Doubles,
    One(&'static Message),
    Many(&'static Message),
}

impl Kind {
    /// Whether a number of the field is a double in protobuf.
    pub const fn is_float(self) -> bool {
        match self {
            Self::Double | Self::Doubles => true,
            Self::Text
            | Self::Hex
            | Self::Base64
            | Self::Bool
            | Self::Fixed64
            | Self::Sfixed64
            | Self::Fixed32
            | Self::Uint32
            | Self::Int32
            | Self::Int64
            | Self::Sint32
            | Self::Texts
            | Self::Fixed64s
            | Self::Uint64s
            | Self::One(_)
            | Self::Many(_) => false,
        }
    }
}

/// A field of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub name: &'static str,
    pub number: u32,
    pub kind: Kind,
    /// Whether the field is written with its default value too: members of a oneof, and optional fields.
    pub is_explicit: bool,
}

/// The fields of a message.
#[derive(Debug)]
pub(super) struct Message(pub &'static [Field]);

impl Message {
    pub fn field(&self, name: &[u8]) -> Option<&'static Field> {
        self.0.iter().find(|field| field.name.as_bytes() == name)
    }
}

use Kind::{
    Base64, Bool, Double, Doubles, Fixed32, Fixed64, Fixed64s, Hex, Int32, Int64, Many, One, Sfixed64,
    Sint32, Text, Texts, Uint32, Uint64s,
};

/// A field that is written unless it has its default value.
const fn f(name: &'static str, number: u32, kind: Kind) -> Field {
    Field {
        name,
        number,
        kind,
        is_explicit: false,
    }
}

/// A field that is written with its default value too.
const fn x(name: &'static str, number: u32, kind: Kind) -> Field {
    Field {
        name,
        number,
        kind,
        is_explicit: true,
    }
}

// common.proto
pub(super) static ANY_VALUE: Message = Message(&[
    x("stringValue", 1, Text),
    x("boolValue", 2, Bool),
    x("intValue", 3, Int64),
    x("doubleValue", 4, Double),
    x("arrayValue", 5, One(&ARRAY_VALUE)),
    x("kvlistValue", 6, One(&KEY_VALUE_LIST)),
    x("bytesValue", 7, Base64),
]);
static ARRAY_VALUE: Message = Message(&[f("values", 1, Many(&ANY_VALUE))]);
static KEY_VALUE_LIST: Message = Message(&[f("values", 1, Many(&KEY_VALUE))]);
static KEY_VALUE: Message = Message(&[f("key", 1, Text), f("value", 2, One(&ANY_VALUE))]);
static SCOPE: Message = Message(&[
    f("name", 1, Text),
    f("version", 2, Text),
    f("attributes", 3, Many(&KEY_VALUE)),
    f("droppedAttributesCount", 4, Uint32),
]);
static ENTITY_REF: Message = Message(&[
    f("schemaUrl", 1, Text),
    f("type", 2, Text),
    f("idKeys", 3, Texts),
    f("descriptionKeys", 4, Texts),
]);

// resource.proto
static RESOURCE: Message = Message(&[
    f("attributes", 1, Many(&KEY_VALUE)),
    f("droppedAttributesCount", 2, Uint32),
    f("entityRefs", 3, Many(&ENTITY_REF)),
]);

// logs.proto
pub(super) static LOGS: Message = Message(&[f("resourceLogs", 1, Many(&RESOURCE_LOGS))]);
static RESOURCE_LOGS: Message = Message(&[
    f("resource", 1, One(&RESOURCE)),
    f("scopeLogs", 2, Many(&SCOPE_LOGS)),
    f("schemaUrl", 3, Text),
]);
static SCOPE_LOGS: Message = Message(&[
    f("scope", 1, One(&SCOPE)),
    f("logRecords", 2, Many(&LOG_RECORD)),
    f("schemaUrl", 3, Text),
]);
static LOG_RECORD: Message = Message(&[
    f("timeUnixNano", 1, Fixed64),
    f("observedTimeUnixNano", 11, Fixed64),
    f("severityNumber", 2, Int32),
    f("severityText", 3, Text),
    f("body", 5, One(&ANY_VALUE)),
    f("attributes", 6, Many(&KEY_VALUE)),
    f("droppedAttributesCount", 7, Uint32),
    f("flags", 8, Fixed32),
    f("traceId", 9, Hex),
    f("spanId", 10, Hex),
    f("eventName", 12, Text),
]);

// trace.proto
pub(super) static TRACES: Message = Message(&[f("resourceSpans", 1, Many(&RESOURCE_SPANS))]);
static RESOURCE_SPANS: Message = Message(&[
    f("resource", 1, One(&RESOURCE)),
    f("scopeSpans", 2, Many(&SCOPE_SPANS)),
    f("schemaUrl", 3, Text),
]);
static SCOPE_SPANS: Message = Message(&[
    f("scope", 1, One(&SCOPE)),
    f("spans", 2, Many(&SPAN)),
    f("schemaUrl", 3, Text),
]);
static SPAN: Message = Message(&[
    f("traceId", 1, Hex),
    f("spanId", 2, Hex),
    f("traceState", 3, Text),
    f("parentSpanId", 4, Hex),
    f("name", 5, Text),
    f("kind", 6, Int32),
    f("startTimeUnixNano", 7, Fixed64),
    f("endTimeUnixNano", 8, Fixed64),
    f("attributes", 9, Many(&KEY_VALUE)),
    f("droppedAttributesCount", 10, Uint32),
    f("events", 11, Many(&SPAN_EVENT)),
    f("droppedEventsCount", 12, Uint32),
    f("links", 13, Many(&LINK)),
    f("droppedLinksCount", 14, Uint32),
    f("status", 15, One(&STATUS)),
    f("flags", 16, Fixed32),
]);
static SPAN_EVENT: Message = Message(&[
    f("timeUnixNano", 1, Fixed64),
    f("name", 2, Text),
    f("attributes", 3, Many(&KEY_VALUE)),
    f("droppedAttributesCount", 4, Uint32),
]);
static LINK: Message = Message(&[
    f("traceId", 1, Hex),
    f("spanId", 2, Hex),
    f("traceState", 3, Text),
    f("attributes", 4, Many(&KEY_VALUE)),
    f("droppedAttributesCount", 5, Uint32),
    f("flags", 6, Fixed32),
]);
static STATUS: Message = Message(&[f("message", 2, Text), f("code", 3, Int32)]);

// metrics.proto
pub(super) static METRICS: Message = Message(&[f("resourceMetrics", 1, Many(&RESOURCE_METRICS))]);
static RESOURCE_METRICS: Message = Message(&[
    f("resource", 1, One(&RESOURCE)),
    f("scopeMetrics", 2, Many(&SCOPE_METRICS)),
    f("schemaUrl", 3, Text),
]);
static SCOPE_METRICS: Message = Message(&[
    f("scope", 1, One(&SCOPE)),
    f("metrics", 2, Many(&METRIC)),
    f("schemaUrl", 3, Text),
]);
static METRIC: Message = Message(&[
    f("name", 1, Text),
    f("description", 2, Text),
    f("unit", 3, Text),
    x("gauge", 5, One(&GAUGE)),
    x("sum", 7, One(&SUM)),
    x("histogram", 9, One(&HISTOGRAM)),
    x("exponentialHistogram", 10, One(&EXPONENTIAL_HISTOGRAM)),
    x("summary", 11, One(&SUMMARY)),
    f("metadata", 12, Many(&KEY_VALUE)),
]);
static GAUGE: Message = Message(&[f("dataPoints", 1, Many(&NUMBER_POINT))]);
static SUM: Message = Message(&[
    f("dataPoints", 1, Many(&NUMBER_POINT)),
    f("aggregationTemporality", 2, Int32),
    f("isMonotonic", 3, Bool),
]);
static HISTOGRAM: Message = Message(&[
    f("dataPoints", 1, Many(&HISTOGRAM_POINT)),
    f("aggregationTemporality", 2, Int32),
]);
static EXPONENTIAL_HISTOGRAM: Message = Message(&[
    f("dataPoints", 1, Many(&EXPONENTIAL_POINT)),
    f("aggregationTemporality", 2, Int32),
]);
static SUMMARY: Message = Message(&[f("dataPoints", 1, Many(&SUMMARY_POINT))]);
static NUMBER_POINT: Message = Message(&[
    f("attributes", 7, Many(&KEY_VALUE)),
    f("startTimeUnixNano", 2, Fixed64),
    f("timeUnixNano", 3, Fixed64),
    x("asDouble", 4, Double),
    x("asInt", 6, Sfixed64),
    f("exemplars", 5, Many(&EXEMPLAR)),
    f("flags", 8, Uint32),
]);
static HISTOGRAM_POINT: Message = Message(&[
    f("attributes", 9, Many(&KEY_VALUE)),
    f("startTimeUnixNano", 2, Fixed64),
    f("timeUnixNano", 3, Fixed64),
    f("count", 4, Fixed64),
    x("sum", 5, Double),
    f("bucketCounts", 6, Fixed64s),
    f("explicitBounds", 7, Doubles),
    f("exemplars", 8, Many(&EXEMPLAR)),
    f("flags", 10, Uint32),
    x("min", 11, Double),
    x("max", 12, Double),
]);
static EXPONENTIAL_POINT: Message = Message(&[
    f("attributes", 1, Many(&KEY_VALUE)),
    f("startTimeUnixNano", 2, Fixed64),
    f("timeUnixNano", 3, Fixed64),
    f("count", 4, Fixed64),
    x("sum", 5, Double),
    f("scale", 6, Sint32),
    f("zeroCount", 7, Fixed64),
    f("positive", 8, One(&BUCKETS)),
    f("negative", 9, One(&BUCKETS)),
    f("flags", 10, Uint32),
    f("exemplars", 11, Many(&EXEMPLAR)),
    x("min", 12, Double),
    x("max", 13, Double),
    f("zeroThreshold", 14, Double),
]);
static BUCKETS: Message = Message(&[f("offset", 1, Sint32), f("bucketCounts", 2, Uint64s)]);
static SUMMARY_POINT: Message = Message(&[
    f("attributes", 7, Many(&KEY_VALUE)),
    f("startTimeUnixNano", 2, Fixed64),
    f("timeUnixNano", 3, Fixed64),
    f("count", 4, Fixed64),
    f("sum", 5, Double),
    f("quantileValues", 6, Many(&QUANTILE)),
    f("flags", 8, Uint32),
]);
static QUANTILE: Message = Message(&[f("quantile", 1, Double), f("value", 2, Double)]);
static EXEMPLAR: Message = Message(&[
    f("filteredAttributes", 7, Many(&KEY_VALUE)),
    f("timeUnixNano", 2, Fixed64),
    x("asDouble", 3, Double),
    x("asInt", 6, Sfixed64),
    f("spanId", 4, Hex),
    f("traceId", 5, Hex),
]);
