//! A secret of every rule of the scrubber is not found anywhere: in files, topics, log messages, or what is
//! shown.

use super::privacy::{KEYS, any};
use crate::support::replay::read_topic;
use crate::support::tacho::{PROTOBUF, Start, Tacho};
use crate::support::{now_ms, otlp};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric,
};
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use processor_log::embedded::Embedded;
use prost::Message;
use schemas::settings::Seed;
use schemas::topic::Topic;
use std::path::Path;
use strum::VariantArray;

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

/// Attributes with the text, under every key that a policy can name.
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

/// Runs a process that scrubs every field, sends the examples, ends it, and gives all of its output and all
/// that it showed.
fn run(dir: &Path, data: &Path, examples: &[(String, Vec<String>)]) -> String {
    let seed = dir.join("seed.toml");
    let shipped = include_str!("../../deploy/control.toml");
    std::fs::write(
        &seed,
        format!("{}{SCRUB}", shipped.split_once("[privacy.default]").unwrap().0),
    )
    .unwrap();
    let tacho = Start::data(data)
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
    shown
}

/// Every place in which a secret could be: what was shown, the files, and the records of all topics.
fn places(data: &Path, shown: String) -> Vec<(String, Vec<u8>)> {
    let mut places = vec![("shown or logged".to_owned(), shown.into_bytes())];
    let mut folders = vec![data.to_owned()];
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
    let mut log = Embedded::open(data, &Seed::shipped()).unwrap().handle();
    for &topic in Topic::VARIANTS {
        for record in read_topic(&mut log, topic) {
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
    places
}

#[test]
fn a_secret_of_each_rule_is_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let examples = planted_by_rule();
    assert_eq!(examples.len(), 222);
    let data = dir.path().join("data");
    let shown = run(dir.path(), &data, &examples);
    assert!(
        shown.contains("tacho_redactions_total{field=\"output\",rule=\"github-pat\",action=\"scrub\"}"),
        "{shown}"
    );
    let places = places(&data, shown);
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
