//! Planted private texts and secrets are not found anywhere: in files, topics, log messages, or what is shown.

use crate::support::tacho::{JSON, PROTOBUF, Start, Tacho};
use crate::support::{eventually, now_ms, otlp};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::metrics::v1::{
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use processor_log::ReadLog;
use processor_log::embedded::Embedded;
use prost::Message;
use schemas::settings::Seed;
use schemas::topic::Topic;
use std::path::Path;
use strum::VariantArray;

/// The planted text: a policy drops it with its field, and the scrubber overwrites it as a secret. (It is in two parts, so that no
/// scanner takes it for a leak.)
const PLANTED: &str = concat!("gh", "p_a8Kd93hFq0Zx7Lw2Nb5Vt6Yc1Me4Rj8Su3Pg");
const KEYS: [&str; 6] = [
    "prompt",
    "arguments",
    "output",
    "content",
    "response",
    "error.message",
];

fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

/// Attributes that hold the planted text: as it is, nested, and within commands and outputs.
fn secrets() -> Vec<KeyValue> {
    let plain = KEYS.map(|key| otlp::attribute(key, otlp::text(format!("say {PLANTED} now"))));
    let inner = vec![
        otlp::attribute("content", otlp::text(PLANTED)),
        otlp::attribute("harmless", otlp::int(1)),
    ];
    let list = any(Value::KvlistValue(KeyValueList { values: inner }));
    let nested = otlp::attribute("nested", Value::ArrayValue(ArrayValue { values: vec![list] }));
    plain.into_iter().chain([nested]).collect()
}

fn logs() -> ExportLogsServiceRequest {
    let now = now_ms();
    let mut prompt = otlp::prompt("c", now);
    prompt.attributes.extend(secrets());
    prompt.body = Some(any(otlp::text(format!("body {PLANTED}"))));
    let command = otlp::attribute(
        "arguments",
        otlp::text(format!(
            "{{\"cmd\":\"{PLANTED} --flag\",\"command\":[\"{PLANTED}\"]}}"
        )),
    );
    let output = otlp::attribute(
        "output",
        otlp::text(format!("Process exited with code 3\n{PLANTED}")),
    );
    let mut result = otlp::record(
        "codex.tool_result",
        "c",
        now,
        vec![
            ("tool_name", otlp::text("exec_command")),
            ("success", otlp::text("true")),
        ],
    );
    result.attributes.extend([command, output]);
    let bytes = KEYS.map(|key| otlp::attribute(key, Value::BytesValue(PLANTED.as_bytes().to_vec())));
    let mut communication = otlp::record("codex.agent_communication", "c", now, vec![]);
    communication.attributes.extend(bytes);
    let mut request = otlp::logs(vec![prompt, result, communication]);
    request.resource_logs[0].resource = Some(Resource {
        attributes: secrets(),
        ..Resource::default()
    });
    request.resource_logs[0].scope_logs[0]
        .scope
        .get_or_insert_default()
        .attributes = secrets();
    request
}

fn traces() -> ExportTraceServiceRequest {
    let event = |target: &str| Event {
        name: "event".to_owned(),
        attributes: secrets()
            .into_iter()
            .chain([otlp::attribute("target", otlp::text(target))])
            .collect(),
        ..Event::default()
    };
    let untold = Event {
        name: PLANTED.to_owned(),
        attributes: vec![otlp::attribute("message", otlp::text(PLANTED))],
        ..Event::default()
    };
    let span = Span {
        trace_id: vec![7; 16],
        span_id: vec![7; 8],
        name: "span".to_owned(),
        attributes: secrets()
            .into_iter()
            .chain([otlp::attribute("note", otlp::text(PLANTED))])
            .collect(),
        events: vec![
            event("codex_otel.trace_safe"),
            event("codex_otel.log_only"),
            untold,
        ],
        links: vec![Link {
            trace_id: vec![8; 16],
            span_id: vec![8; 8],
            attributes: secrets(),
            ..Link::default()
        }],
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans {
        spans: vec![span],
        ..ScopeSpans::default()
    }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans,
            ..ResourceSpans::default()
        }],
    }
}

fn metrics() -> ExportMetricsServiceRequest {
    let point = NumberDataPoint {
        attributes: secrets(),
        value: Some(number_data_point::Value::AsInt(1)),
        ..NumberDataPoint::default()
    };
    let data = Some(metric::Data::Sum(Sum {
        data_points: vec![point],
        ..Sum::default()
    }));
    let metric = Metric {
        name: "m".to_owned(),
        data,
        ..Metric::default()
    };
    let scope_metrics = vec![ScopeMetrics {
        metrics: vec![metric],
        ..ScopeMetrics::default()
    }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics,
            ..ResourceMetrics::default()
        }],
    }
}

/// Sends all three signals in every encoding and compression.
fn send_all(tacho: &Tacho) {
    let bodies = [
        (
            "/v1/logs",
            logs().encode_to_vec(),
            serde_json::to_vec(&logs()).unwrap(),
        ),
        (
            "/v1/traces",
            traces().encode_to_vec(),
            serde_json::to_vec(&traces()).unwrap(),
        ),
        (
            "/v1/metrics",
            metrics().encode_to_vec(),
            serde_json::to_vec(&metrics()).unwrap(),
        ),
    ];
    for (path, protobuf, json) in bodies {
        for (content_type, body) in [(PROTOBUF, protobuf), (JSON, json)] {
            assert_eq!(
                tacho.post(path, content_type, &body),
                Ok(200),
                "{path} {content_type}"
            );
            assert_eq!(
                tacho.post_encoded(path, content_type, Some("gzip"), &otlp::gzip(&body)),
                Ok(200),
                "{path} {content_type} gzip"
            );
            // A refusal must not quote the body.
            assert_eq!(
                tacho.post(path, content_type, &body[..body.len() - 3]),
                Ok(400),
                "{path} {content_type} truncated"
            );
        }
    }
}

/// Runs a process, sends everything, ends it, and gives all of its output and all that it showed.
fn run(dir: &Path, more: &[&str]) -> String {
    let mut start = Start::data(dir).log("debug,fjall=trace");
    for arg in more {
        start = start.arg(*arg);
    }
    let tacho = start.ready();
    send_all(&tacho);
    tacho.wait_for_count("tacho_log_records_total", &[], 4 * 3);
    eventually("the page's session", || {
        match tacho.get("/api/overview").unwrap().1 {
            text if text.contains("\"c\"") => Ok(()),
            text => Err(text),
        }
    });
    let shown = ["/metrics", "/api/overview", "/"]
        .map(|path| tacho.get(path).unwrap().1)
        .concat();
    let (status, said) = tacho.end();
    assert!(status.success(), "{said}");
    shown + &said
}

fn holds(bytes: &[u8]) -> bool {
    // The beginning of the planted text alone would be a leak too.
    let begin = &PLANTED.as_bytes()[..20];
    bytes.windows(begin.len()).any(|window| window == begin)
}

fn files(dir: &Path, found: &mut Vec<String>) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            count += files(&path, found);
        } else {
            count += 1;
            if holds(&std::fs::read(&path).unwrap()) || holds(path.to_string_lossy().as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    count
}

/// The topics with records that hold the text in key, value or headers, and the number of records in all topics.
fn topics(dir: &Path) -> (Vec<&'static str>, usize) {
    let mut log = Embedded::open(dir, &Seed::shipped()).unwrap().handle();
    let (mut found, mut count) = (Vec::new(), 0);
    for &topic in Topic::VARIANTS {
        assert!(log.partitions(topic).unwrap() > 0);
        let records = crate::support::replay::read_topic(&mut log, topic);
        count += records.len();
        let in_record = |record: &schemas::record::Record| {
            let headers = record
                .headers
                .iter()
                .any(|(name, value)| holds(name.as_bytes()) || holds(value));
            headers || record.key.as_deref().is_some_and(holds) || record.value.as_deref().is_some_and(holds)
        };
        if records.iter().any(in_record) {
            found.push(topic.name());
        }
    }
    (found, count)
}

#[test]
fn a_planted_text_is_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let shown = run(dir.path(), &[]);
    assert!(!holds(shown.as_bytes()), "the text was shown or logged: {shown}");
    assert!(shown.contains("tacho_log_records_total"), "no metrics were shown");
    let mut found = Vec::new();
    let count = files(dir.path(), &mut found);
    assert!(count > 0 && found.is_empty(), "files hold the text: {found:?}");
    // Blocks on disk may be compressed, so the records are read too.
    let (found, count) = topics(dir.path());
    assert!(
        count > 12 && found.is_empty(),
        "topics hold the text: {found:?} of {count} records"
    );
}

#[test]
fn the_same_search_finds_it_where_text_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let shown = run(dir.path(), &["--keep-text"]);
    assert!(
        !holds(shown.as_bytes()),
        "a text that is kept was shown or logged: {shown}"
    );
    assert!(
        shown.contains("--keep-text"),
        "no warning says that texts are kept"
    );
    let (found, _) = topics(dir.path());
    assert_eq!(
        found,
        ["codex.raw.logs.v1", "codex.raw.traces.v1", "codex.raw.metrics.v1"]
    );
}

/// Examples of Gitleaks: rule, `+` (is a secret) or `-` (is none), text in hexadecimal.
const VECTORS: &str = include_str!("../../ingest/tests/scrub/vectors.tsv");
/// A policy that scrubs secrets and keeps everything else.
const SCRUB: &str = "[privacy.default]\nprompt = \"scrub\"\narguments = \"scrub\"\noutput = \"scrub\"\ncontent = \"scrub\"\n\
    response = \"scrub\"\n\"error.message\" = \"scrub\"\n\"user.email\" = \"scrub\"\n\"user.account_id\" = \"scrub\"\nbody = \"scrub\"\n\
    span_events = \"scrub\"\nspan_attributes = \"scrub\"\n";

/// A positive example of each rule, with the parts of it that are secret.
fn planted_by_rule() -> Vec<(String, Vec<String>)> {
    let mut seen = std::collections::BTreeSet::new();
    let lines = VECTORS.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let first = lines.filter(|parts| parts[1] == "+" && seen.insert(parts[0].to_owned()));
    let texts = first.map(|parts| {
        let byte = |at: usize| u8::from_str_radix(&parts[2][at..at + 2], 16).unwrap();
        String::from_utf8((0..parts[2].len()).step_by(2).map(byte).collect()).unwrap()
    });
    texts.map(|text| (text.clone(), secrets_in(&text))).collect()
}

/// The parts of a text that the scrubber overwrites and that are too long to occur by chance.
fn secrets_in(text: &str) -> Vec<String> {
    let (after, _) = ingest::prepare::scrub::Scrubber::shared().scrub(text).unwrap();
    let mut pieces = after.split("[scrubbed:");
    let mut rest = text.strip_prefix(pieces.next().unwrap()).unwrap();
    let mut secrets = Vec::new();
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
    secrets.retain(|secret| secret.len() > 11);
    secrets
}

fn everywhere(text: &str) -> Vec<KeyValue> {
    KEYS.into_iter()
        .chain(["user.email", "user.account_id"])
        .map(|key| otlp::attribute(key, otlp::text(text)))
        .collect()
}

/// Requests with every example in every field of a record, a span and a data point.
fn send_examples(tacho: &Tacho, texts: &[String]) {
    let (mut records, mut spans, mut points) = (Vec::new(), Vec::new(), Vec::new());
    for text in texts {
        let mut record = otlp::record("codex.sse_event", "c", now_ms(), vec![]);
        record.attributes.extend(everywhere(text));
        record.body = Some(any(otlp::text(text.as_str())));
        records.push(record);
        let note = vec![otlp::attribute("note", otlp::text(text.as_str()))];
        let event = Event {
            name: text.clone(),
            attributes: note.clone(),
            ..Event::default()
        };
        let attributes = everywhere(text).into_iter().chain(note).collect();
        spans.push(Span {
            trace_id: vec![7; 16],
            span_id: vec![7; 8],
            attributes,
            events: vec![event],
            ..Span::default()
        });
        points.push(NumberDataPoint {
            attributes: everywhere(text),
            ..NumberDataPoint::default()
        });
    }
    let scope_spans = vec![ScopeSpans {
        spans,
        ..ScopeSpans::default()
    }];
    let traces = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans,
            ..ResourceSpans::default()
        }],
    };
    let data = Some(metric::Data::Sum(Sum {
        data_points: points,
        ..Sum::default()
    }));
    let scope_metrics = vec![ScopeMetrics {
        metrics: vec![Metric {
            data,
            ..Metric::default()
        }],
        ..ScopeMetrics::default()
    }];
    let metrics = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics,
            ..ResourceMetrics::default()
        }],
    };
    let requests = [
        ("/v1/logs", otlp::encode(records)),
        ("/v1/traces", traces.encode_to_vec()),
        ("/v1/metrics", metrics.encode_to_vec()),
    ];
    for (path, body) in requests {
        assert_eq!(tacho.post(path, PROTOBUF, &body), Ok(200), "{path}");
        assert_eq!(
            tacho.post(path, PROTOBUF, &body[..body.len() - 3]),
            Ok(400),
            "{path} truncated"
        );
    }
}

#[expect(clippy::too_many_lines, reason = "one scenario, told in order")]
#[test]
fn a_secret_of_each_rule_is_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let examples = planted_by_rule();
    assert_eq!(examples.len(), 222);
    let seed = dir.path().join("seed.toml");
    let shipped = include_str!("../../deploy/control.toml");
    std::fs::write(
        &seed,
        format!("{}{SCRUB}", shipped.split_once("[privacy.default]").unwrap().0),
    )
    .unwrap();
    let data = dir.path().join("data");
    let tacho = Start::data(&data)
        .log("debug,fjall=trace")
        .arg("--seed")
        .arg(seed.to_str().unwrap())
        .ready();
    let texts: Vec<String> = examples.iter().map(|(text, _)| text.clone()).collect();
    send_examples(&tacho, &texts);
    tacho.wait_for_count("tacho_log_records_total", &[], 222);
    let mut shown = ["/metrics", "/api/overview", "/"]
        .map(|path| tacho.get(path).unwrap().1)
        .concat();
    let (status, said) = tacho.end();
    assert!(status.success(), "{said}");
    shown.push_str(&said);
    assert!(
        shown.contains("tacho_redactions_total{field=\"output\",rule=\"github-pat\",action=\"scrub\"}"),
        "{shown}"
    );

    let mut places = vec![("shown or logged".to_owned(), shown.into_bytes())];
    let mut folders = vec![data.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                places.push((path.display().to_string(), std::fs::read(&path).unwrap()));
            }
        }
    }
    // Blocks on disk may be compressed, so the records are read too.
    let mut log = Embedded::open(&data, &Seed::shipped()).unwrap().handle();
    for &topic in Topic::VARIANTS {
        for record in crate::support::replay::read_topic(&mut log, topic) {
            let headers = record.headers.iter().flat_map(|(_, value)| value.to_vec());
            let key = record.key.iter().flat_map(|key| key.to_vec());
            let bytes = record
                .value
                .iter()
                .flat_map(|value| value.to_vec())
                .chain(headers)
                .chain(key)
                .collect();
            places.push((topic.name().to_owned(), bytes));
        }
    }
    assert!(
        places
            .iter()
            .any(|(name, bytes)| name == "codex.raw.logs.v1" && !bytes.is_empty())
    );
    let secrets: Vec<&String> = examples.iter().flat_map(|(_, secrets)| secrets).collect();
    assert!(
        secrets.len() > 200 && places.len() > 10,
        "{} secrets, {} places",
        secrets.len(),
        places.len()
    );
    let search = aho_corasick::AhoCorasick::new(&secrets).unwrap();
    for (place, bytes) in places {
        if let Some(found) = search.find(&bytes) {
            panic!("{} in {place}", secrets[found.pattern().as_usize()]);
        }
    }
}
