//! Tests what the OTLP specification asks of a server, row by row, and the cases of the OpenTelemetry Collector's own receiver
//! tests. Each row names the test that shows it; `here` is this test program.
//!
//! | | what | test |
//! |---|---|---|
//! | 1 | none, gzip and zstd, over HTTP and gRPC, all signals, both encodings | here `every_coding_of_every_signal`; `grpc` `every_coding_of_every_signal` |
//! | 2 | limits of a body, before and after decompression, to the byte: 413, `RESOURCE_EXHAUSTED` without `RetryInfo` | here `limits_to_the_byte`; `grpc` `limits_to_the_byte`; `tests/it/attacks.rs` |
//! | 3 | answers are small, whatever is wrong | here `answers_stay_small` |
//! | 4 | 200 has the response message of the signal, in the request's content type | here `full_success_is_empty` |
//! | 5 | full success: `partial_success` is not set | here `full_success_is_empty` |
//! | 6 | partial success: 200, a count, a message; a warning has count 0 | here `bad_records_do_not_take_the_good_ones_with_them`, `what_is_cut_is_told` |
//! | 7 | an empty request is a success | here `full_success_is_empty`; `http` `unusual_records_are_taken` |
//! | 8 | every refusal is `google.rpc.Status` in the request's encoding | here `every_refusal_is_a_status` |
//! | 9 | undecodable: 400 with `BadRequest`, `INVALID_ARGUMENT` | here `every_refusal_is_a_status`; `grpc` `refusals_carry_their_details` |
//! | 10 | nothing that may pass later is 500 or 408 | `http` `what_the_log_refuses_is_not_acknowledged`; `connections` `a_slow_body_is_cut_off` |
//! | 11 | `Retry-After`, `RetryInfo` where sending again may help, and only there | here `every_refusal_is_a_status`; `http` `a_tenant_has_a_limit_of_open_bytes`; `grpc` `refusals_carry_their_details` |
//! | 12 | JSON | `json`, the whole program |
//! | 13 | unknown protobuf fields are kept as they are | here `fields_of_tomorrow_are_kept` |
//! | 14 | both encodings on one port; parameters and upper case of the content type | `http` `encodings_lead_to_the_same_record` |
//! | 15 | paths, under any prefix; POST only, 405 with `Allow`; other signals 404, `UNIMPLEMENTED` | here `paths_under_a_prefix`; `http` `paths_and_methods`; `grpc` `gzip_is_taken_and_bad_input_is_not` |
//! | 16 | duplicates are the client's to send | `tests/it/bad_input.rs` `odd_but_kept` |
//! | 17 | keep-alive, HTTP/1.1 and HTTP/2 with prior knowledge, graceful end | `connections` |
//!
//! The Collector's cases: no content type, a foreign one (415 as there), a body that is not what its `Content-Encoding` says
//! (400 as there), an unknown content encoding (415 here, as RFC 9110 has it; 400 there), an invalid request of each signal, an
//! empty request, size limits, permanent and passing errors of the log, `Retry-After`, shutdown without loss of what
//! was answered, bombs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod refusals;

use common::{JSON, PROTOBUF, Server, gzip, pair, record, records, request, zstd};
use ingest::connection::rpc_status::RpcStatus;
use ingest::sink::SinkError;
use ingest::{Config, Signal};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message;

/// A request with one record of that signal, in JSON and in protobuf.
fn one(signal: Signal) -> (Vec<u8>, Vec<u8>) {
    let json: &[u8] = match signal {
        Signal::Logs => br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"observedTimeUnixNano":"1","eventName":"e"}]}]}]}"#,
        Signal::Traces => {
            br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"spanId":"eee19b7ec3c1b174","name":"n","startTimeUnixNano":"1"}]}]}]}"#
        }
        Signal::Metrics => br#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[{"asInt":1}]}}]}]}]}"#,
    };
    (
        json.to_vec(),
        ingest::prepare::json::to_protobuf(signal, json).unwrap(),
    )
}

#[tokio::test]
async fn every_coding_of_every_signal() {
    let server = Server::start(Config::default()).await;
    for signal in Signal::ALL {
        let (json, protobuf) = one(signal);
        for (content_type, body, answer) in [(PROTOBUF, &protobuf, &b""[..]), (JSON, &json, b"{}")] {
            for (encoding, sent) in [
                ("", body.clone()),
                ("identity", body.clone()),
                ("gzip", gzip(body)),
                ("zstd", zstd(body)),
                ("ZSTD", zstd(body)),
            ] {
                // A client that takes its endpoint literally posts to `/`, any other one to the signal's own path.
                for path in [signal.path(), "/"] {
                    let reply = server.post_encoded(path, content_type, encoding, &sent).await;
                    assert_eq!(
                        (reply.status, reply.body.as_slice()),
                        (200, answer),
                        "{path} {content_type} {encoding}"
                    );
                    let taken = server.taken();
                    assert_eq!(
                        (taken.len(), taken[0].signal, taken[0].value.as_ref()),
                        (1, signal, protobuf.as_slice()),
                        "{path}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn limits_to_the_byte() {
    const LIMIT: usize = 100_000;
    let sized = |bytes: usize| {
        let overhead = request(vec![record(&[("note", &"n".repeat(LIMIT - 1000))])]).len() - (LIMIT - 1000);
        let body = request(vec![record(&[("note", &"n".repeat(bytes - overhead))])]);
        assert_eq!(body.len(), bytes);
        body
    };
    let as_sent = Server::start(Config {
        body_bytes_max: LIMIT,
        ..Config::default()
    })
    .await;
    let decoded = Server::start(Config {
        body_bytes_max: LIMIT,
        decoded_bytes_max: LIMIT,
        ..Config::default()
    })
    .await;
    for (bytes, status) in [(LIMIT - 1, 200), (LIMIT, 200), (LIMIT + 1, 413)] {
        let body = sized(bytes);
        let reply = as_sent.post("/v1/logs", PROTOBUF, &body).await;
        assert_eq!(
            (reply.status, reply.header("retry-after")),
            (status, None),
            "{bytes}"
        );
        for (encoding, sent) in [("gzip", gzip(&body)), ("zstd", zstd(&body))] {
            let reply = decoded.post_encoded("/v1/logs", PROTOBUF, encoding, &sent).await;
            assert_eq!(
                (reply.status, reply.header("retry-after")),
                (status, None),
                "{bytes} {encoding}"
            );
        }
        if status == 413 {
            let status = RpcStatus::decode(reply.body.as_slice()).unwrap();
            assert_eq!((status.code, status.details.len()), (8, 0));
        }
    }
    as_sent.is_well().await;
    decoded.is_well().await;
}

#[tokio::test]
async fn answers_stay_small() {
    let server = Server::start(Config::default()).await;
    let long = "é".repeat(10 << 20);
    *server.sink.refusal.lock().unwrap() = Some(SinkError::Unavailable(long));
    let reply = server.post("/v1/logs", JSON, &one(Signal::Logs).0).await;
    assert_eq!(reply.status, 503);
    assert!(reply.body.len() < 4096, "{}", reply.body.len());
    // The request has a good record, and 50,000 records that are each wrong in their own way.
    let mut scope = vec![0x12, 0];
    (0..50_000_u32)
        .for_each(|at| scope.extend_from_slice(&[&[0x12, 7, 0x1a, 5, 0xff][..], &at.to_le_bytes()].concat()));
    let reply = server.post("/v1/logs", PROTOBUF, &nested(&scope)).await;
    assert_eq!(reply.status, 200);
    assert!(reply.body.len() < 4096, "{}", reply.body.len());
    let partial = ExportLogsServiceResponse::decode(reply.body.as_slice())
        .unwrap()
        .partial_success
        .unwrap();
    assert_eq!(partial.rejected_log_records, 50_000);
}

/// A request whose only scope has that content.
fn nested(scope: &[u8]) -> Vec<u8> {
    let field = |tag: u8, payload: &[u8]| {
        let mut out = vec![tag];
        prost::encoding::encode_varint(payload.len() as u64, &mut out);
        out.extend_from_slice(payload);
        out
    };
    field(0x0a, &field(0x12, scope))
}

#[tokio::test]
async fn full_success_is_empty() {
    let server = Server::start(Config::default()).await;
    for signal in Signal::ALL {
        let (json, protobuf) = one(signal);
        for path in [signal.path(), "/"] {
            for (content_type, body, answer) in [
                (PROTOBUF, &protobuf[..], ""),
                (PROTOBUF, b"", ""),
                (JSON, &json, "{}"),
                (JSON, b"{}", "{}"),
                (JSON, b"", "{}"),
            ] {
                let reply = server.post(path, content_type, body).await;
                assert_eq!(
                    (reply.status, reply.body.as_slice(), reply.header("content-type")),
                    (200, answer.as_bytes(), Some(content_type))
                );
            }
        }
    }
}

#[tokio::test]
async fn bad_records_do_not_take_the_good_ones_with_them() {
    let server = Server::start(Config::default()).await;
    // This record is over the limit, and none of its texts can be cut.
    let mut unfit = record(&[]);
    unfit.event_name = "e".repeat(5 << 20);
    let good = record(&[("conversation.id", "c")]);
    let body = request(vec![good.clone(), unfit.clone(), good.clone()]);
    let reply = server.post("/v1/logs", PROTOBUF, &body).await;
    assert_eq!(reply.status, 200);
    let partial = ExportLogsServiceResponse::decode(reply.body.as_slice())
        .unwrap()
        .partial_success
        .unwrap();
    assert_eq!(partial.rejected_log_records, 1);
    assert!(
        partial.error_message.contains("over the limit"),
        "{}",
        partial.error_message
    );
    assert_eq!(server.taken()[0].value, request(vec![good.clone(), good]));

    // Of a metric that is left out, the data points are counted. This one has two, and a name that is not UTF-8.
    let metric = b"\x12\x03\x0a\x01m\x12\x09\x0a\x01\xff\x2a\x04\x0a\x00\x0a\x00";
    let reply = server.post("/v1/metrics", PROTOBUF, &nested(metric)).await;
    let partial = ExportMetricsServiceResponse::decode(reply.body.as_slice())
        .unwrap()
        .partial_success
        .unwrap();
    assert_eq!((reply.status, partial.rejected_data_points), (200, 2));
    assert_eq!(
        ExportMetricsServiceRequest::decode(server.taken()[0].value.clone())
            .unwrap()
            .resource_metrics[0]
            .scope_metrics[0]
            .metrics
            .len(),
        1
    );

    // A request of which no record can be taken is refused, and no partial success.
    let reply = server
        .post("/v1/logs", PROTOBUF, &request(vec![unfit.clone(), unfit]))
        .await;
    assert_eq!((reply.status, server.taken().len()), (413, 0));
}

#[tokio::test]
async fn what_is_cut_is_told() {
    let server = Server::start(Config::default()).await;
    let body = request(vec![record(&[
        ("conversation.id", "c"),
        ("note", &"n".repeat(6 << 20)),
    ])]);
    let reply = server.post("/v1/logs", PROTOBUF, &body).await;
    let partial = ExportLogsServiceResponse::decode(reply.body.as_slice())
        .unwrap()
        .partial_success
        .unwrap();
    assert_eq!((reply.status, partial.rejected_log_records), (200, 0));
    assert!(
        partial.error_message.starts_with("1 texts cut"),
        "{}",
        partial.error_message
    );
    let json = format!(
        r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"attributes":[{{"key":"note","value":{{"stringValue":"{}"}}}}]}}]}}]}}]}}"#,
        "n".repeat(6 << 20)
    );
    let reply = server.post("/v1/logs", JSON, json.as_bytes()).await;
    let json: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(
        (
            reply.status,
            json["partialSuccess"]["rejectedLogRecords"].as_str()
        ),
        (200, Some("0"))
    );
    let kept = &records(&server.taken()[0].value)[0].attributes[1];
    assert_ne!(*kept, pair("note", &"n".repeat(6 << 20)));
}

#[tokio::test]
async fn fields_of_tomorrow_are_kept() {
    let server = Server::start(Config::default()).await;
    // An unknown field, number 9999, is in the record, its scope, its resource and the request.
    let unknown = [0xf8, 0xf0, 0x04, 0x07];
    let field = |tag: u8, payload: &[u8]| {
        [
            &[tag, u8::try_from(payload.len() + unknown.len()).unwrap()][..],
            payload,
            &unknown,
        ]
        .concat()
    };
    let body = [
        field(0x0a, &field(0x12, &field(0x12, b"\x1a\x01x"))),
        unknown.to_vec(),
    ]
    .concat();
    for signal in Signal::ALL {
        assert_eq!(server.post(signal.path(), PROTOBUF, &body).await.status, 200);
        assert_eq!(server.taken()[0].value, body);
    }
    assert_eq!(
        ExportTraceServiceRequest::decode(body.as_slice())
            .unwrap()
            .resource_spans
            .len(),
        1
    );
}

#[tokio::test]
async fn paths_under_a_prefix() {
    let server = Server::start(Config::default()).await;
    let body = request(vec![LogRecord {
        observed_time_unix_nano: 1,
        ..record(&[("conversation.id", "c")])
    }]);
    for path in [
        "/v1/logs",
        "/v1/logs/",
        "/team-a/v1/logs",
        "/a/b/c/v1/logs/",
        "/v1/logs?a=b",
        "/",
        "/?a=b",
    ] {
        assert_eq!(server.post(path, PROTOBUF, &body).await.status, 200, "{path}");
        assert_eq!(server.taken().len(), 1, "{path}");
    }
    for path in ["/team-a", "/v1", "/v1/logs/v1", "/v1development/profiles", "//"] {
        assert_eq!(server.post(path, PROTOBUF, &body).await.status, 404, "{path}");
    }
    assert_eq!(server.taken(), []);
}
