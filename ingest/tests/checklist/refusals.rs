//! Every refusal is a `google.rpc.Status` in the request's format, with the details that belong to it.

use crate::common::{JSON, PROTOBUF, Request, Server};
use crate::{nested, one};
use ingest::connection::rpc_status::{BadRequest, RetryInfo, RpcStatus};
use ingest::sink::SinkError;
use ingest::{Config, Signal};
use prost::Message;

/// A request that is refused for good, and how.
struct Refused<'a> {
    what: &'static str,
    method: &'static str,
    path: &'static str,
    encoding: Option<&'static str>,
    body: &'a [u8],
    http: u16,
    code: i64,
}

/// A request by POST without an encoding, which is refused as malformed.
fn malformed<'a>(what: &'static str, path: &'static str, body: &'a [u8]) -> Refused<'a> {
    Refused {
        what,
        method: "POST",
        path,
        encoding: None,
        body,
        http: 400,
        code: 3,
    }
}

/// Requests that are refused for good, made of a good `body` and of one that is too `large`.
fn refused<'a>(body: &'a [u8], large: &'a [u8]) -> Vec<Refused<'a>> {
    let cut = &body[..body.len() - 2];
    let method = |what, method, path| Refused {
        method,
        http: 405,
        code: 12,
        ..malformed(what, path, b"")
    };
    let encoded = |what, path, encoding, http| Refused {
        encoding: Some(encoding),
        http,
        ..malformed(what, path, body)
    };
    vec![
        Refused {
            http: 404,
            code: 5,
            ..malformed("path", "/v1/profiles", body)
        },
        method("method", "GET", "/v1/logs"),
        method("method of any signal", "PUT", "/"),
        Refused {
            http: 413,
            code: 8,
            ..malformed("size", "/v1/logs", large)
        },
        encoded("encoding", "/v1/logs", "snappy", 415),
        encoded("gzip that is none", "/v1/metrics", "gzip", 400),
        encoded("zstd that is none", "/v1/traces", "zstd", 400),
        malformed("broken off", "/v1/traces", cut),
        malformed("another form", "/v1/metrics", b"\x0a\x05\x0d\x00\x00\x00\x00"),
        malformed("broken off, of any signal", "/", cut),
    ]
}

async fn check(server: &Server, content_type: &str, refused: Refused<'_>) {
    let Refused {
        what,
        method,
        path,
        encoding,
        body,
        http,
        code,
    } = refused;
    let mut headers = vec![("content-type", content_type)];
    headers.extend(encoding.map(|encoding| ("content-encoding", encoding)));
    let reply = server
        .send(&Request {
            method,
            path,
            headers,
            body,
        })
        .await;
    assert_eq!(
        (reply.status, reply.rpc().0),
        (http, code),
        "{what} {content_type}"
    );
    assert_eq!(reply.header("content-type"), Some(content_type), "{what}");
    assert_eq!(reply.header("allow"), (http == 405).then_some("post"), "{what}");
    assert_eq!(reply.header("retry-after"), None, "{what}");
    has_details(
        &reply.body,
        content_type,
        if http == 400 { "BadRequest" } else { "" },
    );
}

#[tokio::test]
async fn every_refusal_is_a_status() {
    let server = Server::start(Config {
        body_bytes_max: 1 << 20,
        ..Config::default()
    })
    .await;
    let (json, protobuf) = one(Signal::Logs);
    let large = vec![0; (1 << 20) + 1];
    let unclear = nested(&[0x12, 0]);
    for (content_type, body) in [(PROTOBUF, &protobuf), (JSON, &json)] {
        for refused in refused(body, &large) {
            check(&server, content_type, refused).await;
        }
        *server.sink.refusal.lock().unwrap() = Some(SinkError::Unavailable("down".to_owned()));
        let reply = server.post("/v1/logs", content_type, body).await;
        assert_eq!(
            (reply.status, reply.rpc().0, reply.header("retry-after")),
            (503, 14, Some("1"))
        );
        has_details(&reply.body, content_type, "RetryInfo");
    }
    // A request whose content type is not known is answered in JSON.
    for headers in [
        vec![],
        vec![("content-type", "text/plain")],
        vec![("content-type", "application/protobuf")],
    ] {
        let reply = server
            .send(&Request {
                method: "POST",
                path: "/v1/logs",
                headers,
                body: &protobuf,
            })
            .await;
        assert_eq!(
            (reply.status, reply.rpc().0, reply.header("content-type")),
            (415, 3, Some(JSON))
        );
    }
    let reply = server.post("/", PROTOBUF, &unclear).await;
    assert_eq!(
        (reply.status, reply.rpc()),
        (400, (3, "the content does not tell which signal it is of: post it to /v1/logs, /v1/traces or /v1/metrics".to_owned()))
    );
    server.is_well().await;
}

/// Checks that a status has one detail, of that kind; and none where the kind is empty.
fn has_details(body: &[u8], content_type: &str, kind: &str) {
    let name = format!("type.googleapis.com/google.rpc.{kind}");
    if content_type == JSON {
        let json: serde_json::Value = serde_json::from_slice(body).unwrap();
        let details = json["details"].as_array().unwrap();
        assert_eq!(
            details
                .iter()
                .map(|detail| detail["@type"].as_str().unwrap())
                .collect::<Vec<_>>(),
            if kind.is_empty() {
                vec![]
            } else {
                vec![name.as_str()]
            }
        );
        return;
    }
    let status = RpcStatus::decode(body).unwrap();
    assert_eq!(
        status
            .details
            .iter()
            .map(|any| any.type_url.as_str())
            .collect::<Vec<_>>(),
        if kind.is_empty() {
            vec![]
        } else {
            vec![name.as_str()]
        }
    );
    match kind {
        "BadRequest" => {
            let faults = BadRequest::decode(status.details[0].value.as_slice())
                .unwrap()
                .field_violations;
            assert_eq!(
                (faults.len(), faults[0].description.as_str()),
                (1, status.message.as_str())
            );
        }
        "RetryInfo" => {
            let delay = RetryInfo::decode(status.details[0].value.as_slice())
                .unwrap()
                .retry_delay
                .unwrap();
            assert_eq!(delay.seconds, 1);
        }
        _ => {}
    }
}
