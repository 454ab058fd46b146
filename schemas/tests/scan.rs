//! The scan gives the records that a full decode gives, refuses what it refuses, and never panics.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;
use schemas::otlp::decode::{self, OwnedRecord};
use schemas::otlp::mark::mark;
use schemas::otlp::scan::{ScanError, check, scan};
use support::wild::{Dice, Kind, content, reversed, wild};

fn scanned(bytes: &[u8]) -> Result<Vec<OwnedRecord>, ScanError> {
    let mut records = Vec::new();
    let count = scan(bytes, |record| records.push(OwnedRecord::from(&record)))?;
    assert_eq!(count, records.len());
    Ok(records)
}

/// Checks the law of the scan, and gives whether the bytes were valid: scan and prost give equal records, and
/// equal marks after prost has encoded them again; or both refuse.
fn same(bytes: &[u8]) -> bool {
    let scanned = scanned(bytes);
    match decode::decode(bytes) {
        Ok(request) => {
            assert_eq!(scanned, Ok(decode::records(&request)));
            assert_eq!(marks(bytes), marks(&request.encode_to_vec()));
        }
        Err(error) => assert!(
            scanned.is_err(),
            "prost refuses: {error}; the scan gives {scanned:?}"
        ),
    }
    scanned.is_ok()
}

fn marks(bytes: &[u8]) -> Vec<[u8; 16]> {
    let mut marks = Vec::new();
    scan(bytes, |record| marks.push(mark(&record, "default", "c"))).unwrap();
    marks
}

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "event.name",
            "model",
            "env",
            "call_id",
            "prompt",
            "tacho.exit_code",
            "state",
            "other"
        ])
        .prop_map(str::to_owned),
        "\\PC{0,12}",
    ]
}

fn any_value() -> impl Strategy<Value = Option<AnyValue>> {
    let leaf = prop_oneof![
        "\\PC{0,20}".prop_map(Value::StringValue),
        any::<bool>().prop_map(Value::BoolValue),
        any::<i64>().prop_map(Value::IntValue),
        any::<u64>().prop_map(|bits| Value::DoubleValue(f64::from_bits(bits))),
        vec(any::<u8>(), 0..8).prop_map(Value::BytesValue),
        any::<i32>().prop_map(Value::StringValueStrindex),
    ];
    let nested = leaf.prop_recursive(4, 16, 3, |inner| {
        let any = option::of(inner).prop_map(|value| AnyValue { value });
        prop_oneof![
            vec(any.clone(), 0..3).prop_map(|values| Value::ArrayValue(ArrayValue { values })),
            vec((any_key(), option::of(any)), 0..3).prop_map(|pairs| {
                let values = pairs
                    .into_iter()
                    .map(|(key, value)| KeyValue {
                        key,
                        value,
                        key_strindex: 0,
                    })
                    .collect();
                Value::KvlistValue(KeyValueList { values })
            }),
        ]
    });
    option::of(option::of(nested).prop_map(|value| AnyValue { value }))
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    vec(
        (any_key(), any_value(), 0..3i32).prop_map(|(key, value, key_strindex)| KeyValue {
            key,
            value,
            key_strindex,
        }),
        0..6,
    )
}

fn log_record() -> impl Strategy<Value = LogRecord> {
    let numbers = (any::<u64>(), any::<u64>(), any::<i32>(), any::<u32>());
    (
        numbers,
        "\\PC{0,8}",
        any_value(),
        attributes(),
        vec(any::<u8>(), 0..17),
    )
        .prop_map(|(numbers, text, body, attributes, id)| LogRecord {
            time_unix_nano: numbers.0,
            observed_time_unix_nano: numbers.1,
            severity_number: numbers.2,
            severity_text: text.clone(),
            body,
            attributes,
            dropped_attributes_count: numbers.3,
            flags: numbers.3,
            trace_id: id.clone(),
            span_id: id,
            event_name: text,
        })
}

fn request() -> impl Strategy<Value = ExportLogsServiceRequest> {
    let scope = option::of(
        ("\\PC{0,8}", attributes()).prop_map(|(name, attributes)| InstrumentationScope {
            version: name.clone(),
            name,
            attributes,
            dropped_attributes_count: 1,
        }),
    );
    let scope_logs =
        (scope, vec(log_record(), 0..3), "\\PC{0,4}").prop_map(|(scope, log_records, schema_url)| {
            ScopeLogs {
                scope,
                log_records,
                schema_url,
            }
        });
    let resource = option::of(attributes().prop_map(|attributes| Resource {
        attributes,
        ..Resource::default()
    }));
    vec(
        (resource, vec(scope_logs, 0..3), "\\PC{0,4}").prop_map(|(resource, scope_logs, schema_url)| {
            ResourceLogs {
                resource,
                scope_logs,
                schema_url,
            }
        }),
        0..3,
    )
    .prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn usual_requests(request in request()) {
        let bytes = request.encode_to_vec();
        prop_assert!(same(&bytes));
        let reversed = reversed(Kind::Request, &bytes);
        prop_assert!(same(&reversed));
        prop_assert_eq!(scanned(&bytes), scanned(&reversed));
        prop_assert_eq!(marks(&bytes), marks(&reversed));
    }

    #[test]
    fn two_requests_in_one(first in request(), second in request()) {
        let both = [first.encode_to_vec(), second.encode_to_vec()].concat();
        prop_assert!(same(&both));
    }

    #[test]
    fn damaged_requests(request in request(), edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in option::of(any::<prop::sample::Index>())) {
        let mut bytes = request.encode_to_vec();
        if !bytes.is_empty() {
            for (at, byte) in edits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
        }
        same(&bytes);
    }

    #[test]
    fn a_mark_ignores_what_privacy_and_tachograph_do(mut request in request()) {
        let before = marks(&request.encode_to_vec());
        for record in request.resource_logs.iter_mut().flat_map(|logs| &mut logs.scope_logs).flat_map(|logs| &mut logs.log_records) {
            scrub(&mut record.attributes);
            record.body = None;
            record.attributes.reverse();
        }
        // Of a key that occurs twice the last value is read, so reversing the attributes changes such a
        // record.
        let repeats = request.resource_logs.iter().flat_map(|logs| &logs.scope_logs).flat_map(|logs| &logs.log_records).any(|record| {
            let mut keys: Vec<_> = record.attributes.iter().map(|pair| &pair.key).collect();
            keys.sort_unstable();
            keys.windows(2).any(|pair| pair[0] == pair[1])
        });
        prop_assume!(!repeats);
        prop_assert_eq!(before, marks(&request.encode_to_vec()));
    }
}

/// Changes attributes as a privacy policy does: removes private texts and adds a length, at every depth.
fn scrub(pairs: &mut Vec<KeyValue>) {
    pairs.retain(|pair| pair.key != "prompt" && !pair.key.starts_with("tacho."));
    for pair in &mut *pairs {
        scrub_value(pair.value.as_mut());
    }
    let value = Some(AnyValue {
        value: Some(Value::IntValue(9)),
    });
    pairs.push(KeyValue {
        key: "tacho.prompt.bytes".to_owned(),
        value,
        key_strindex: 0,
    });
}

fn scrub_value(any: Option<&mut AnyValue>) {
    match any.and_then(|any| any.value.as_mut()) {
        Some(Value::KvlistValue(list)) => scrub(&mut list.values),
        Some(Value::ArrayValue(list)) => list.values.iter_mut().for_each(|value| scrub_value(Some(value))),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn unusual_encodings(choices in vec(any::<u8>(), 0..300)) {
        same(&wild(Kind::Request, &mut Dice(&choices), 9));
    }

    #[test]
    fn unusual_records(choices in vec(any::<u8>(), 0..300)) {
        // The choices make a record, which is put into a request, so that most cases have a record.
        let mut bytes = wild(Kind::LogRecord, &mut Dice(&choices), 6);
        for number in [2, 2, 1] {
            let mut outer = Vec::new();
            content(number, &bytes, &mut outer);
            bytes = outer;
        }
        same(&bytes);
    }

    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..200)) {
        same(&bytes);
    }
}

#[test]
fn unusual_encodings_are_often_valid() {
    let mut valid = 0;
    let mut seed = 1u64;
    for _ in 0..1000 {
        let choices: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        })
        .take(300)
        .collect();
        let bytes = wild(Kind::Request, &mut Dice(&choices), 9);
        valid += usize::from(same(&bytes) && check(&bytes).unwrap() > 0);
    }
    assert!(
        valid > 100,
        "only {valid} of 1000 wild requests are valid and hold records, too few for the test"
    );
}

#[test]
fn recorded_bodies() {
    let mut records = 0;
    for body in support::bodies("logs", "pb") {
        assert!(same(&body.bytes), "{}", body.name);
        let reversed = reversed(Kind::Request, &body.bytes);
        assert_eq!(scanned(&body.bytes), scanned(&reversed), "{}", body.name);
        let marks = marks(&body.bytes);
        assert_eq!(marks, self::marks(&reversed), "{}", body.name);
        records += marks.len();
        for cut in [1, body.bytes.len() / 3, body.bytes.len() - 1] {
            assert!(!same(&body.bytes[..cut]), "{} cut at {cut}", body.name);
        }
    }
    assert!(records > 5_000, "only {records} recorded log records");
}

#[test]
fn recorded_records_have_marks_of_their_own() {
    let mut all = std::collections::BTreeMap::new();
    let mut records = 0;
    for body in support::bodies("logs", "pb") {
        scan(&body.bytes, |record| {
            records += 1;
            all.insert(mark(&record, "default", "c"), body.name.clone());
        })
        .unwrap();
    }
    assert_eq!(all.len(), records, "two recorded records have the same mark");
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        key_strindex: 0,
    }
}

fn text(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

fn list(values: Vec<Value>) -> Value {
    let values = values
        .into_iter()
        .map(|value| AnyValue { value: Some(value) })
        .collect();
    Value::ArrayValue(ArrayValue { values })
}

fn map(values: Vec<KeyValue>) -> Value {
    Value::KvlistValue(KeyValueList { values })
}

/// The mark of a record with that observed time and those attributes.
fn mark_of(observed: u64, attributes: Vec<KeyValue>, tenant: &str, conversation: &str) -> [u8; 16] {
    let record = LogRecord {
        observed_time_unix_nano: observed,
        attributes,
        ..LogRecord::default()
    };
    let logs = ScopeLogs {
        log_records: vec![record],
        ..ScopeLogs::default()
    };
    let resource_logs = vec![ResourceLogs {
        scope_logs: vec![logs],
        ..ResourceLogs::default()
    }];
    let mut found = [0; 16];
    scan(
        &ExportLogsServiceRequest { resource_logs }.encode_to_vec(),
        |record| found = mark(&record, tenant, conversation),
    )
    .unwrap();
    found
}

#[test]
fn every_part_of_a_record_is_in_its_mark() {
    let mut variants = vec![
        mark_of(1, vec![], "t", "c"),
        mark_of(2, vec![], "t", "c"),
        mark_of(1, vec![], "t2", "c"),
        mark_of(1, vec![], "t", "c2"),
        mark_of(1, vec![], "tc", ""),
        mark_of(1, vec![pair("call_id", text("1"))], "t", "c"),
        mark_of(1, vec![pair("state", text("1"))], "t", "c"),
        mark_of(1, vec![pair("call_id", Value::IntValue(1))], "t", "c"),
        mark_of(
            1,
            vec![pair("call_id", text("1")), pair("call_id", text("1"))],
            "t",
            "c",
        ),
        mark_of(1, vec![pair("a", text("bc"))], "t", "c"),
        mark_of(1, vec![pair("ab", text("c"))], "t", "c"),
        mark_of(1, vec![pair("a", Value::BytesValue(b"bc".to_vec()))], "t", "c"),
        mark_of(1, vec![pair("a", list(vec![text("b"), text("c")]))], "t", "c"),
        mark_of(1, vec![pair("a", list(vec![text("bc")]))], "t", "c"),
        mark_of(
            1,
            vec![pair("a", list(vec![list(vec![text("b")]), text("c")]))],
            "t",
            "c",
        ),
        mark_of(
            1,
            vec![pair("a", list(vec![list(vec![text("b"), text("c")])]))],
            "t",
            "c",
        ),
        mark_of(1, vec![pair("a", map(vec![pair("b", text("c"))]))], "t", "c"),
        mark_of(1, vec![pair("a", map(vec![]))], "t", "c"),
        mark_of(1, vec![pair("a", list(vec![]))], "t", "c"),
    ];
    let count = variants.len();
    variants.sort_unstable();
    variants.dedup();
    assert_eq!(variants.len(), count);
}

#[test]
fn private_attributes_and_those_of_tachograph_are_in_no_mark() {
    let private = vec![
        pair("prompt", text("x")),
        pair("tacho.exit_code", Value::IntValue(1)),
    ];
    assert_eq!(mark_of(1, private, "t", "c"), mark_of(1, vec![], "t", "c"));
    let within = vec![pair("a", map(vec![pair("output", text("x"))]))];
    assert_eq!(
        mark_of(1, within, "t", "c"),
        mark_of(1, vec![pair("a", map(vec![]))], "t", "c")
    );
}

#[test]
fn the_limit_of_nesting_is_prosts() {
    let mut verdicts = Vec::new();
    for levels in 40..60 {
        // The body of a record is an AnyValue in an ArrayValue in an AnyValue and so on, with an unknown
        // field in the innermost or without.
        for bottom in [&[][..], &[0xf8, 0x01, 0x01]] {
            let mut bytes = bottom.to_vec();
            for number in std::iter::repeat_n([1, 5], levels).flatten().chain([5, 2, 2, 1]) {
                let mut outer = Vec::new();
                content(number, &bytes, &mut outer);
                bytes = outer;
            }
            verdicts.push(same(&bytes));
        }
    }
    assert!(verdicts.contains(&true) && verdicts.contains(&false));
    for levels in 95..105 {
        for inner in [&[][..], &[0xf8, 0x01, 0x01]] {
            let bytes = [&[0xa3, 0x01].repeat(levels), inner, &[0xa4, 0x01].repeat(levels)].concat();
            same(&bytes);
        }
    }
}
