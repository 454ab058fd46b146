//! Answers OTLP/gRPC calls: `Export` of the three services, on the bytes of a request as they came.
//!
//! The calls are unary, so a call is one frame in, and one frame and trailers out. Calls go through the same limits as
//! OTLP/HTTP, and each is counted. Source: gRPC over HTTP/2, gRPC compression.

use crate::connection::agent::Agent;
use crate::connection::body::{read, refuse};
use crate::connection::error::RequestError;
use crate::connection::reply::success_protobuf;
use crate::connection::telemetry::{Protocol, RequestTelemetry};
use crate::prepare::coding::Coding;
use crate::prepare::error::PipelineError;
use crate::prepare::pipeline::{Accepted, Pipeline};
use crate::prepare::request::{Format, Incoming};
use crate::sink::Sink;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use schemas::signal::Signal;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tonic::{Code, Status};

/// The size of what stands before a message: a flag, and the message's length.
const PREFIX_BYTES: usize = 5;
/// The values of `grpc-encoding` that are understood.
const ENCODINGS: &str = "identity,gzip,zstd";

/// Whether a request is a gRPC call.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .map_or(&b""[..], HeaderValue::as_bytes);
    content_type
        .get(..16)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"))
}

pub(super) async fn answer<S: Sink>(
    pipeline: &Arc<Pipeline<S>>,
    telemetry: &RequestTelemetry,
    request: Request,
) -> Response {
    let started = Instant::now();
    let agent = Agent::in_headers(request.headers());
    let signal = Signal::ALL
        .into_iter()
        .find(|signal| request.uri().path() == signal.grpc_path());
    let outcome = match signal {
        _ if !is_grpc(request.headers()) => Err(RequestError::ContentType),
        None => refuse(RequestError::NoSuchMethod, request.into_body()).await,
        Some(signal) => export(pipeline, signal, request).await,
    };
    let (response, code, reason) = match outcome {
        Ok(accepted) => (success(&accepted), Code::Ok, None),
        Err(error) => {
            let verdict = error.verdict();
            telemetry.refused(agent, verdict.retry_after.is_some());
            error.log();
            let response = match error {
                RequestError::ContentType => no_call(),
                error => failure(&error),
            };
            (response, verdict.code, Some(verdict.reason.name()))
        }
    };
    telemetry.answered(Protocol::Grpc, signal, code as u16, reason, started.elapsed());
    response
}

async fn export<S: Sink>(
    pipeline: &Arc<Pipeline<S>>,
    signal: Signal,
    request: Request,
) -> Result<Accepted, RequestError> {
    let (parts, mut body) = request.into_parts();
    let coding = match parts.headers.get("grpc-encoding") {
        None => Some(Coding::Identity),
        Some(name) => name.to_str().ok().and_then(Coding::by_name),
    };
    let Some(coding) = coding else {
        return refuse(RequestError::GrpcEncoding, body).await;
    };
    let mut permit = pipeline.permit()?;
    let limit = pipeline.config.body_bytes_max;
    match read(
        &mut body,
        limit.saturating_add(PREFIX_BYTES),
        pipeline.config.body_time_max,
        &mut permit,
    )
    .await
    {
        Ok(framed) => {
            let (is_compressed, message) = message(&framed)?;
            let coding = match (is_compressed, coding) {
                (false, _) => Coding::Identity,
                (true, Coding::Identity) => return Err(RequestError::GrpcFrame),
                (true, coding) => coding,
            };
            let incoming = Incoming {
                signal: Some(signal),
                format: Format::Protobuf,
                coding,
                body: message,
                permit,
            };
            Ok(pipeline.accept(incoming).await?)
        }
        Err(error @ (RequestError::Slow | RequestError::Body)) => Err(error),
        Err(RequestError::Pipeline(PipelineError::BodyTooLarge(_))) => {
            refuse(PipelineError::BodyTooLarge(limit).into(), body).await
        }
        Err(error) => refuse(error, body).await,
    }
}

/// The one message of a call, and whether it is compressed.
///
/// # Errors
/// The bytes are not exactly one frame.
fn message(framed: &Bytes) -> Result<(bool, Bytes), RequestError> {
    let (prefix, message) = framed
        .split_first_chunk::<PREFIX_BYTES>()
        .ok_or(RequestError::GrpcFrame)?;
    let [flag, length @ ..] = *prefix;
    if flag > 1 || usize::try_from(u32::from_be_bytes(length)) != Ok(message.len()) {
        return Err(RequestError::GrpcFrame);
    }
    Ok((flag == 1, framed.slice(PREFIX_BYTES..)))
}

fn success(accepted: &Accepted) -> Response {
    let message = success_protobuf(accepted);
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    // An answer is far below 4 GiB, since its message is cut.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.extend_from_slice(&message);
    let mut response = Response::new(Body::new(Answer {
        message: Some(framed.freeze()),
        has_trailers: true,
    }));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
        .headers_mut()
        .insert("grpc-accept-encoding", HeaderValue::from_static(ENCODINGS));
    response
}

/// An answer of a status alone, with `google.rpc.Status` in `grpc-status-details-bin`.
fn failure(error: &RequestError) -> Response {
    let status = error.status();
    let code = error.verdict().code;
    let mut response: Response =
        Status::with_details(code, status.message.clone(), status.to_protobuf().into()).into_http();
    response
        .headers_mut()
        .insert("grpc-accept-encoding", HeaderValue::from_static(ENCODINGS));
    response
}

/// The answer to a request that is no call, for which the protocol asks for a status code of HTTP.
fn no_call() -> Response {
    let mut response = Response::new(Body::from("content type must be application/grpc"));
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

/// The body of a successful answer: one message, then the trailers.
struct Answer {
    message: Option<Bytes>,
    has_trailers: bool,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        if !std::mem::take(&mut self.has_trailers) {
            return Poll::Ready(None);
        }
        let trailers = HeaderMap::from_iter([(
            header::HeaderName::from_static("grpc-status"),
            HeaderValue::from_static("0"),
        )]);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        !self.has_trailers
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.message.as_ref().map_or(0, |message| message.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_whole_message() {
        let of =
            |framed: &'static [u8]| message(&Bytes::from_static(framed)).map_err(|error| error.to_string());
        assert_eq!(of(b"\0\0\0\0\x02ab"), Ok((false, Bytes::from_static(b"ab"))));
        assert_eq!(of(b"\x01\0\0\0\0"), Ok((true, Bytes::new())));
        for framed in [
            &b""[..],
            b"\0\0\0\0",
            b"\0\0\0\0\x02a",
            b"\0\0\0\0\x01ab",
            b"\x02\0\0\0\0",
        ] {
            assert!(of(framed).is_err(), "{framed:?}");
        }
    }
}
