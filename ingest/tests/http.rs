//! Tests OTLP/HTTP over a real socket, with a sink in memory.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{JSON, PROTOBUF, Request, Server, gzip, pair, record, records, request};
use ingest::sink::SinkError;
use ingest::{Config, Signal};
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use tokio::net::TcpStream;

#[tokio::test]
async fn bad_bodies_are_refused_and_harm_nobody() {
    let server = Server::start(Config {
        body_bytes_max: 1 << 20,
        decoded_bytes_max: 1 << 20,
        ..Config::default()
    })
    .await;
    let good = request(vec![record(&[
        ("conversation.id", "c"),
        ("note", &"n".repeat(300)),
    ])]);
    let large = vec![0; (1 << 20) + 1];
    let deep = request(vec![record(&[])]);
    let compressed = gzip(&good);
    let cut = &good[..good.len() - 5];
    let random = &b"\xd1\x07\x9f\x33\xfe\x8a\x00\x12\xab\xff\x1f\x55"[..];
    let cut_gzip = &compressed[..compressed.len() - 9];
    let (twice, large_gzip) = (gzip(&compressed), gzip(&large));
    for (what, content_type, encoding, body, status) in [
        ("truncated protobuf", PROTOBUF, "identity", cut, 400),
        ("random bytes", PROTOBUF, "identity", random, 400),
        ("unknown content type", "text/plain", "identity", &good, 415),
        ("no gzip", PROTOBUF, "gzip", &good, 400),
        ("truncated gzip", PROTOBUF, "gzip", cut_gzip, 400),
        ("no zstd", PROTOBUF, "zstd", &good, 400),
        ("unknown encoding", PROTOBUF, "br", &good, 415),
        ("two encodings", PROTOBUF, "gzip, gzip", &twice, 415),
        ("gzip within gzip", PROTOBUF, "gzip", &twice, 400),
        ("too large", PROTOBUF, "identity", &large, 413),
        ("too large when decompressed", PROTOBUF, "gzip", &large_gzip, 413),
        ("no JSON", JSON, "identity", &b"{\"resourceLogs\":[{]}"[..], 400),
        ("protobuf as JSON", JSON, "identity", &deep, 400),
    ] {
        let headers = vec![("content-type", content_type), ("content-encoding", encoding)];
        let reply = server
            .send(&Request {
                method: "POST",
                path: "/v1/logs",
                headers,
                body,
            })
            .await;
        assert_eq!(reply.status, status, "{what}");
        let (code, message) = reply.rpc();
        assert_eq!(code, if status == 413 { 8 } else { 3 }, "{what}");
        assert!(
            !message.is_empty() && !message.contains("nnn"),
            "{what}: {message}"
        );
        let expected = if content_type == PROTOBUF { PROTOBUF } else { JSON };
        assert_eq!(reply.header("content-type"), Some(expected), "{what}");
        assert_eq!(server.taken(), [], "{what}");
        server.is_well().await;
    }
}

#[tokio::test]
async fn unusual_records_are_taken() {
    let server = Server::start(Config::default()).await;
    for attributes in [
        &[
            ("event.name", "codex.user_prompt"),
            ("conversation.id", "no time at all"),
        ][..],
        &[("event.name", "codex.api_request")],
        &[("conversation.id", "c")],
        &[],
    ] {
        let body = request(vec![record(attributes)]);
        let reply = server.post("/v1/logs", PROTOBUF, &body).await;
        assert_eq!(reply.status, 200, "{attributes:?}");
        let taken = server.taken();
        assert_eq!(taken.len(), 1);
        assert!(taken[0].key.len() > "default/".len());
        assert_eq!(taken[0].value, body);
        server.is_well().await;
    }
    for (content_type, body, answer) in [(PROTOBUF, &b""[..], ""), (JSON, &b"{}"[..], "{}")] {
        let reply = server.post("/v1/logs", content_type, body).await;
        assert_eq!((reply.status, reply.body.as_slice()), (200, answer.as_bytes()));
        assert_eq!(reply.header("content-type"), Some(content_type));
    }
    assert_eq!(server.taken(), []);
}

#[tokio::test]
async fn a_large_record_is_kept_whole_but_for_its_texts() {
    let server = Server::start(Config::default()).await;
    let note = "x".repeat(2 << 20);
    let patch = format!("planted-{}", "y".repeat(2 << 20));
    let body = request(vec![record(&[
        ("conversation.id", "c"),
        ("note", &note),
        ("arguments", &patch),
    ])]);
    assert_eq!(server.post("/v1/logs", PROTOBUF, &body).await.status, 200);
    let taken = server.taken();
    assert!(!taken[0].value.windows(8).any(|window| window == b"planted-"));
    let attributes = &records(&taken[0].value)[0].attributes;
    assert_eq!(attributes[1], pair("note", &note));
    assert_eq!(attributes[2].key, "tacho.arguments.bytes");
    assert_eq!(
        attributes[2].value,
        Some(AnyValue {
            value: Some(Value::IntValue(patch.len() as i64))
        })
    );
}

#[tokio::test]
async fn paths_and_methods() {
    let server = Server::start(Config::default()).await;
    let body = request(vec![record(&[("conversation.id", "c")])]);
    for path in ["/v1/log", "/v1/profiles", "/elsewhere"] {
        let reply = server.post(path, PROTOBUF, &body).await;
        assert_eq!((reply.status, reply.rpc().0), (404, 5), "{path}");
    }
    for method in ["GET", "PUT", "DELETE"] {
        let headers = vec![("content-type", PROTOBUF)];
        let reply = server
            .send(&Request {
                method,
                path: "/v1/logs",
                headers,
                body: b"",
            })
            .await;
        assert_eq!(
            (reply.status, reply.rpc().0, reply.header("allow")),
            (405, 12, Some("post")),
            "{method}"
        );
    }
    for (path, signal) in [
        ("/v1/logs", Signal::Logs),
        ("/v1/traces", Signal::Traces),
        ("/v1/metrics", Signal::Metrics),
    ] {
        // This is a request with one record, whichever signal it is of.
        let body = [0x0a, 0x04, 0x12, 0x02, 0x12, 0x00];
        assert_eq!(server.post(path, PROTOBUF, &body).await.status, 200);
        let taken = server.taken();
        assert_eq!(
            (taken.len(), taken[0].signal, taken[0].value.as_ref()),
            (1, signal, &body[..])
        );
    }
    server.is_well().await;
}

#[tokio::test]
async fn encodings_lead_to_the_same_record() {
    let server = Server::start(Config::default()).await;
    let body = request(vec![record(&[("conversation.id", "c"), ("model", "gpt")])]);
    let (half, rest) = body.split_at(7);
    let members = [gzip(half), gzip(rest)].concat();
    let json = br#"{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": null, "traceId": "", "timeUnixNano": "0",
        "attributes": [{"key": "conversation.id", "value": {"stringValue": "c"}}, {"key": "model", "value": {"stringValue": "gpt"}}]}]}]}]}"#;
    for (content_type, encoding, sent) in [
        ("Application/X-Protobuf; charset=utf-8", "", body.as_slice()),
        (PROTOBUF, "identity", &body),
        (PROTOBUF, "GZIP", &gzip(&body)),
        (PROTOBUF, "gzip", &members),
        (JSON, "identity", json),
        ("application/json;charset=UTF-8", "gzip", &gzip(json)),
    ] {
        let headers = vec![("content-type", content_type), ("content-encoding", encoding)];
        let reply = server
            .send(&Request {
                method: "POST",
                path: "/v1/logs",
                headers,
                body: sent,
            })
            .await;
        assert_eq!(reply.status, 200, "{content_type} {encoding}: {reply:?}");
        let taken = server.taken();
        assert_eq!(
            (taken.len(), taken[0].key.as_str(), taken[0].value.as_ref()),
            (1, "default/c", body.as_slice())
        );
    }
}

#[tokio::test]
async fn conversations_are_told_apart() {
    let server = Server::start(Config::default()).await;
    let body = request(vec![
        record(&[("conversation.id", "a"), ("prompt", "planted")]),
        record(&[("conversation.id", "b")]),
        record(&[("conversation.id", "a")]),
    ]);
    assert_eq!(server.post("/v1/logs", PROTOBUF, &body).await.status, 200);
    let taken = server.taken();
    let counts: Vec<_> = taken
        .iter()
        .map(|raw| (raw.key.as_str(), records(&raw.value).len()))
        .collect();
    assert_eq!(counts, [("default/a", 2), ("default/b", 1)]);
    assert!(!taken[0].value.windows(7).any(|window| window == b"planted"));
}

#[tokio::test]
async fn what_the_log_refuses_is_not_acknowledged() {
    let server = Server::start(Config::default()).await;
    let body = request(vec![record(&[("conversation.id", "c")])]);
    for (error, status, retry_after) in [
        (SinkError::Unavailable("down".to_owned()), 503, Some("1")),
        (SinkError::Full("disk".to_owned()), 503, Some("30")),
        (SinkError::TooLarge("9 MB".to_owned()), 413, None),
    ] {
        *server.sink.refusal.lock().unwrap() = Some(error);
        let reply = server.post("/v1/logs", PROTOBUF, &body).await;
        assert_eq!((reply.status, reply.header("retry-after")), (status, retry_after));
        server.is_well().await;
    }
}

#[tokio::test]
async fn a_tenant_has_a_limit_of_open_bytes() {
    let server = Server::start(Config {
        tenant_bytes_in_flight_max: 1000,
        ..Config::default()
    })
    .await;
    let body = request(vec![record(&[
        ("conversation.id", "c"),
        ("note", &"n".repeat(1000)),
    ])]);
    let reply = server.post("/v1/logs", PROTOBUF, &body).await;
    assert_eq!(
        (reply.status, reply.rpc().0, reply.header("retry-after")),
        (429, 8, Some("1"))
    );
    server.is_well().await;
}

#[tokio::test]
async fn a_request_has_a_limit_of_records() {
    let server = Server::start(Config::default()).await;
    let body = request(vec![
        LogRecord::default();
        ingest::prepare::admit::RECORDS_MAX + 1
    ]);
    let reply = server.post("/v1/logs", PROTOBUF, &body).await;
    assert_eq!((reply.status, reply.rpc().0), (413, 8));
    server.is_well().await;
}

#[tokio::test]
async fn texts_are_kept_on_request_only() {
    let server = Server::start(Config {
        keep_text: true,
        ..Config::default()
    })
    .await;
    let body = request(vec![record(&[("conversation.id", "c"), ("prompt", "planted")])]);
    assert_eq!(server.post("/v1/logs", PROTOBUF, &body).await.status, 200);
    assert_eq!(server.taken()[0].value, body);
}

#[tokio::test]
async fn the_server_ends_when_told() {
    let server = Server::start(Config::default()).await;
    server.is_well().await;
    // An open connection without a request does not delay the end.
    let _idle = TcpStream::connect(server.address).await.unwrap();
    server.stop.send(()).unwrap();
    server.served.await.unwrap();
}
