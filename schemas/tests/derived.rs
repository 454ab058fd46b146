//! Derived rows: rows are read as they were written, equal rows have equal bytes, and every field has a doc.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use proptest::prelude::*;
use schemas::delta::SEPARATOR;
use schemas::derived::{
    Row, RowError, SESSIONS_AVSC, SESSIONS_AVSC_PAST, SegmentState, SessionRow, WINDOWS_AVSC, WindowRow,
    WindowValue,
};
use schemas::histogram::Histogram;
use schemas::metric::{Amount, Metric};
use schemas::state::{Counts, DecisionCount, Identity, PrewarmCounts, ToolCount, WebsocketCounts};
use schemas::topic::Topic;
use serde_json::{Value, json};
use strum::VariantArray;

fn counts(unit: u64) -> Counts {
    Counts {
        records: unit,
        conversation_starts: 2 * unit,
        user_prompts: 3 * unit,
        api_requests: 4 * unit,
        api_errors: 5 * unit,
        api_retries_http: 6 * unit,
        api_retries_stream: 7 * unit,
        api_duration_us: 8 * unit,
        stream_failures: 9 * unit,
        responses_completed: 10 * unit,
        input_uncached: 11 * unit,
        input_cached: 12 * unit,
        input_cache_write: 13 * unit,
        output_visible: 14 * unit,
        output_reasoning: 15 * unit,
        tool_calls: 16 * unit,
        tool_failures: 17 * unit,
        tool_duration_us: 18 * unit,
        nonzero_exits: 19 * unit,
        compactions: 20 * unit,
        spawned_agents: 21 * unit,
        ttft_count: 22 * unit,
        ttft_us: 23 * unit,
        decisions: vec![DecisionCount {
            tool: "exec_command".to_owned(),
            decision: "approved".to_owned(),
            source: "human".to_owned(),
            count: 24 * unit,
        }],
        tools: vec![ToolCount {
            tool: "apply_patch".to_owned(),
            calls: 25 * unit,
            failures: 26 * unit,
        }],
        cost_nano_usd: 27 * unit,
        equivalent_nano_usd: 28 * unit,
        micro_credits: 29 * unit,
        unpriced_tokens: 30 * unit,
        native_cost_nano_usd: 31 * unit,
        api_retries_websocket: 32 * unit,
        requests_failed: 33 * unit,
        answer_us: 34 * unit,
        websocket: Some(WebsocketCounts {
            requests: 35 * unit,
            reused: 36 * unit,
            connects: 37 * unit,
            refused: 38 * unit,
            refused_in_turns: 39 * unit,
            fallbacks: 40 * unit,
        }),
        prewarm: Some(PrewarmCounts {
            requests: 41 * unit,
            completed: 42 * unit,
            failed: 43 * unit,
            input_uncached: 44 * unit,
            input_cached: 45 * unit,
            input_cache_write: 46 * unit,
            output: 47 * unit,
            cost_nano_usd: 48 * unit,
        }),
    }
}

fn session() -> SessionRow {
    let mut row = SessionRow {
        tenant: "default".to_owned(),
        conversation_id: "01a2045b-273e-7122-a201-66623dfb1afb".to_owned(),
        segment_start_ms: 1_795_369_412_431,
        state: SegmentState::Ended,
        source_topic: Topic::RawLogs.name().to_owned(),
        source_partition: 3,
        position: 42,
        revision: 42,
        epoch: 1,
        started_ms: 1_795_369_412_431,
        last_event_ms: 1_795_369_414_431,
        ended_ms: Some(1_795_369_414_431),
        duration_ms: 2_000,
        first_offset: 40,
        last_offset: 41,
        entrypoint: "exec".to_owned(),
        open_calls: 1,
        ..SessionRow::default()
    };
    row.set_identity(&Identity {
        model: "gpt-5.5".to_owned(),
        team: "infra".to_owned(),
        ..Identity::default()
    });
    row.set_counts(&counts(1));
    row
}

fn series(metric: Metric, value: &str) -> String {
    let mut key = metric.def().name.to_owned();
    for _ in metric.def().labels {
        key.push(SEPARATOR);
        key.push_str(value);
    }
    key
}

#[test]
fn sessions_are_read_as_written() {
    for row in [
        SessionRow::default(),
        session(),
        SessionRow {
            state: SegmentState::Reopened,
            ended_ms: None,
            ..session()
        },
    ] {
        let bytes = row.encode();
        assert_eq!(bytes, row.clone().encode());
        assert_eq!(SessionRow::decode(&bytes).unwrap(), row);
        assert_eq!(
            Row::decode(Topic::Sessions, &bytes).unwrap().to_json(),
            serde_json::to_value(&row).unwrap()
        );
    }
    let json = Row::decode(Topic::Sessions, &session().encode())
        .unwrap()
        .to_json();
    assert_eq!(json["state"], "ended");
    assert_eq!(json["api_retries"], 6 + 7 + 32);
    assert_eq!(json["tokens"]["total"], 11 + 12 + 13 + 14 + 15);
    assert_eq!(
        json["decisions"][0],
        json!({"tool": "exec_command", "decision": "approved", "source": "human", "count": 24})
    );
    assert_eq!(
        json["tools"][0],
        json!({"tool": "apply_patch", "calls": 25, "failures": 26})
    );
    assert_eq!(json["model"], "gpt-5.5");
}

#[test]
fn every_count_has_a_field_of_its_own() {
    let mut row = SessionRow::default();
    row.set_counts(&counts(1000));
    let mut seen = Vec::new();
    numbers(&serde_json::to_value(&row).unwrap(), &mut seen);
    for value in 1..=48 {
        assert!(seen.contains(&(value * 1000)), "count {value} is not in the row");
    }
}

fn numbers(json: &Value, seen: &mut Vec<i64>) {
    match json {
        Value::Number(number) => seen.extend(number.as_i64()),
        Value::Array(items) => items.iter().for_each(|item| numbers(item, seen)),
        Value::Object(members) => members.values().for_each(|member| numbers(member, seen)),
        _ => {}
    }
}

#[test]
fn windows_of_every_form() {
    let mut values = Histogram::default();
    [0, 250_000, 1_000_000, 3_000_000]
        .iter()
        .for_each(|value| values.record(*value, 1_000_000));
    let count = WindowRow::new(
        &series(Metric::Turns, "x"),
        60_000,
        120_000,
        None,
        &Amount::Count(-3),
    )
    .unwrap();
    assert_eq!(count.to_json()["value"], json!({"count": -3}));
    assert_eq!(count.end_ms, 180_000);
    assert_eq!(count.labels.len(), Metric::Turns.def().labels.len());
    let money = WindowRow::new(
        &series(Metric::Cost, "x"),
        60_000,
        0,
        None,
        &Amount::Count(1_500_000_000),
    )
    .unwrap();
    assert_eq!(
        money.to_json()["value"],
        json!({"count": 1_500_000_000, "per_unit": 1_000_000_000})
    );
    let ratio = Amount::Ratio {
        numerator: 1,
        denominator: 4,
    };
    let ratio = WindowRow::new(
        &series(Metric::ApiRetryRatio, "x"),
        60_000,
        0,
        Some(60_000),
        &ratio,
    )
    .unwrap();
    assert_eq!(ratio.to_json()["ratio"], 0.25);
    assert_eq!(ratio.arrival_ms, Some(60_000));
    let histogram = WindowRow::new(
        &series(Metric::ApiRequestDuration, ""),
        60_000,
        -60_000,
        None,
        &Amount::Values(values.clone()),
    )
    .unwrap();
    assert!(histogram.labels.is_empty(), "labels without a value are left out");
    assert_eq!(histogram.histogram(), Some(values.clone()));
    let json = histogram.to_json();
    assert_eq!(json["value"]["per_unit"], 1_000_000);
    assert_eq!(json["quantiles"]["p50"], json!(values.quantile(500)));
    assert_eq!(json["quantiles"]["p99"], json!(values.quantile(990)));
    for row in [count, ratio, histogram] {
        let bytes = row.encode();
        assert_eq!(WindowRow::decode(&bytes).unwrap(), row);
        for topic in [Topic::Windows1m, Topic::Windows5m, Topic::Windows1h] {
            assert_eq!(Row::decode(topic, &bytes).unwrap().to_json(), row.to_json());
        }
    }
    assert_eq!(
        WindowRow::new("nobody_knows", 1, 0, None, &Amount::Count(1)),
        None
    );
}

#[test]
fn every_metric_has_rows() {
    for &metric in Metric::VARIANTS {
        let row = WindowRow::new(&series(metric, "x"), 60_000, 0, None, &Amount::Count(1)).unwrap();
        assert_eq!(row.metric, metric.def().name);
        let names: Vec<_> = metric.def().labels.iter().map(|label| label.def().name).collect();
        assert_eq!(
            row.labels.iter().map(|label| &label.name).collect::<Vec<_>>(),
            names
        );
    }
}

/// Rows in topics must stay readable, so the bytes here may change only together with a new version of a
/// topic.
#[test]
fn the_bytes_are_these() {
    let row = WindowRow::new(
        &series(Metric::EventTimeClamped, "default"),
        60_000,
        120_000,
        None,
        &Amount::Count(5),
    )
    .unwrap();
    assert_eq!(
        hex(&row.encode()),
        "c301e03b9f2957dd153a3c746163686f5f6576656e745f74696d655f636c616d7065645f746f74616c020c74656e616e740e64656661756c7400c0a90780d30ec0fc1500000a"
    );
    let row = SessionRow {
        tenant: "default".to_owned(),
        position: 42,
        ended_ms: Some(-1),
        ..SessionRow::default()
    };
    assert_eq!(
        hex(&row.encode()),
        "c30122021ceb78e97e410e64656661756c74000000000054000000000201000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Topics hold rows of earlier schemas for a long time: they stay readable, and the fields that they lack are
/// zero.
#[test]
fn rows_of_earlier_schemas_are_read() {
    let rows = [
        "c301cfde7ebef62b2a120e64656661756c740000000000540000000002010000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
        "c301c3d17bf70bb19d580e64656661756c7400000000005400000000020100000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
    ];
    assert_eq!(rows.len(), SESSIONS_AVSC_PAST.len());
    let expected = SessionRow {
        tenant: "default".to_owned(),
        position: 42,
        ended_ms: Some(-1),
        ..SessionRow::default()
    };
    for row in rows {
        assert_eq!(SessionRow::decode(&unhex(row)).unwrap(), expected);
    }
    // What a field's doc says may change: it is no part of the schema's canonical form.
    let fields = |avsc: &str| {
        let mut fields = serde_json::from_str::<Value>(avsc).unwrap()["fields"].take();
        remove_docs(&mut fields);
        fields.as_array().unwrap().clone()
    };
    let now = fields(SESSIONS_AVSC);
    for past in SESSIONS_AVSC_PAST {
        let past = fields(past);
        let (same, added) = now.split_at(past.len());
        assert_eq!(same, past, "fields are added at the end, and none is changed");
        assert!(
            !added.is_empty() && added.iter().all(|field| field.get("default").is_some()),
            "an added field has a default: {added:?}"
        );
    }
}

/// Removes the docs at any depth.
fn remove_docs(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.remove("doc");
            object.values_mut().for_each(remove_docs);
        }
        Value::Array(values) => values.iter_mut().for_each(remove_docs),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn other_bytes_are_refused() {
    let bytes = session().encode();
    assert!(matches!(SessionRow::decode(&[]), Err(RowError::Header)));
    assert!(matches!(
        SessionRow::decode(b"0123456789abc"),
        Err(RowError::Header)
    ));
    assert!(matches!(WindowRow::decode(&bytes), Err(RowError::Schema(_))));
    assert!(matches!(
        SessionRow::decode(&bytes[..bytes.len() - 1]),
        Err(RowError::Datum(_))
    ));
    assert!(matches!(
        SessionRow::decode(&[&bytes[..], &[0]].concat()),
        Err(RowError::Trailing(1))
    ));
    assert!(matches!(
        Row::decode(Topic::RawLogs, &bytes),
        Err(RowError::NotDerived(Topic::RawLogs))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_rows_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = session().encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(row) = SessionRow::decode(&bytes) {
            prop_assert_eq!(SessionRow::decode(&row.encode()).unwrap(), row);
        }
    }
}

/// A reader that has nothing but the schema gets the same names, order and types of fields as the structs
/// have.
#[test]
fn the_schema_alone_is_enough() {
    let mut row = session();
    row.set_counts(&counts(7));
    let schema = Schema::parse_str(SESSIONS_AVSC).unwrap();
    let reader = GenericDatumReader::builder(&schema).build().unwrap();
    let value = reader.read_value(&mut &row.encode()[10..]).unwrap();
    let json: Value = value.try_into().unwrap();
    assert_eq!(json, serde_json::to_value(&row).unwrap());
    let schema = Schema::parse_str(WINDOWS_AVSC).unwrap();
    let reader = GenericDatumReader::builder(&schema).build().unwrap();
    let ratio = Amount::Ratio {
        numerator: 1,
        denominator: 4,
    };
    let row = WindowRow::new(&series(Metric::ApiRetryRatio, "x"), 60_000, 0, Some(1), &ratio).unwrap();
    let json: Value = reader
        .read_value(&mut &row.encode()[10..])
        .unwrap()
        .try_into()
        .unwrap();
    assert_eq!(json["value"], json!({"numerator": 1, "denominator": 4}));
    assert!(matches!(row.value, WindowValue::Ratio { .. }));
}

#[test]
fn every_field_is_explained() {
    for avsc in [SESSIONS_AVSC, WINDOWS_AVSC] {
        let mut fields = 0;
        explained(&serde_json::from_str(avsc).unwrap(), &mut fields);
        assert!(fields > 10);
    }
}

fn explained(schema: &Value, fields: &mut usize) {
    match schema {
        Value::Array(branches) => branches.iter().for_each(|branch| explained(branch, fields)),
        Value::Object(members) => {
            if members.contains_key("name") {
                let doc = members.get("doc").and_then(Value::as_str).unwrap_or_default();
                assert!(doc.len() > 5, "{} has no doc", members["name"]);
                *fields += 1;
            }
            for name in ["fields", "type", "items"] {
                if let Some(inner) = members.get(name) {
                    explained(inner, fields);
                }
            }
        }
        _ => {}
    }
}
