//! Tests OTLP/gRPC by calling it as a service.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use axum::body::{Body, HttpBody};
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use ingest::connection::rpc_status::RpcStatus;
use ingest::sink::{RawRecord, Sink, SinkError};
use ingest::{Config, Pipeline, Policies, Protocols, Signal};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use schemas::privacy::PrivacyPolicy;
use std::future::poll_fn;
use std::io::Write;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

/// A request with one record without fields, which is a log record, a span or a metric by the path it is sent to.
const ONE: [u8; 6] = [0x0a, 0x04, 0x12, 0x02, 0x12, 0x00];

/// A sink that keeps what it gets, or refuses everything while it is down.
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

/// The answer to a call.
#[derive(Debug)]
struct Answer {
    code: String,
    data: Vec<u8>,
    status: Option<RpcStatus>,
}

/// Calls a method with bytes that may or may not be a frame.
async fn answer(
    sink: &Arc<Memory>,
    path: &str,
    encoding: Option<&str>,
    framed: &[u8],
    limit: usize,
) -> Answer {
    let request = Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let request = match encoding {
        Some(encoding) => request.header("grpc-encoding", encoding),
        None => request,
    };
    let protocols = Protocols::grpc(Pipeline::new(
        Config {
            body_bytes_max: limit,
            decoded_bytes_max: limit,
            ..Config::default()
        },
        Policies::fixed(PrivacyPolicy::default()),
        Arc::clone(sink),
    ));
    let response = protocols
        .answer(request.body(Body::from(framed.to_vec())).unwrap())
        .await;
    assert_eq!(
        (
            response.status(),
            response.headers()["content-type"].to_str().unwrap()
        ),
        (StatusCode::OK, "application/grpc")
    );
    let mut metadata = response.headers().clone();
    let (mut body, mut data) = (response.into_body(), Vec::new());
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        match frame.unwrap().into_data() {
            Ok(bytes) => data.extend_from_slice(&bytes),
            Err(frame) => metadata.extend(frame.into_trailers().unwrap()),
        }
    }
    let code = metadata
        .get("grpc-status")
        .expect("a reply has a status")
        .to_str()
        .unwrap()
        .to_owned();
    let status = tonic::Status::from_header_map(&metadata).filter(|status| !status.details().is_empty());
    let status = status.map(|status| RpcStatus::decode(status.details()).unwrap());
    Answer { code, data, status }
}

/// Calls a method with a message; gives `grpc-status` and the body.
async fn call(sink: &Arc<Memory>, path: &str, gzip: bool, message: &[u8]) -> (String, Vec<u8>) {
    let answer = answer(sink, path, gzip.then_some("gzip"), &frame(gzip, message), 1 << 20).await;
    (answer.code, answer.data)
}

#[tokio::test]
async fn each_service_exports_to_its_topic() {
    for signal in Signal::ALL {
        let sink = Arc::new(Memory::default());
        assert_eq!(
            call(&sink, signal.grpc_path(), false, &ONE).await,
            ("0".to_owned(), frame(false, b""))
        );
        let taken = std::mem::take(&mut *sink.records.lock().unwrap());
        assert_eq!((taken.len(), taken[0].signal), (1, signal));
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
    // A message may be too large as sent, and when decompressed.
    let large = vec![0; (1 << 20) + 1];
    assert_eq!(call(&sink, path, false, &large).await.0, "8");
    assert_eq!(call(&sink, path, true, &gzip(&large)).await.0, "8");
    assert_eq!(sink.records.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_log_that_is_down_is_unavailable() {
    let sink = Arc::new(Memory {
        down: true,
        ..Memory::default()
    });
    assert_eq!(call(&sink, Signal::Logs.grpc_path(), false, &ONE).await.0, "14");
}

#[tokio::test]
async fn every_coding_of_every_signal() {
    let sink = Arc::new(Memory::default());
    for signal in Signal::ALL {
        let zstd = zstd::encode_all(&ONE[..], 3).unwrap();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&ONE).unwrap();
        let gzip = frame(true, &gzip.finish().unwrap());
        for (encoding, framed, code) in [
            (None, frame(false, &ONE), "0"),
            (Some("identity"), frame(false, &ONE), "0"),
            (Some("gzip"), gzip.clone(), "0"),
            // A call names what its messages may be compressed with, and each message says whether it is.
            (Some("gzip"), frame(false, &ONE), "0"),
            (Some("zstd"), frame(true, &zstd), "0"),
            (Some("snappy"), frame(true, &ONE), "12"),
            (None, gzip.clone(), "3"),
            (Some("zstd"), gzip.clone(), "3"),
        ] {
            let answer = answer(&sink, signal.grpc_path(), encoding, &framed, 1 << 20).await;
            assert_eq!(answer.code, code, "{encoding:?}");
            let taken = std::mem::take(&mut *sink.records.lock().unwrap());
            assert_eq!(
                taken
                    .iter()
                    .map(|raw| (raw.signal, raw.value.as_ref()))
                    .collect::<Vec<_>>(),
                if code == "0" {
                    vec![(signal, &ONE[..])]
                } else {
                    vec![]
                }
            );
        }
    }
}

#[tokio::test]
async fn limits_to_the_byte() {
    let sink = Arc::new(Memory::default());
    let large = [&[0x0a, 0xe8, 0x07, 0x1a, 0xe5, 0x07][..], &[b'u'; 997]].concat();
    let zstd = frame(true, &zstd::encode_all(large.as_slice(), 3).unwrap());
    for (limit, code) in [(large.len() - 1, "8"), (large.len(), "0"), (large.len() + 1, "0")] {
        for (encoding, framed) in [(None, &frame(false, &large)), (Some("zstd"), &zstd)] {
            let answer = answer(&sink, Signal::Logs.grpc_path(), encoding, framed, limit).await;
            assert_eq!(answer.code, code, "{limit} {encoding:?}");
            assert!(
                answer.status.is_none_or(|status| status.details.is_empty()),
                "what is too large is not to be sent again"
            );
        }
    }
}

#[tokio::test]
async fn refusals_carry_their_details() {
    let detail = |answer: Answer| {
        (
            answer.code,
            answer
                .status
                .unwrap()
                .details
                .first()
                .map(|any| any.type_url.clone()),
        )
    };
    let (well, down) = (
        Arc::new(Memory::default()),
        Arc::new(Memory {
            down: true,
            ..Memory::default()
        }),
    );
    let path = Signal::Logs.grpc_path();
    let bad = "type.googleapis.com/google.rpc.BadRequest".to_owned();
    for framed in [
        frame(false, &ONE[..5]),
        frame(false, &ONE)[..8].to_vec(),
        [frame(false, &ONE), frame(false, &ONE)].concat(),
        Vec::new(),
    ] {
        assert_eq!(
            detail(answer(&well, path, None, &framed, 1 << 20).await),
            ("3".to_owned(), Some(bad.clone()))
        );
    }
    let again = "type.googleapis.com/google.rpc.RetryInfo".to_owned();
    assert_eq!(
        detail(answer(&down, path, None, &frame(false, &ONE), 1 << 20).await),
        ("14".to_owned(), Some(again))
    );
}

#[tokio::test]
async fn what_is_left_out_is_told() {
    let sink = Arc::new(Memory::default());
    // The request has an empty span, and one whose name is not UTF-8.
    let body = [0x0a, 0x09, 0x12, 0x07, 0x12, 0x00, 0x12, 0x03, 0x2a, 0x01, 0xff];
    let answer = answer(
        &sink,
        Signal::Traces.grpc_path(),
        None,
        &frame(false, &body),
        1 << 20,
    )
    .await;
    let partial = ExportTraceServiceResponse::decode(&answer.data[5..])
        .unwrap()
        .partial_success
        .unwrap();
    assert_eq!((answer.code.as_str(), partial.rejected_spans), ("0", 1));
    assert_eq!(sink.records.lock().unwrap()[0].value.as_ref(), ONE);
}
