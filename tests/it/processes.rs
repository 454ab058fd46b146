//! `tacho-ingest` and `tacho-processor` as processes: their work, their settings, and their end.

use crate::support::broker::Broker;
use crate::support::facts::differ_in_metrics;
use crate::support::fixtures::{self, Recording};
use crate::support::processes::{Launch, Process, ingest, processor, tacho};
use crate::support::samples::Samples;
use crate::support::tacho::PROTOBUF;
use crate::support::{eventually, now_ms, otlp};
use nix::sys::signal::Signal;
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

/// The exit status and the output of a command.
pub fn text(output: &Output) -> String {
    format!(
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Runs `tacho topics apply` with that seed.
pub fn apply(bootstrap: &str, prefix: &str, seed: Option<&Path>) {
    let mut launch = tacho().args(&[
        "topics",
        "apply",
        "--allow-single-broker",
        "--kafka",
        bootstrap,
        "--prefix",
        prefix,
    ]);
    launch = match seed {
        Some(seed) => launch.args(&[Path::new("--seed"), seed]),
        None => launch.args(&["--raw-partitions", "3"]),
    };
    let output = launch.run();
    assert!(output.status.success(), "{}", text(&output));
}

/// A recording that was made over that protocol.
fn recording(name: &str) -> Recording {
    fixtures::all()
        .into_iter()
        .find(|recording| recording.name == name)
        .unwrap_or_else(|| panic!("there is no recording {name}"))
}

/// Sends the bodies of a recording as if it had just ended, and waits for its facts.
fn replay(recording: &Recording, processor: &Process, send: impl Fn(&str, &[u8])) {
    let before = processor.metrics_when("a scrape", |samples| Ok(samples.clone()));
    let shift = recording.shift_to(now_ms());
    let mut records = 0;
    for body in &recording.bodies {
        let sent = body.shifted(shift);
        assert!(!body.json, "the recording is not in protobuf");
        send(&body.signal, &sent.bytes);
        records += sent.records;
    }
    processor.metrics_when("the recording's facts", |samples: &Samples| {
        let growth = samples.since(&before);
        let wrong = differ_in_metrics(&recording.expected, &growth);
        let counted = growth.count("tacho_log_records_total", &[]);
        if wrong.is_empty() && counted == records {
            Ok(())
        } else {
            Err(format!("{}; {counted} of {records} records", wrong.join("; ")))
        }
    });
}

fn by_grpc(ingest: &Process, signal: &str, body: &[u8]) {
    let service = match signal {
        "logs" => "logs.v1.LogsService",
        "traces" => "trace.v1.TraceService",
        "metrics" => "metrics.v1.MetricsService",
        other => panic!("OTLP has no {other}"),
    };
    assert_eq!(
        ingest.grpc(&format!("/opentelemetry.proto.collector.{service}/Export"), body),
        "0",
        "{}",
        ingest.said()
    );
}

fn by_http(ingest: &Process, signal: &str, body: &[u8]) {
    assert_eq!(
        ingest.post(&format!("/v1/{signal}"), PROTOBUF, body),
        Ok(200),
        "{}",
        ingest.said()
    );
}

#[test]
fn a_recording_comes_through_by_each_protocol_and_on_one_port_for_both() {
    let bootstrap = Broker::shared().bootstrap();
    apply(&bootstrap, "processes.", None);
    let worker = processor(&bootstrap, "processes.", "one")
        .set("group.workers", "2")
        .ready();
    let door = ingest(&bootstrap, "processes.").ready();
    let (http, grpc) = (
        recording("0.169.0-http-binary-basic"),
        recording("0.169.0-grpc-basic"),
    );
    replay(&http, &worker, |signal, body| by_http(&door, signal, body));
    replay(&grpc, &worker, |signal, body| by_grpc(&door, signal, body));
    assert_eq!(door.grpc("/no.such.Service/Export", &[]), "12");

    // The port was bound and released; the kernel does not give it out again soon.
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let both = ingest(&bootstrap, "processes.")
        .set("http.listen", &free)
        .set("grpc.listen", &free)
        .ready();
    assert_eq!((both.at("http"), both.at("grpc")), (free.as_str(), free.as_str()));
    let tool = recording("0.169.0-http-binary-tool_fails");
    replay(&tool, &worker, |signal, body| {
        if signal == "logs" {
            by_grpc(&both, signal, body)
        } else {
            by_http(&both, signal, body)
        }
    });
    both.logs(&otlp::encode(vec![otlp::prompt("by-http", now_ms())]));
    assert_eq!(both.grpc("/no.such.Service/Export", &[]), "12");
    assert_eq!(both.post("/nowhere", PROTOBUF, &[]), Ok(404));

    // Each processor shows its own series, and ends after SIGTERM.
    both.metrics_when("requests", |samples| {
        match samples.count(
            "tacho_ingest_requests_total",
            &[("protocol", "grpc"), ("code", "0")],
        ) {
            0 => Err("there are no requests by gRPC".to_owned()),
            _ => Ok(()),
        }
    });
    for process in [door, both, worker] {
        process.signal(Signal::SIGTERM);
        let (status, said) = process.ended();
        assert_eq!(status.code(), Some(0), "{said}");
    }
}

#[test]
fn requests_under_way_are_answered_before_the_end() {
    let bootstrap = Broker::shared().bootstrap();
    apply(&bootstrap, "grace.", None);
    let door = ingest(&bootstrap, "grace.").ready();
    let address = door.at("http").to_owned();
    let body = otlp::encode(vec![otlp::prompt("slow", now_ms())]);
    // The head and half of the body are sent before the signal, and the rest after it.
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    let head = format!(
        "POST /v1/logs HTTP/1.1\r\nhost: {address}\r\ncontent-type: {PROTOBUF}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    use std::io::{Read, Write};
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body[..10]).unwrap();
    eventually("the request's arrival", || match door.get("/livez") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    door.signal(Signal::SIGTERM);
    eventually("readiness to go", || match door.get("/readyz") {
        Ok((503, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    stream.write_all(&body[10..]).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    drop(stream);
    assert_eq!(door.ended().0.code(), Some(0));
}

#[test]
fn ingest_waits_for_the_settings_and_refuses_until_then() {
    let bootstrap = Broker::shared().bootstrap();
    let door = ingest(&bootstrap, "late.").start();
    eventually("the mending command in the log", || {
        let said = door.said();
        if said.contains(&format!("tacho topics apply --kafka {bootstrap} --prefix late.")) {
            Ok(())
        } else {
            Err(said)
        }
    });
    assert_eq!(door.get("/readyz").unwrap().0, 503);
    assert_eq!(door.get("/livez").unwrap().0, 200);
    let body = otlp::encode(vec![otlp::prompt("early", now_ms())]);
    assert_eq!(door.post("/v1/logs", PROTOBUF, &body), Ok(503));
    apply(&bootstrap, "late.", None);
    door.wait_until_ready();
    door.logs(&body);
}

/// Checks that a start is refused, and that each part is named in a line of the output.
pub fn assert_refused(launch: Launch, code: i32, parts: &[&str]) {
    let output = launch.run();
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    let faults: Vec<&str> = said.lines().filter(|line| line.starts_with("tacho-")).collect();
    for part in parts {
        assert!(
            faults.iter().any(|line| line.contains(part)),
            "{part} is not in:\n{said}"
        );
    }
    assert_eq!(faults.len(), parts.len(), "{said}");
}

#[test]
fn wrong_settings_are_all_named_before_anything_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("settings.toml");
    std::fs::write(
        &file,
        "[kafka]\nbootstrap = 'a:1'\n[kafka.options]\nacks = 1\n[log]\nformat = 'xml'\n",
    )
    .unwrap();
    let common = [
        "kafka.bootstrap: there is no such setting",
        "acks can't be set",
        "log.format",
        "bootstrap_servers: is not set",
    ];
    let door =
        Launch::new("tacho-ingest", env!("CARGO_BIN_EXE_tacho-ingest")).args(&[Path::new("--config"), &file]);
    assert_refused(
        door.set("limits.body_bytes_max", "big"),
        64,
        &[&common[..], &["limits.body_bytes_max"]].concat(),
    );
    let worker = Launch::new("tacho-processor", env!("CARGO_BIN_EXE_tacho-processor"))
        .args(&[Path::new("--config"), &file]);
    let worker = worker.set("group.workers", "0").set("group.name", "one");
    assert_refused(worker, 64, &[&common[..], &["group.workers"]].concat());
    assert_refused(ingest("a:1", "").args(&["--nonsense"]), 64, &["--nonsense"]);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert_refused(
        ingest("127.0.0.1:9", "").set("http.listen", &address),
        64,
        &[&address],
    );
    assert_refused(
        processor("127.0.0.1:9", "", "one").set("admin.listen", &address),
        64,
        &[&address],
    );
}

#[test]
fn the_settings_in_force_are_printed_without_secrets() {
    let launch = processor("a:1", "lab.", "one")
        .set("kafka.sasl.username", "me")
        .set("kafka.sasl.password", "hunter2");
    let output = launch.args(&["--print-config", "--workers", "3"]).run();
    let printed = text(&output);
    assert!(output.status.success(), "{printed}");
    for line in [
        "workers = 3",
        "id = \"lab.tacho\"",
        "password = \"***\"",
        "mechanism = \"SCRAM-SHA-512\"",
        "session_timeout = \"15s\"",
    ] {
        assert!(
            printed.lines().any(|shown| shown == line),
            "{line} is not in:\n{printed}"
        );
    }
    assert!(!printed.contains("hunter2"));
}
