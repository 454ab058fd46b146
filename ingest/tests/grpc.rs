//! The gRPC door, called as a service.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use axum::body::{Body, HttpBody};
use axum::http::Request;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use ingest::grpc::grpc_router;
use ingest::sink::{RawRecord, Sink, SinkError};
use ingest::{Config, Door, Policies, Signal};
use schemas::privacy::PrivacyPolicy;
use std::future::poll_fn;
use std::io::Write;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tonic::codegen::Service;

/// A request with one record: a log record, a span or a metric without fields.
const ONE: [u8; 6] = [0x0a, 0x04, 0x12, 0x02, 0x12, 0x00];

#[derive(Default)]
struct Memory {
    records: Mutex<Vec<RawRecord>>,
    down: bool,
}

impl Sink for Memory {
    async fn append(&self, records: Vec<RawRecord>) -> Result<(), SinkError> {
        if self.down {
            return Err(SinkError::Unavailable("down".to_owned()));
        }
        self.records.lock().unwrap().extend(records);
        Ok(())
    }

    fn ready(&self) -> bool {
        !self.down
    }
}

fn frame(compressed: bool, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![u8::from(compressed)];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

/// Calls a method; gives `grpc-status` and the body.
async fn call(sink: &Arc<Memory>, path: &str, gzip: bool, message: &[u8]) -> (String, Vec<u8>) {
    let request = Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
    let request = if gzip { request.header("grpc-encoding", "gzip") } else { request };
    let mut router = grpc_router(Door::new(
        Config { decoded_bytes_max: 1 << 20, ..Config::default() },
        Policies::fixed(PrivacyPolicy::default()),
        Arc::clone(sink),
    ));
    let response = router.call(request.body(Body::from(frame(gzip, message))).unwrap()).await.unwrap();
    let mut status = response.headers().get("grpc-status").map(|value| value.to_str().unwrap().to_owned());
    let (mut body, mut data) = (response.into_body(), Vec::new());
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        match frame.unwrap().into_data() {
            Ok(bytes) => data.extend_from_slice(&bytes),
            Err(frame) => status = frame.into_trailers().unwrap().get("grpc-status").map(|value| value.to_str().unwrap().to_owned()),
        }
    }
    (status.expect("a reply has a status"), data)
}

#[tokio::test]
async fn each_service_exports_to_its_topic() {
    for signal in Signal::ALL {
        let sink = Arc::new(Memory::default());
        assert_eq!(call(&sink, signal.grpc_path(), false, &ONE).await, ("0".to_owned(), frame(false, b"")));
        let taken = std::mem::take(&mut *sink.records.lock().unwrap());
        assert_eq!((taken.len(), taken[0].topic), (1, signal.topic()));
        assert_eq!(taken[0].value, Bytes::from_static(&ONE));
    }
}

#[tokio::test]
async fn gzip_is_taken_and_bad_input_is_not() {
    let sink = Arc::new(Memory::default());
    let path = Signal::Logs.grpc_path();
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(call(&sink, path, true, &gzip(&ONE)).await.0, "0");
    assert_eq!(sink.records.lock().unwrap().len(), 1);
    assert_eq!(call(&sink, path, false, &ONE[..5]).await.0, "3");
    assert_eq!(call(&sink, "/no.such.Service/Export", false, &ONE).await.0, "12");
    // Larger than may be, as sent and when decompressed.
    let large = vec![0; (1 << 20) + 1];
    assert_eq!(call(&sink, path, false, &large).await.0, "8");
    assert_eq!(call(&sink, path, true, &gzip(&large)).await.0, "8");
    assert_eq!(sink.records.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_log_that_is_down_is_unavailable() {
    let sink = Arc::new(Memory { down: true, ..Memory::default() });
    assert_eq!(call(&sink, Signal::Logs.grpc_path(), false, &ONE).await.0, "14");
}
