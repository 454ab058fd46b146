//! Tests of the admin port over HTTP.

use super::*;
use crate::status::Status;
use crate::view::{PartitionView, Shown};
use bytes::Bytes;
use processor_log::{Batch, Extent};
use prost::Message;
use schemas::delta::SEPARATOR;
use schemas::histogram::Histogram;
use schemas::metric::{Amount, Metric};
use schemas::record::Record;
use schemas::time::{AppendTime, EventTime};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A log with three records in partition 1 of each topic, which can only be read.
struct Three;

impl ReadLog for Three {
    fn partitions(&mut self, _: Topic) -> Result<i32, LogError> {
        Ok(2)
    }

    fn extent(&mut self, at: TopicPartition) -> Result<Extent, LogError> {
        Ok(Extent {
            start: Position(0),
            end: Position(if at.partition == 1 { 3 } else { 0 }),
        })
    }

    fn read(&mut self, at: TopicPartition, from: Position, max: usize) -> Result<Batch, LogError> {
        if from.0 < 0 {
            return Err(LogError::OutOfRange {
                at,
                wanted: from.0,
                start: 0,
            });
        }
        let record = |offset| Record {
            from: at,
            offset,
            appended: AppendTime(offset),
            key: None,
            value: Some(Bytes::from(vec![0xff; 3])),
            headers: vec![("h".to_owned(), Bytes::from_static(b"v"))],
        };
        let records: Vec<Record> = (from.0..3).take(max).map(record).collect();
        let next = records.last().map_or(from, Record::position);
        Ok(Batch { records, next })
    }
}

fn key(metric: Metric, values: &[&str]) -> String {
    let separator = SEPARATOR.to_string();
    format!("{}{SEPARATOR}{}", metric.def().name, values.join(&separator))
}

fn count(count: i64) -> Shown {
    Shown {
        total: Some(Amount::Count(count)),
        last_final: BTreeMap::new(),
    }
}

fn approvals(team: &str) -> String {
    let values = ["default", team, "apply_patch", "approved", "human"];
    key(Metric::ApprovalDecisions, &values)
}

fn tokens(kind: &str) -> String {
    let values = ["default", "blue", "gpt", "", "", "", "", "", "root", kind];
    key(Metric::Tokens, &values)
}

/// A view with some series of one partition, and one session.
fn some_view() -> View {
    let mut durations = Histogram::default();
    durations.record(1_000_000, 1_000_000);
    let duration = Shown {
        total: Some(Amount::Values(durations)),
        last_final: BTreeMap::new(),
    };
    let quarter = Amount::Ratio {
        numerator: 1,
        denominator: 4,
    };
    let ratio = Shown {
        total: None,
        last_final: BTreeMap::from([(0, (EventTime(60_000), quarter))]),
    };
    let no_values = vec![""; Metric::ApiRequestDuration.def().labels.len()];
    let series = BTreeMap::from([
        (
            key(Metric::Turns, &["default", "", "", "", "", "", "", ""]),
            count(5),
        ),
        (tokens("input_cached"), count(30)),
        (tokens("output_visible"), count(4)),
        (approvals("blue"), count(2)),
        (approvals("red"), count(1)),
        (key(Metric::ApiRequestDuration, &no_values), duration),
        (key(Metric::CacheHitRatio, &["default", "blue", "gpt"]), ratio),
    ]);
    let partition = PartitionView {
        timestamp: AppendTime(90_000),
        series,
        latest_final: vec![Some(EventTime(60_000))],
        ..PartitionView::default()
    };
    let view = View::default();
    view.partitions.insert(0, partition);
    view.session("a", serde_json::json!({"state": "open"}));
    view
}

fn admin() -> Admin {
    Admin {
        view: Arc::new(some_view()),
        health: Arc::new(Health::of(&Arc::new(Status::default()))),
        ingest_ready: Box::new(|| true),
        open: Box::new(|| Ok(Box::new(Three))),
        token: "secret".to_owned(),
        page: "<script nonce=\"NONCE\"></script>",
        setup: "[otel]".to_owned(),
        about: "here".to_owned(),
    }
}

/// The status code, head and body of the answer to `GET path`; `extra` holds further header lines.
async fn get(address: std::net::SocketAddr, path: &str, host: &str, extra: &str) -> (u16, String, Vec<u8>) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{extra}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    (head[9..12].parse().unwrap(), head, answer[end + 4..].to_vec())
}

async fn serve(admin: Admin) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router(admin, true)).await.unwrap() });
    address
}

const BEARER: &str = "Authorization: Bearer secret\r\n";

#[tokio::test]
async fn probes_follow_readiness_and_derived_metrics_follow_the_lease() {
    let admin = admin();
    let status = Arc::clone(&admin.health.workers[0]);
    let lapsed = Arc::new(Status::new(Duration::ZERO));
    admin.view.partitions.get_mut(&0).unwrap().worker = Some(lapsed);
    let view = Arc::clone(&admin.view);
    let address = serve(admin).await;
    assert_eq!(get(address, "/livez", "localhost", "").await.0, 200);
    assert_eq!(get(address, "/readyz", "localhost:1", "").await.0, 503);
    let metrics = String::from_utf8(get(address, "/metrics", "127.0.0.1", "").await.2).unwrap();
    assert!(!metrics.contains("tacho_turns_total"), "{metrics}");
    status.set_ready(true);
    view.partitions.get_mut(&0).unwrap().worker = Some(status);
    assert_eq!(get(address, "/readyz", "[::1]:9464", "").await.0, 200);
    let (_, head, body) = get(address, "/metrics", "127.0.0.1", "").await;
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(
        String::from_utf8(body)
            .unwrap()
            .contains("tacho_turns_total{tenant=\"default\",log=\"main\"} 5 90000\n")
    );
}

#[tokio::test]
async fn a_scraper_gets_the_format_that_it_asks_for() {
    let address = serve(admin()).await;
    let accept = "Accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,*/*;q=0.1\r\n";
    let (code, head, body) = get(address, "/metrics", "localhost", accept).await;
    assert_eq!(code, 200);
    let wanted = "content-type: application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    assert!(head.contains(wanted) && head.contains("vary: accept"), "{head}");
    let name = b"tacho_api_request_duration_seconds";
    assert!(
        body.windows(name.len()).any(|bytes| bytes == name) && !body.starts_with(b"#"),
        "{body:x?}"
    );
    let (_, head, body) = get(address, "/metrics", "localhost", "Accept: text/plain\r\n").await;
    assert!(
        head.contains("text/plain; version=0.0.4") && body.starts_with(b"# HELP "),
        "{head}"
    );
}

#[tokio::test]
async fn reading_needs_the_token_and_gives_records_as_they_are() {
    let address = serve(admin()).await;
    let path = "/api/read?topic=codex.sessions.v1&partition=1&from=1&max=1";
    assert_eq!(get(address, path, "localhost", "").await.0, 401);
    assert_eq!(
        get(address, path, "localhost", "Authorization: Bearer secreu\r\n")
            .await
            .0,
        401
    );
    let (code, _, body) = get(address, path, "localhost", BEARER).await;
    assert_eq!(code, 200);
    let at = TopicPartition {
        topic: Topic::Sessions,
        partition: 1,
    };
    let batch = ReadReply::decode(body.as_slice()).unwrap().into_batch(at);
    assert_eq!(batch, Three.read(at, Position(1), 1).unwrap());
    let (_, _, body) = get(
        address,
        "/api/extent?topic=tacho.deltas&partition=1",
        "localhost",
        BEARER,
    )
    .await;
    assert_eq!(
        ExtentReply::decode(body.as_slice()).unwrap(),
        ExtentReply {
            partitions: 2,
            start: 0,
            end: 3
        }
    );
    assert_eq!(
        get(address, "/api/read?topic=nonsense", "localhost", BEARER)
            .await
            .0,
        404
    );
    assert_eq!(
        get(
            address,
            "/api/read?topic=tacho.deltas&from=-1",
            "localhost",
            BEARER
        )
        .await
        .0,
        410
    );
}

#[tokio::test]
async fn page_is_locked_down_and_other_hosts_are_refused() {
    let address = serve(admin()).await;
    let (code, head, body) = get(address, "/", "localhost:9464", "").await;
    assert_eq!(code, 200);
    let body = String::from_utf8(body).unwrap();
    let nonce = body.split('"').nth(1).unwrap();
    assert!(
        head.contains("default-src 'none'") && head.contains(&format!("script-src 'nonce-{nonce}'")),
        "{head}"
    );
    let again = String::from_utf8(get(address, "/", "localhost:9464", "").await.2).unwrap();
    assert_ne!(body, again, "two answers have the same nonce");
    assert_eq!(
        get(address, "/api/overview", "attacker.example:9464", "").await.0,
        403
    );
}

#[tokio::test]
async fn overview_sums_up_what_the_view_holds() {
    let address = serve(admin()).await;
    let (_, _, body) = get(address, "/api/overview", "localhost", "").await;
    let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(value["turns"], 5);
    assert_eq!(value["clock_ms"], 90_000);
    assert_eq!(
        value["tokens"][0],
        serde_json::json!({"kind": "input_cached", "count": 30})
    );
    assert_eq!(value["tokens_by"][0]["total"], 34);
    assert_eq!(value["approvals_human"], 3);
    assert_eq!(
        value["approvals"],
        serde_json::json!([{"tool": "apply_patch", "decision": "approved", "source": "human", "count": 3}])
    );
    assert_eq!(value["latency"]["start_ms"], serde_json::Value::Null);
    assert_eq!(value["latency"]["count"], 1);
    assert_eq!(value["cache_hit_ratio"]["ratio"], 0.25);
    assert_eq!(value["sessions"][0]["key"], "a");
    assert_eq!(value["setup"], "[otel]");
}
