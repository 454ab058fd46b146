//! A server for OTLP/HTTP on a real socket, with a sink in memory, and requests for it.
#![allow(dead_code, reason = "each test program uses a part of it")]

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use ingest::connection::listener;
use ingest::connection::rpc_status::RpcStatus;
use ingest::sink::{RawRecord, Sink, SinkError};
use ingest::{Config, ConnectionLimits, Pipeline, Policies, Protocols};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use schemas::privacy::PrivacyPolicy;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

pub const PROTOBUF: &str = "application/x-protobuf";
pub const JSON: &str = "application/json";

/// A sink that keeps what it gets, and refuses once with an error that was put into it.
#[derive(Default)]
pub struct Memory {
    pub records: Mutex<Vec<RawRecord>>,
    pub refusal: Mutex<Option<SinkError>>,
}

impl Sink for Memory {
    async fn append(&self, records: Vec<RawRecord>) -> Result<(), SinkError> {
        if let Some(error) = self.refusal.lock().unwrap().take() {
            return Err(error);
        }
        self.records.lock().unwrap().extend(records);
        Ok(())
    }

    fn ready(&self) -> bool {
        true
    }
}

/// A server that listens on a port of this host.
pub struct Server {
    pub address: SocketAddr,
    pub sink: Arc<Memory>,
    pub stop: oneshot::Sender<()>,
    pub served: tokio::task::JoinHandle<()>,
}

impl Server {
    pub async fn start(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, sink) = (listener.local_addr().unwrap(), Arc::new(Memory::default()));
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let limits = ConnectionLimits::new(&config);
        let policies = Policies::fixed(PrivacyPolicy::default());
        let protocols = Protocols::http(Pipeline::new(config, policies, Arc::clone(&sink)));
        let served = tokio::spawn(listener::run(listener, protocols, limits, shutdown));
        Self {
            address,
            sink,
            stop,
            served,
        }
    }

    /// Sends a request on a connection of its own.
    pub async fn send(&self, request: &Request<'_>) -> Reply {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nhost: tacho\r\nconnection: close\r\n",
            request.method, request.path
        );
        head += &format!("content-length: {}\r\n", request.body.len());
        for (name, value) in &request.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        stream.write_all(request.body).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        Reply::of(&bytes)
    }

    /// Sends a POST request with a content encoding.
    pub async fn post_encoded(&self, path: &str, content_type: &str, encoding: &str, body: &[u8]) -> Reply {
        let headers = vec![("content-type", content_type), ("content-encoding", encoding)];
        self.send(&Request {
            method: "POST",
            path,
            headers,
            body,
        })
        .await
    }

    /// Sends a POST request.
    pub async fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Reply {
        self.send(&Request {
            method: "POST",
            path,
            headers: vec![("content-type", content_type)],
            body,
        })
        .await
    }

    /// The records that the sink got since the last call.
    pub fn taken(&self) -> Vec<RawRecord> {
        std::mem::take(&mut self.sink.records.lock().unwrap())
    }

    /// Checks that a good request is answered and stored, whatever came before it.
    pub async fn is_well(&self) {
        self.taken();
        let good = request(vec![record(&[
            ("conversation.id", "well"),
            ("event.name", "codex.user_prompt"),
        ])]);
        let reply = self.post("/v1/logs", PROTOBUF, &good).await;
        assert_eq!((reply.status, reply.body.len()), (200, 0));
        let taken = self.taken();
        assert_eq!(taken.len(), 1);
        assert_eq!(
            (taken[0].key.as_str(), taken[0].value.as_ref()),
            ("default/well", good.as_slice())
        );
    }
}

pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub headers: Vec<(&'a str, &'a str)>,
    pub body: &'a [u8],
}

/// An answer over HTTP/1; its head is in lower case.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn of(bytes: &[u8]) -> Self {
        let at = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("a reply has a head");
        let head = String::from_utf8(bytes[..at].to_vec())
            .unwrap()
            .to_ascii_lowercase();
        Self {
            status: head[9..12].parse().unwrap(),
            head,
            body: bytes[at + 4..].to_vec(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The code and message of the `google.rpc.Status` in the body.
    pub fn rpc(&self) -> (i64, String) {
        if self.header("content-type") == Some(JSON) {
            let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
            return (
                json["code"].as_i64().unwrap(),
                json["message"].as_str().unwrap().to_owned(),
            );
        }
        assert_eq!(self.header("content-type"), Some(PROTOBUF));
        let status = RpcStatus::decode(self.body.as_slice()).unwrap();
        (i64::from(status.code), status.message)
    }
}

/// An attribute with a text.
pub fn pair(key: &str, text: &str) -> KeyValue {
    let value = AnyValue {
        value: Some(Value::StringValue(text.to_owned())),
    };
    KeyValue {
        key: key.to_owned(),
        value: Some(value),
        ..Default::default()
    }
}

/// A log record with these attributes.
pub fn record(attributes: &[(&str, &str)]) -> LogRecord {
    LogRecord {
        attributes: attributes.iter().map(|(key, text)| pair(key, text)).collect(),
        ..Default::default()
    }
}

/// An encoded request with these log records.
pub fn request(log_records: Vec<LogRecord>) -> Vec<u8> {
    let scope_logs = vec![ScopeLogs {
        log_records,
        ..Default::default()
    }];
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs,
            ..Default::default()
        }],
    }
    .encode_to_vec()
}

/// The log records of an encoded request.
pub fn records(value: &Bytes) -> Vec<LogRecord> {
    let request = ExportLogsServiceRequest::decode(value.clone()).unwrap();
    request
        .resource_logs
        .into_iter()
        .flat_map(|logs| logs.scope_logs)
        .flat_map(|scope| scope.log_records)
        .collect()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}
