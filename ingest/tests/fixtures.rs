//! Tests cleaning and splitting with recorded requests of real Codex runs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use ingest::prepare::environment::Routes;
use ingest::prepare::hash::HashKey;
use ingest::prepare::privacy::{self, TRACE_SAFE};
use ingest::prepare::route::{route, route_by};
use ingest::sink::{RawRecord, Sink, SinkError};
use ingest::{Config, Pipeline, Policies, Protocols, Signal};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message;
use schemas::event::PRIVATE_KEYS;
use schemas::privacy::{Action, Actions, PrivacyPolicy};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const DROP: Actions = Actions::all(Action::Drop);
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures");

/// Every recorded body: the name of its run, its signal, and the request in protobuf.
fn bodies() -> Vec<(String, Signal, Bytes)> {
    let mut bodies = Vec::new();
    let mut runs: Vec<PathBuf> = std::fs::read_dir(FIXTURES)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    runs.sort();
    for run in runs.iter().filter(|path| path.is_dir()) {
        let name = run.file_name().unwrap().to_str().unwrap();
        let mut files: Vec<PathBuf> = std::fs::read_dir(run)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        for file in files {
            let file_name = file.file_name().unwrap().to_str().unwrap();
            let Some(signal) = Signal::ALL
                .into_iter()
                .find(|signal| file_name.contains(&format!("-{}.", signal.name())))
            else {
                continue;
            };
            let bytes = content(&file);
            let request = if file_name.contains(".json") {
                ingest::prepare::json::to_protobuf(signal, &bytes).unwrap()
            } else {
                bytes
            };
            bodies.push((name.to_owned(), signal, Bytes::from(request)));
        }
    }
    assert!(bodies.len() > 100, "only {} bodies in {FIXTURES}", bodies.len());
    bodies
}

/// A client that takes its endpoint literally posts all signals to `/`, where the content must tell them apart.
#[tokio::test]
async fn every_body_tells_its_signal() {
    let sink = Arc::new(Seen::default());
    let protocols = Protocols::http(Pipeline::new(
        Config::default(),
        Policies::fixed(PrivacyPolicy::default()),
        Arc::clone(&sink),
    ));
    for (run, signal, request) in bodies() {
        let request = Request::post("/")
            .header("content-type", "application/x-protobuf")
            .body(Body::from(request))
            .unwrap();
        assert_eq!(protocols.answer(request).await.status(), 200, "{run}");
        let signals = std::mem::take(&mut *sink.0.lock().unwrap());
        assert!(
            signals.iter().all(|seen| *seen == signal),
            "{run}: {signals:?} for {signal:?}"
        );
    }
}

/// Keeps the signal of each record that it is given.
#[derive(Default)]
struct Seen(Mutex<Vec<Signal>>);

impl Sink for Seen {
    async fn append(&self, records: Vec<RawRecord>) -> Result<(), SinkError> {
        self.0
            .lock()
            .unwrap()
            .extend(records.iter().map(|record| record.signal));
        Ok(())
    }

    fn ready(&self) -> bool {
        true
    }
}

/// The content of a file, decompressed.
fn content(file: &Path) -> Vec<u8> {
    let bytes = std::fs::read(file).unwrap();
    if file.extension().is_none_or(|extension| extension != "gz") {
        return bytes;
    }
    let mut out = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes.as_slice())
        .read_to_end(&mut out)
        .unwrap();
    out
}

fn records(request: &[u8]) -> Vec<LogRecord> {
    let request = ExportLogsServiceRequest::decode(request).unwrap();
    request
        .resource_logs
        .into_iter()
        .flat_map(|logs| logs.scope_logs)
        .flat_map(|scope| scope.log_records)
        .collect()
}

fn value<'a>(record: &'a LogRecord, key: &str) -> Option<&'a Value> {
    record
        .attributes
        .iter()
        .find(|pair| pair.key == key)?
        .value
        .as_ref()?
        .value
        .as_ref()
}

fn text<'a>(record: &'a LogRecord, key: &str) -> Option<&'a str> {
    match value(record, key)? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

#[test]
fn every_record_of_every_run_comes_out_once_and_without_its_texts() {
    for (run, signal, request) in bodies() {
        let cleaned = privacy::apply(signal, request.clone(), DROP, None).unwrap();
        let raw = route(signal, "default", &cleaned.bytes).unwrap();
        assert_eq!(
            route_by(
                &Routes::default(),
                signal,
                "default",
                &cleaned.bytes,
                &cleaned.conversations
            )
            .unwrap(),
            raw,
            "{run}"
        );
        if signal != Signal::Logs {
            assert_eq!(raw.len(), 1, "{run}");
            assert_eq!(raw[0].value, cleaned.bytes);
            continue;
        }
        let (before, mut after) = (records(&request), Vec::new());
        for record in &raw {
            let conversations: Vec<_> = records(&record.value);
            if let Some(id) = record.key.strip_prefix("default/")
                && let Some(other) = conversations
                    .iter()
                    .filter_map(|record| text(record, "conversation.id"))
                    .find(|other| *other != id)
            {
                panic!("{run}: a record of {other} under {id}");
            }
            after.extend(conversations);
        }
        assert_eq!(after.len(), before.len(), "{run}");
        for key in PRIVATE_KEYS {
            let texts: Vec<_> = before.iter().filter_map(|record| text(record, key)).collect();
            assert!(
                after.iter().all(|record| value(record, key).is_none()),
                "{run}: {key}"
            );
            let sizes = after
                .iter()
                .filter(|record| value(record, &format!("tacho.{key}.bytes")).is_some())
                .count();
            assert_eq!(sizes, texts.len(), "{run}: {key}");
        }
    }
}

#[test]
fn recorded_span_events_are_all_safe() {
    let mut events = 0;
    for (run, signal, request) in bodies() {
        if signal != Signal::Traces {
            continue;
        }
        let cleaned = privacy::apply(signal, request, DROP, None).unwrap();
        assert_eq!(
            cleaned.counts.dropped[PRIVATE_KEYS.len() + 1],
            0,
            "{run}: Codex sends only events of {TRACE_SAFE}"
        );
        let decoded = ExportTraceServiceRequest::decode(cleaned.bytes).unwrap();
        let spans = decoded
            .resource_spans
            .into_iter()
            .flat_map(|spans| spans.scope_spans)
            .flat_map(|scope| scope.spans);
        events += spans.map(|span| span.events.len()).sum::<usize>();
    }
    assert!(events > 100, "{events}");
}

/// What cleaning takes out of a tool's result: run, tool, exit code, whether an agent was spawned, shape of the command.
type ToolFacts<'a> = (&'a str, &'a str, Option<i64>, bool, Option<&'a str>);

/// Facts that must be among those of the recordings.
const TOOL_FACTS: [ToolFacts<'_>; 11] = [
    (
        "http-binary-tool_fails",
        "exec_command",
        Some(3),
        false,
        Some("echo about-to-fail"),
    ),
    (
        "0.104.0-http-binary-tool_fails",
        "exec_command",
        Some(3),
        false,
        Some("echo about-to-fail"),
    ),
    (
        "http-binary-sandbox_denied",
        "exec_command",
        Some(1),
        false,
        Some("touch"),
    ),
    (
        "http-binary-big_output",
        "exec_command",
        Some(0),
        false,
        Some("python3"),
    ),
    (
        "http-binary-approval_denied",
        "exec_command",
        None,
        false,
        Some("touch"),
    ),
    (
        "http-binary-tool_unknown",
        "exec_command",
        None,
        false,
        Some("other"),
    ),
    ("http-binary-apply_patch", "apply_patch", None, false, None),
    ("http-binary-subagent", "spawn_agent", None, true, None),
    ("http-binary-subagent_v2", "spawn_agent", None, false, None),
    (
        "http-binary-code_mode",
        "exec_command",
        Some(0),
        false,
        Some("echo from-code-mode"),
    ),
    (
        "http-json-basic",
        "exec_command",
        Some(0),
        false,
        Some("echo hello-from-tool"),
    ),
];

#[test]
fn facts_of_recorded_tool_results() {
    let mut facts = Vec::new();
    for (run, signal, request) in bodies() {
        if signal != Signal::Logs {
            continue;
        }
        let cleaned = privacy::apply(signal, request, DROP, None).unwrap();
        for record in records(&cleaned.bytes) {
            let Some(tool) = text(&record, "tool_name")
                .filter(|_| text(&record, "event.name") == Some("codex.tool_result"))
            else {
                continue;
            };
            let exit = match value(&record, "tacho.exit_code") {
                Some(Value::IntValue(code)) => Some(*code),
                None => None,
                other => panic!("{run}: {other:?}"),
            };
            let agent = text(&record, "tacho.spawned_agent").is_some();
            let shape = text(&record, "tacho.command_shape").map(str::to_owned);
            facts.push((
                run.trim_start_matches("0.169.0-").to_owned(),
                tool.to_owned(),
                exit,
                agent,
                shape,
            ));
        }
    }
    for (run, tool, exit, agent, shape) in TOOL_FACTS {
        let fact = (
            run.to_owned(),
            tool.to_owned(),
            exit,
            agent,
            shape.map(str::to_owned),
        );
        assert!(facts.contains(&fact), "{fact:?} is not among {facts:#?}");
    }
}

/// Everything is derived from attributes that no policy changes, so it is the same under any policy.
#[test]
fn every_record_of_every_run_means_the_same_whatever_is_kept() {
    let key = HashKey::new(b"a key of some length").unwrap();
    let of = |field: &'static str| {
        Actions::of(move |kept| if kept == field { Action::Keep } else { Action::Drop })
    };
    let shipped = schemas::settings::Seed::shipped().privacy.actions("default");
    let policies: Vec<Actions> = schemas::privacy::fields()
        .map(of)
        .chain(Action::ALL.map(Actions::all))
        .chain([shipped])
        .collect();
    let mut texts = 0;
    for (run, signal, request) in bodies()
        .into_iter()
        .filter(|(_, signal, _)| *signal == Signal::Logs)
    {
        let under = |actions: Actions| {
            let cleaned = privacy::apply(signal, request.clone(), actions, Some(&key)).unwrap();
            let raw = route(signal, "default", &cleaned.bytes).unwrap();
            assert_eq!(
                route_by(
                    &Routes::default(),
                    signal,
                    "default",
                    &cleaned.bytes,
                    &cleaned.conversations
                )
                .unwrap(),
                raw,
                "{run}"
            );
            let places: Vec<_> = raw.iter().map(|record| record.key.clone()).collect();
            let kept: Vec<_> = raw.iter().flat_map(|record| records(&record.value)).collect();
            (places, kept)
        };
        let (places, dropped) = under(DROP);
        for &kept in &policies {
            let (kept_places, kept_records) = under(kept);
            assert_eq!(kept_places, places, "{run}: the same parts, in the same places");
            for (kept, dropped) in kept_records.iter().zip(&dropped) {
                texts += PRIVATE_KEYS
                    .iter()
                    .filter(|key| value(kept, key).is_some())
                    .count();
                assert_eq!(meaning(kept), meaning(dropped), "{run}");
            }
            assert_eq!(kept_records.len(), dropped.len(), "{run}");
        }
    }
    assert!(texts > 100, "{texts}");
}

/// A record without texts and without the sizes of removed texts, its attributes in the order of their keys.
fn meaning(record: &LogRecord) -> LogRecord {
    let mut record = LogRecord {
        body: None,
        ..record.clone()
    };
    let is_text = |key: &str| PRIVATE_KEYS.contains(&key);
    let is_size = |key: &str| key.starts_with("tacho.") && key.ends_with(".bytes");
    record
        .attributes
        .retain(|pair| !is_text(&pair.key) && !is_size(&pair.key));
    record.attributes.sort_by(|a, b| a.key.cmp(&b.key));
    record
}
