//! Clients that send OTLP and time the answers, by HTTP/1.1 and gRPC over plain connections, with little work
//! of their own.

use super::process::now_ms;
use super::requests::Traffic;
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How many conversations the requests are spread over.
const CONVERSATIONS: u64 = 10_000;

/// The protocol of the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Grpc,
}

/// The load that is sent.
#[derive(Clone)]
pub struct Plan {
    pub protocol: Protocol,
    pub address: String,
    pub traffic: Arc<Traffic>,
    pub per_request: usize,
    /// How many connections there are, each with one request at a time.
    pub clients: usize,
    /// How many requests a second all connections send together; `None` to send as fast as answers come.
    pub rate: Option<f64>,
    pub length: Duration,
}

/// The outcome of a load.
pub struct Load {
    /// How many log records were answered with success.
    pub records: u64,
    pub seconds: f64,
    /// The times from when a request was due to its answer, ascending.
    pub latencies: Vec<Duration>,
}

impl Load {
    /// The latency of that percentile, ms.
    pub fn at(&self, percent: f64) -> f64 {
        let rank = (self.latencies.len() as f64 * percent / 100.0).ceil() as usize;
        self.latencies
            .get(rank.saturating_sub(1))
            .map_or(0.0, |latency| latency.as_secs_f64() * 1_000.0)
    }
}

/// Sends a load; every answer must be a success.
pub async fn run(plan: &Plan) -> Load {
    let next = Arc::new(AtomicU64::new(now_ms().unsigned_abs() << 16));
    let first = next.load(Ordering::Relaxed);
    let began = Instant::now();
    let clients: Vec<_> = (0..plan.clients)
        .map(|_| {
            let (plan, next) = (plan.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                let mut connection = Connection::open(&plan).await;
                let mut latencies = Vec::new();
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    let due = match plan.rate {
                        Some(rate) => began + Duration::from_secs_f64((turn - first) as f64 / rate),
                        None => Instant::now(),
                    };
                    if due.max(Instant::now()) >= began + plan.length {
                        return latencies;
                    }
                    tokio::time::sleep_until(due.into()).await;
                    let body = plan
                        .traffic
                        .message(plan.per_request, CONVERSATIONS, now_ms(), turn)
                        .value;
                    connection.post(&body).await;
                    latencies.push(due.elapsed());
                }
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await.expect("the client ends"));
    }
    latencies.sort();
    let seconds = began.elapsed().as_secs_f64();
    Load {
        records: (latencies.len() * plan.per_request) as u64,
        seconds,
        latencies,
    }
}

enum Connection {
    Http(TcpStream, Vec<u8>),
    Grpc(h2::client::SendRequest<Bytes>, String),
}

impl Connection {
    async fn open(plan: &Plan) -> Self {
        let stream = TcpStream::connect(&plan.address)
            .await
            .expect("the server listens");
        stream.set_nodelay(true).expect("a socket option");
        match plan.protocol {
            Protocol::Http => Self::Http(stream, Vec::new()),
            Protocol::Grpc => {
                let (sender, connection) = h2::client::Builder::new()
                    .initial_window_size(8 << 20)
                    .handshake(stream)
                    .await
                    .expect("the server speaks HTTP/2");
                tokio::spawn(connection);
                let uri = format!(
                    "http://{}/opentelemetry.proto.collector.logs.v1.LogsService/Export",
                    plan.address
                );
                Self::Grpc(sender, uri)
            }
        }
    }

    async fn post(&mut self, body: &[u8]) {
        match self {
            Self::Http(stream, buffer) => http(stream, buffer, body).await,
            Self::Grpc(sender, uri) => grpc(sender, uri, body).await,
        }
    }
}

async fn http(stream: &mut TcpStream, buffer: &mut Vec<u8>, body: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(
        b"POST /v1/logs HTTP/1.1\r\nhost: bench\r\ncontent-type: application/x-protobuf\r\ncontent-length: ",
    );
    buffer.extend_from_slice(body.len().to_string().as_bytes());
    buffer.extend_from_slice(b"\r\n\r\n");
    buffer.extend_from_slice(body);
    stream.write_all(buffer).await.expect("the server reads");
    buffer.clear();
    let head = loop {
        assert!(
            stream.read_buf(buffer).await.expect("the server answers") > 0,
            "the server closed the connection"
        );
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    assert!(text.starts_with("http/1.1 200"), "{text}");
    let length = text
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next())
        .map_or(0, |number| number.parse().unwrap_or(0));
    while buffer.len() < head + length {
        assert!(
            stream.read_buf(buffer).await.expect("the server answers") > 0,
            "the server closed the connection"
        );
    }
}

async fn grpc(sender: &mut h2::client::SendRequest<Bytes>, uri: &str, body: &[u8]) {
    let request = axum::http::Request::post(uri)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request");
    let mut ready = sender.clone().ready().await.expect("the connection is open");
    let (answer, mut stream) = ready.send_request(request, false).expect("the server takes it");
    let mut framed = BytesMut::with_capacity(body.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(body.len()).expect("it is small"));
    framed.put_slice(body);
    stream
        .send_data(framed.freeze(), true)
        .expect("the server takes it");
    let answer = answer.await.expect("the server answers");
    let in_head = answer.headers().get("grpc-status").cloned();
    let mut body = answer.into_body();
    while let Some(chunk) = body.data().await {
        let length = chunk.expect("the server answers").len();
        body.flow_control()
            .release_capacity(length)
            .expect("as much as came");
    }
    let trailers = body.trailers().await.expect("the server answers");
    let status = in_head.or_else(|| trailers.and_then(|trailers| trailers.get("grpc-status").cloned()));
    assert_eq!(
        status.as_ref().map(axum::http::HeaderValue::as_bytes),
        Some(&b"0"[..]),
        "{trailers:?}",
        trailers = status
    );
}
