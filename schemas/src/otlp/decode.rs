//! The full decode of an OTLP log request by prost: slow and complete. Tests compare the scan with it.

use super::scan::{self, Attrs, LogRecord};
use crate::event::{Attr, EventKind};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use prost::Message;
use std::collections::BTreeMap;
use strum::VariantArray;

/// Decodes an `ExportLogsServiceRequest`.
///
/// # Errors
/// The bytes are not an encoded `ExportLogsServiceRequest`.
pub fn decode(bytes: &[u8]) -> Result<ExportLogsServiceRequest, prost::DecodeError> {
    ExportLogsServiceRequest::decode(bytes)
}

/// A [`scan::Value`] that owns its content. Two are equal exactly if their content is; floats are compared by
/// their bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedValue {
    /// A string.
    Str(String),
    /// An integer.
    Int(i64),
    /// A boolean.
    Bool(bool),
    /// The bits of a floating-point number.
    Double(u64),
    /// An array, key-value list, byte string or nothing, as prost encodes the `AnyValue`.
    Other(Vec<u8>),
}

/// The content of a [`LogRecord`], owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    /// The attributes of the record's resource that are read.
    pub resource: BTreeMap<Attr, OwnedValue>,
    /// The attributes of the record that are read.
    pub attrs: BTreeMap<Attr, OwnedValue>,
    /// All attributes of the record, in order.
    pub attributes: Vec<(String, OwnedValue)>,
    /// Field `time_unix_nano`.
    pub time_ns: u64,
    /// Field `observed_time_unix_nano`.
    pub observed_ns: u64,
    /// Field `trace_id`.
    pub trace_id: Vec<u8>,
    /// The event that the attribute `event.name` names.
    pub event: EventKind,
    /// The record's number in the request, from 0.
    pub index: usize,
}

/// The records of a decoded request: the content that [`scan::scan`] must give for the request's bytes.
#[must_use]
pub fn records(request: &ExportLogsServiceRequest) -> Vec<OwnedRecord> {
    let mut records = Vec::new();
    for resource_logs in &request.resource_logs {
        let resource = resource_logs
            .resource
            .as_ref()
            .map(|resource| read(&resource.attributes))
            .unwrap_or_default();
        for record in resource_logs
            .scope_logs
            .iter()
            .flat_map(|scope| &scope.log_records)
        {
            let attrs = read(&record.attributes);
            records.push(OwnedRecord {
                resource: resource.clone(),
                event: match attrs.get(&Attr::EventName) {
                    Some(OwnedValue::Str(name)) => EventKind::by_name(name),
                    _ => EventKind::Unknown,
                },
                attrs,
                attributes: record
                    .attributes
                    .iter()
                    .map(|pair| (pair.key.clone(), value_of(pair)))
                    .collect(),
                time_ns: record.time_unix_nano,
                observed_ns: record.observed_time_unix_nano,
                trace_id: record.trace_id.clone(),
                index: records.len(),
            });
        }
    }
    records
}

fn read(attributes: &[KeyValue]) -> BTreeMap<Attr, OwnedValue> {
    attributes
        .iter()
        .filter_map(|pair| Some((Attr::by_key(pair.key.as_bytes())?, value_of(pair))))
        .collect()
}

fn value_of(pair: &KeyValue) -> OwnedValue {
    match pair.value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => OwnedValue::Str(text.clone()),
        Some(any_value::Value::IntValue(int)) => OwnedValue::Int(*int),
        Some(any_value::Value::BoolValue(flag)) => OwnedValue::Bool(*flag),
        Some(any_value::Value::DoubleValue(double)) => OwnedValue::Double(double.to_bits()),
        other => OwnedValue::Other(
            AnyValue {
                value: other.cloned(),
            }
            .encode_to_vec(),
        ),
    }
}

impl From<scan::Value<'_>> for OwnedValue {
    /// A [`scan::Value::Other`] that can't be decoded, which no scan gives, becomes an empty value.
    fn from(value: scan::Value<'_>) -> Self {
        match value {
            scan::Value::Str(text) => Self::Str(text.to_owned()),
            scan::Value::Int(int) => Self::Int(int),
            scan::Value::Bool(flag) => Self::Bool(flag),
            scan::Value::Double(double) => Self::Double(double.to_bits()),
            scan::Value::Other(encoded) => {
                let any = KeyValue::decode(encoded)
                    .ok()
                    .and_then(|pair| pair.value)
                    .unwrap_or_default();
                Self::Other(any.encode_to_vec())
            }
        }
    }
}

impl From<&LogRecord<'_, '_>> for OwnedRecord {
    fn from(record: &LogRecord<'_, '_>) -> Self {
        let owned = |attrs: &Attrs<'_>| {
            Attr::VARIANTS
                .iter()
                .filter_map(|attr| Some((*attr, OwnedValue::from(attrs.get(*attr)?))))
                .collect::<BTreeMap<_, _>>()
        };
        Self {
            resource: owned(record.resource),
            attrs: owned(&record.attrs),
            attributes: record
                .attributes()
                .map(|(key, value)| (key.to_owned(), value.into()))
                .collect(),
            time_ns: record.time_ns,
            observed_ns: record.observed_ns,
            trace_id: record.trace_id.to_vec(),
            event: record.event,
            index: record.index,
        }
    }
}
