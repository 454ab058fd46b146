//! Tests the scrubber with gitleaks' own examples, and with texts that only look like secrets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use ingest::Signal;
use ingest::prepare::hash::HashKey;
use ingest::prepare::privacy::{self, Cleaned};
use ingest::prepare::scrub::Scrubber;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use prost::Message;
use schemas::event::PRIVATE_KEYS;
use schemas::privacy::{Action, Actions};
use std::collections::{BTreeMap, BTreeSet};

/// gitleaks' examples with values of its generators, some for each rule. A line is the rule, `+` or `-`, and the text in
/// hexadecimal. Where gitleaks has no negative example for a rule, it is a positive one with its letters apart.
const VECTORS: &str = include_str!("vectors.tsv");

/// A rule that takes any line near "kind: Secret" for a secret: when one line is taken out, it finds the next.
const WIDE: &str = "kubernetes-secret-yaml";

struct Vector {
    rule: &'static str,
    positive: bool,
    text: String,
}

fn vectors() -> Vec<Vector> {
    let of = |line: &'static str| {
        let mut parts = line.split('\t');
        let (rule, sign, hex) = (
            parts.next().unwrap(),
            parts.next().unwrap(),
            parts.next().unwrap(),
        );
        let bytes = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        Vector {
            rule,
            positive: sign == "+",
            text: String::from_utf8(bytes).unwrap(),
        }
    };
    VECTORS.lines().map(of).collect()
}

/// The rules that find something in a text, and the text afterwards.
fn found(text: &str) -> (Vec<&'static str>, String) {
    Scrubber::shared()
        .scrub(text)
        .map_or_else(|| (Vec::new(), text.to_owned()), |(after, rules)| (rules, after))
}

/// The secrets that were taken out of a text. What stands before and after each mark is in both texts.
fn secrets(before: &str, after: &str) -> Vec<String> {
    let (mut secrets, mut rest, mut pieces) = (Vec::new(), before, after.split("[scrubbed:"));
    rest = rest.strip_prefix(pieces.next().unwrap()).unwrap();
    for piece in pieces {
        let stays = piece.split_once(']').unwrap().1;
        let at = if stays.is_empty() {
            rest.len()
        } else {
            rest.find(stays).unwrap()
        };
        secrets.push(rest[..at].to_owned());
        rest = &rest[at + stays.len()..];
    }
    secrets
}

#[test]
fn every_rule_has_a_positive_and_a_negative_example() {
    let (mut positive, mut negative) = (BTreeSet::new(), BTreeSet::new());
    for vector in vectors() {
        if vector.positive {
            &mut positive
        } else {
            &mut negative
        }
        .insert(vector.rule.to_owned());
    }
    let rules: BTreeSet<String> = Scrubber::shared().rule_ids().map(str::to_owned).collect();
    assert_eq!(rules.len(), 222);
    assert_eq!(positive, rules);
    assert_eq!(negative, rules);
}

#[test]
fn positive_examples_are_found_and_gone_and_negative_ones_are_not_found() {
    let mut wrong = Vec::new();
    for Vector { rule, positive, text } in vectors() {
        let (rules, after) = found(&text);
        if positive && rules.is_empty() {
            wrong.push(format!("{rule}: not found in {text}"));
        } else if !positive && rules.contains(&rule) {
            wrong.push(format!("{rule}: found in {text}"));
        }
        for secret in secrets(&text, &after).iter().filter(|secret| secret.len() > 7) {
            assert!(
                !after.contains(secret.as_str()),
                "{rule}: {secret} is still in {after}"
            );
        }
        let again = found(&after);
        if again.1 != after && rule != WIDE {
            wrong.push(format!("{rule}: {after} becomes {}", again.1));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Several rules may find the same secret, which is counted under one of them, so some rules are never named.
#[test]
fn each_rule_finds_its_own_or_is_under_another_that_finds_more() {
    let mut by_itself = BTreeSet::new();
    for vector in vectors().into_iter().filter(|vector| vector.positive) {
        if found(&vector.text).0.contains(&vector.rule) {
            by_itself.insert(vector.rule);
        }
    }
    assert!(
        by_itself.len() > 190,
        "only {} rules are named for their own examples",
        by_itself.len()
    );
}

#[test]
fn an_example_in_the_json_of_a_command_is_found_too() {
    let mut missed = Vec::new();
    for vector in vectors().into_iter().filter(|vector| vector.positive) {
        let plain = secrets(&vector.text, &found(&vector.text).1);
        let json = serde_json::json!({ "cmd": vector.text, "workdir": "/home/u" }).to_string();
        let (_, after) = found(&json);
        let left = plain
            .iter()
            .filter(|secret| secret.len() > 7 && after.contains(secret.as_str()))
            .count();
        if left > 0 || after == json {
            missed.push(format!("{}: {json}", vector.rule));
        }
        // The text must still be JSON, so that readers understand it.
        if let Err(error) = serde_json::from_str::<serde_json::Value>(&after) {
            missed.push(format!("{}: {error}: {after}", vector.rule));
        }
    }
    assert!(
        missed.is_empty(),
        "{} missed:\n{}",
        missed.len(),
        missed.join("\n")
    );
}

#[test]
fn what_only_looks_like_a_secret_stays() {
    for text in [
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8\nAuthor: A <a@example.com>",
        "HEAD is now at 5350252 commit: wait for the records of a transaction",
        "index 85311bd..555d34d 100644\n--- a/src/main.rs\n+++ b/src/main.rs",
        "trace_id=4bf92f3577b34da6a3ce929d0e0e4736 span_id=00f067aa0ba902b7",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "conversation 01a20456-beb6-7bd3-a0c9-8b370f76554d ended",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  empty.txt",
        "data:text/plain;base64,aGVsbG8gd29ybGQsIHRoaXMgaXMgbm90aGluZyBhdCBhbGw=",
        "checksum = \"b28ede6d6e0f4a7a2d5e6ff4e7a2ff1b\"",
        "running 14 tests\ntest tests::the_key_is_not_shown ... ok\ntest result: ok. 14 passed; 0 failed",
        "{\"cmd\":\"rg -n 'fn token' src | head -20\",\"workdir\":\"/home/u/project\"}",
        "{\"cmd\":[\"bash\",\"-lc\",\"cargo test -p ingest --test scrub -- --nocapture\"]}",
        "*** Begin Patch\n*** Update File: src/auth.rs\n@@\n-    let key = read_key(path)?;\n+    let key = read_key(&path)?;\n*** End Patch",
        "http 429 Too Many Requests: retry after 20 s",
        "stream disconnected before completion: idle timeout waiting for SSE",
    ] {
        assert_eq!(found(text).0, Vec::<&str>::new(), "{text}");
    }
}

fn text(text: &str) -> Option<AnyValue> {
    Some(AnyValue {
        value: Some(Value::StringValue(text.to_owned())),
    })
}

fn pair(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: text(value),
        ..Default::default()
    }
}

fn every_key(secret: &str) -> Vec<KeyValue> {
    PRIVATE_KEYS.iter().map(|key| pair(key, secret)).collect()
}

fn logs(secret: &str) -> Vec<u8> {
    let record = LogRecord {
        attributes: every_key(secret),
        body: text(secret),
        observed_time_unix_nano: 7,
        ..Default::default()
    };
    let scope_logs = vec![ScopeLogs {
        log_records: vec![record],
        ..Default::default()
    }];
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs,
            ..Default::default()
        }],
    }
    .encode_to_vec()
}

fn traces(secret: &str) -> Vec<u8> {
    let event = span::Event {
        name: secret.to_owned(),
        attributes: vec![pair("message", secret)],
        ..Default::default()
    };
    let link = span::Link {
        trace_id: vec![1; 16],
        attributes: vec![pair("note", secret)],
        ..Default::default()
    };
    let attributes = every_key(secret)
        .into_iter()
        .chain([pair("note", secret)])
        .collect();
    let status = Some(Status {
        message: secret.to_owned(),
        code: 2,
    });
    let span = Span {
        trace_id: vec![1; 16],
        attributes,
        events: vec![event],
        links: vec![link],
        status,
        ..Default::default()
    };
    let scope_spans = vec![ScopeSpans {
        spans: vec![span],
        ..Default::default()
    }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans,
            ..Default::default()
        }],
    }
    .encode_to_vec()
}

fn metrics(secret: &str) -> Vec<u8> {
    let point = NumberDataPoint {
        attributes: every_key(secret),
        ..Default::default()
    };
    let data = Some(metric::Data::Sum(Sum {
        data_points: vec![point],
        ..Default::default()
    }));
    let scope_metrics = vec![ScopeMetrics {
        metrics: vec![Metric {
            data,
            ..Default::default()
        }],
        ..Default::default()
    }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics,
            ..Default::default()
        }],
    }
    .encode_to_vec()
}

fn requests(secret: &str) -> [(Signal, Vec<u8>, usize); 3] {
    let keys = PRIVATE_KEYS.len();
    [
        (Signal::Logs, logs(secret), keys + 1),
        (Signal::Traces, traces(secret), keys + 5),
        (Signal::Metrics, metrics(secret), keys),
    ]
}

fn holds(bytes: &[u8], secret: &str) -> bool {
    bytes
        .windows(secret.len())
        .any(|window| window == secret.as_bytes())
}

#[test]
fn a_secret_of_each_rule_is_in_no_field_of_no_signal() {
    for vector in vectors().into_iter().filter(|vector| vector.positive) {
        let secrets = secrets(&vector.text, &found(&vector.text).1);
        assert!(!secrets.is_empty(), "{}", vector.rule);
        for (signal, request, places) in requests(&vector.text) {
            let Cleaned { bytes, counts, .. } =
                privacy::apply(signal, request.into(), Actions::all(Action::Scrub), None).unwrap();
            for secret in secrets.iter().filter(|secret| secret.len() > 7) {
                assert!(!holds(&bytes, secret), "{} in {}", vector.rule, signal.name());
            }
            let count: u64 = counts.scrubbed.values().sum();
            assert_eq!(
                count as usize,
                places * secrets.len(),
                "{} in {}: {:?}",
                vector.rule,
                signal.name(),
                counts.scrubbed
            );
            // Cleaning what is clean changes nothing.
            let again = privacy::apply(signal, bytes.clone(), Actions::all(Action::Scrub), None)
                .unwrap()
                .bytes;
            assert!(
                again == bytes || vector.rule == WIDE,
                "{} in {}",
                vector.rule,
                signal.name()
            );
        }
    }
}

#[test]
fn what_holds_no_secret_goes_through_byte_for_byte() {
    for (signal, request, _) in requests("cargo test --workspace") {
        let request = Bytes::from(request);
        let cleaned = privacy::apply(signal, request.clone(), Actions::all(Action::Scrub), None).unwrap();
        assert_eq!(cleaned.bytes.as_ptr(), request.as_ptr(), "{}", signal.name());
        assert_eq!(cleaned.counts, privacy::Counts::default());
    }
}

#[test]
fn a_hash_takes_the_place_of_every_value_and_without_a_key_there_is_none() {
    let key = HashKey::new(b"a key of some length").unwrap();
    let (secret, actions) = ("somebody@example.com", Actions::all(Action::Hash));
    for (signal, request, _) in requests(secret) {
        let hashed = privacy::apply(signal, request.clone().into(), actions, Some(&key)).unwrap();
        assert!(
            !holds(&hashed.bytes, secret) && holds(&hashed.bytes, &key.hash(secret.as_bytes())),
            "{}",
            signal.name()
        );
        assert_eq!(
            (hashed.counts.dropped, hashed.counts.unhashed),
            Default::default()
        );
        let dropped = privacy::apply(signal, request.clone().into(), actions, None).unwrap();
        assert!(
            !holds(&dropped.bytes, secret) && !holds(&dropped.bytes, "hmac:"),
            "{}",
            signal.name()
        );
        assert_eq!(
            (dropped.counts.unhashed, dropped.counts.hashed),
            (hashed.counts.hashed, Default::default())
        );
        let same = privacy::apply(signal, request.into(), Actions::all(Action::Drop), None).unwrap();
        assert_eq!(same.bytes, dropped.bytes, "as if it were dropped");
    }
    let decoded = privacy::apply(Signal::Logs, logs(secret).into(), actions, Some(&key)).unwrap();
    let request = ExportLogsServiceRequest::decode(decoded.bytes).unwrap();
    let record = &request.resource_logs[0].scope_logs[0].log_records[0];
    let hash = key.hash(secret.as_bytes());
    assert_eq!(record.attributes, PRIVATE_KEYS.map(|key| pair(key, &hash)));
    assert_eq!(record.body, text(&hash));
}

#[test]
fn counts_name_the_field_and_the_rule() {
    let vector = vectors()
        .into_iter()
        .find(|vector| vector.rule == "github-pat" && vector.positive)
        .unwrap();
    let actions = Actions::of(|field| {
        if field == "output" {
            Action::Scrub
        } else {
            Action::Drop
        }
    });
    let cleaned = privacy::apply(Signal::Logs, logs(&vector.text).into(), actions, None).unwrap();
    let output = PRIVATE_KEYS.iter().position(|key| *key == "output").unwrap();
    assert_eq!(
        cleaned.counts.scrubbed,
        BTreeMap::from([((output, "github-pat"), 1)])
    );
    assert_eq!(
        cleaned.counts.dropped.iter().sum::<u64>() as usize,
        PRIVATE_KEYS.len()
    );
}
