//! `tacho-ingest` and `tacho-processor` as processes: their work, their settings, and their end.

use crate::support::broker::Broker;
use crate::support::facts::differ_in_metrics;
use crate::support::fixtures::{self, Recording};
use crate::support::processes::{Launch, Process, ingest, processor, tacho};
use crate::support::samples::Samples;
use crate::support::tacho::{PROTOBUF, read};
use crate::support::traffic::quick_seed;
use crate::support::{eventually, now_ms, otlp};
use nix::sys::signal::Signal;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use std::ffi::OsStr;
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

fn text(output: &Output) -> String {
    format!(
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Runs `tacho topics apply` with that seed.
fn apply(bootstrap: &str, prefix: &str, seed: Option<&Path>) {
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
        assert!(!body.json, "a recording in protobuf");
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
            0 => Err("none by gRPC".to_owned()),
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
fn assert_refused(launch: Launch, code: i32, parts: &[&str]) {
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

/// Creates a topic with other settings than those of the table.
fn plant(bootstrap: &str, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let admin: AdminClient<_> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let topic = settings
        .iter()
        .fold(topic, |topic, (key, value)| topic.set(key, value));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime
        .block_on(admin.create_topics([&topic], &AdminOptions::new()))
        .unwrap()[0]
        .as_ref()
        .unwrap();
}

#[test]
fn topics_that_are_wrong_are_all_named_with_what_mends_them() {
    let bootstrap = Broker::shared().bootstrap();
    let large = ("max.message.bytes", "8400000");
    let stamped = ("message.timestamp.type", "LogAppendTime");
    plant(&bootstrap, "wrong.codex.raw.logs.v1", 3, &[large, stamped]);
    plant(&bootstrap, "wrong.codex.raw.traces.v1", 2, &[large, stamped]);
    plant(
        &bootstrap,
        "wrong.codex.raw.metrics.v1",
        3,
        &[large, ("message.timestamp.type", "CreateTime")],
    );
    plant(
        &bootstrap,
        "wrong.codex.sessions.v1",
        3,
        &[large, ("cleanup.policy", "delete")],
    );
    plant(
        &bootstrap,
        "wrong.tacho.control",
        1,
        &[large, ("retention.ms", "1000")],
    );
    plant(
        &bootstrap,
        "wrong.tacho.labels",
        1,
        &[
            large,
            ("unclean.leader.election.enable", "true"),
            ("retention.ms", "-1"),
        ],
    );

    let check = || tacho().args(&["topics", "check", "--kafka", &bootstrap, "--prefix", "wrong."]);
    let output = check().run();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let planted = [
        [
            "wrong.codex.raw.traces.v1: it has 2 partitions, and the settings say 3",
            "--delete --topic wrong.codex.raw.traces.v1",
        ],
        [
            "wrong.codex.raw.metrics.v1: message.timestamp.type is CreateTime",
            "--add-config message.timestamp.type=LogAppendTime",
        ],
        [
            "wrong.codex.sessions.v1: cleanup.policy is delete",
            "--add-config cleanup.policy=compact",
        ],
        [
            "wrong.codex.sessions.v1: it has 1 replica, and min.insync.replicas is 1",
            "kafka-reassign-partitions.sh",
        ],
        [
            "wrong.tacho.control: retention.ms is 1000",
            "--add-config retention.ms=-1",
        ],
        [
            "wrong.tacho.labels: unclean.leader.election.enable is true",
            "--add-config unclean.leader.election.enable=false",
        ],
        [
            "wrong.codex.quarantine.v1: there is no such topic",
            "tacho topics apply --kafka",
        ],
    ];
    for parts in planted {
        assert!(
            said.lines()
                .any(|line| parts.iter().all(|part| line.contains(part))),
            "{parts:?} is not in:\n{said}"
        );
    }
    assert!(
        !said.contains("codex.raw.logs.v1: message"),
        "a topic without faults is named:\n{said}"
    );

    // The processor does not start with these topics either, and names the same faults.
    let refused = [
        "raw.traces",
        "raw.metrics",
        "codex.sessions.v1: cleanup",
        "tacho.control",
        "tacho.labels",
    ];
    let missing = [
        "inbox.logs",
        "inbox.traces",
        "inbox.metrics",
        "quarantine",
        "windows.1m",
        "windows.5m",
        "windows.1h",
        "tacho.deltas",
        "sessions-changelog",
        "series-changelog",
    ];
    assert_refused(
        processor(&bootstrap, "wrong.", "one"),
        64,
        &[&refused[..], &missing].concat(),
    );

    // `topics apply` creates the missing topic, changes no other, and names the faults that are left.
    let output = tacho()
        .args(&["topics", "apply", "--kafka", &bootstrap, "--prefix", "wrong."])
        .run();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("created wrong.codex.quarantine.v1")
            && said.contains("raw.metrics.v1: message.timestamp.type"),
        "{said}"
    );
    assert!(
        !said.contains("there is no such topic") && !said.contains("wrote the settings"),
        "{said}"
    );
}

#[test]
fn one_replica_is_told_unless_it_is_meant() {
    let bootstrap = Broker::shared().bootstrap();
    apply(&bootstrap, "replicas.", None);
    let check = |more: &[&str]| {
        tacho()
            .args(&["topics", "check", "--kafka", &bootstrap, "--prefix", "replicas."])
            .args(more)
            .run()
    };
    let refused = check(&[]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(
        text(&refused).contains("min.insync.replicas is 1")
            && text(&refused).contains("--allow-single-broker"),
        "{}",
        text(&refused)
    );
    let taken = check(&["--allow-single-broker"]);
    assert!(
        taken.status.success() && text(&taken).contains("16 topics are as they must be"),
        "{}",
        text(&taken)
    );
}

#[test]
fn a_new_epoch_changes_the_session_gap_while_it_runs() {
    let bootstrap = Broker::shared().bootstrap();
    let dir = tempfile::tempdir().unwrap();
    // Sessions have a gap that is longer than the test.
    let mut seed = quick_seed();
    seed.settings.session_gap_ms = 3_600_000;
    seed.settings.reopen_horizon_ms = 7_200_000;
    let seed_file = dir.path().join("seed.toml");
    std::fs::write(&seed_file, toml::to_string(&seed).unwrap()).unwrap();
    apply(&bootstrap, "epochs.", Some(&seed_file));
    let worker = processor(&bootstrap, "epochs.", "one").ready();
    let door = ingest(&bootstrap, "epochs.").ready();
    door.logs(&otlp::encode(vec![
        otlp::prompt("goes-on", now_ms()),
        otlp::prompt("is-silent", now_ms()),
    ]));
    worker.wait_for_count("tacho_sessions_started_total", &[], 2);
    worker.wait_for_count("tacho_sessions_active", &[], 2);

    let file = dir.path().join("settings.toml");
    let place = ["--kafka", &bootstrap, "--prefix", "epochs."];
    let control = |what: &[&str]| tacho().args(&["control"]).args(what).args(&place).run();
    let file_name = file.to_str().unwrap();
    std::fs::write(
        &file,
        "[settings]\nsemantics = 9\nsession_gap_ms = 0\nreopen_horizon_ms = 8000\nrow_interval_ms = 500\n",
    )
    .unwrap();
    let refused = control(&["apply", file_name]);
    assert_eq!(refused.status.code(), Some(64), "{}", text(&refused));
    assert!(
        text(&refused).contains("semantics") && text(&refused).contains("session_gap_ms"),
        "{}",
        text(&refused)
    );
    std::fs::write(
        &file,
        "[settings]\nsemantics = 1\nsession_gap_ms = 2000\nreopen_horizon_ms = 8000\nrow_interval_ms = 500\n",
    )
    .unwrap();
    let applied = control(&["apply", file_name]);
    assert!(
        applied.status.success() && text(&applied).contains("epoch 1:"),
        "{}",
        text(&applied)
    );

    // The settings of its last record hold for a session. A session that gets another record ends by the new gap, and so does a
    // new session; a session that gets none stays open.
    eventually("the epoch's start in every partition", || {
        let ticks = read("codex.raw.logs.v1", &place.map(OsStr::new));
        let begun = ticks
            .iter()
            .filter(|tick| tick["headers"]["epoch"] == "1")
            .count();
        if begun == 3 {
            Ok(())
        } else {
            Err(format!("in {begun}; {}", worker.said()))
        }
    });
    door.logs(&otlp::encode(vec![
        otlp::prompt("goes-on", now_ms()),
        otlp::prompt("new", now_ms()),
    ]));
    eventually("the end of both sessions", || {
        let rows = read("codex.sessions.v1", &place.map(OsStr::new));
        let ended: Vec<&str> = rows
            .iter()
            .filter(|row| row["value"]["state"] == "ended")
            .filter_map(|row| row["value"]["conversation_id"].as_str())
            .collect();
        let both = ["goes-on", "new"]
            .iter()
            .all(|conversation| ended.contains(conversation));
        if both && ended.len() == 2 {
            Ok(())
        } else {
            Err(format!("{ended:?}; {}", worker.said()))
        }
    });
    worker.wait_for_count("tacho_sessions_active", &[], 1);

    let shown = control(&["show"]);
    let lines: Vec<serde_json::Value> = String::from_utf8_lossy(&shown.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{}", text(&shown));
    assert_eq!(
        (&lines[0]["epoch"], &lines[0]["seed"]["raw_partitions"]),
        (&0.into(), &seed.raw_partitions.into())
    );
    assert_eq!(
        (&lines[1]["epoch"], &lines[1]["settings"]["session_gap_ms"]),
        (&1.into(), &2000.into())
    );
    assert_eq!(
        lines[0]["seed"]["prices"]["version"],
        seed.prices.version.as_str()
    );

    // New prices start an epoch too. All faults of a table are named before anything is written.
    std::fs::write(&file, "[prices]\nversion = \"\"\nrows = [{ book = \"b\", model = \"m\", input = -1, output = 1, source = \"s\" }]\n")
        .unwrap();
    let refused = control(&["apply", file_name]);
    assert_eq!(refused.status.code(), Some(64), "{}", text(&refused));
    for part in ["prices.version", "book must", "input must", "source \"s\""] {
        assert!(
            text(&refused).contains(part),
            "{part} is not in {}",
            text(&refused)
        );
    }
    std::fs::write(&file, "[prices]\nversion = \"none\"\n").unwrap();
    let applied = control(&["apply", file_name]);
    assert!(
        applied.status.success()
            && text(&applied).contains("epoch 2:")
            && text(&applied).contains("version none"),
        "{}",
        text(&applied)
    );
    let shown = control(&["show"]);
    let last: serde_json::Value = String::from_utf8_lossy(&shown.stdout)
        .lines()
        .last()
        .map(|line| serde_json::from_str(line).unwrap())
        .unwrap();
    assert_eq!(
        (&last["epoch"], &last["prices"]["version"], last.get("settings")),
        (&2.into(), &"none".into(), None)
    );

    // Settings that are fixed for the life of a log can't be applied.
    let nowhere = tacho()
        .args(&[
            "control", "apply", file_name, "--kafka", &bootstrap, "--prefix", "no.",
        ])
        .run();
    assert!(!nowhere.status.success(), "{}", text(&nowhere));
}
