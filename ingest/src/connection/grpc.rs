//! The OTLP/gRPC door: `Export` of the three services, on the request's bytes as they came.
//!
//! The calls are unary, so that the protocol is a frame in, a frame and trailers out; it goes through the same limits as
//! OTLP/HTTP, and every call is counted. Source: gRPC over HTTP/2, gRPC compression.

use crate::connection::agent::Agent;
use crate::connection::body::{discard, read};
use crate::connection::reply::{Accepted, Reject};
use crate::prepare::coding::Coding;
use crate::prepare::pipeline::{Door, Form, Incoming};
use crate::sink::Sink;
use crate::telemetry::Protocol;
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

/// Flag and length before a message.
const PREFIX_BYTES: usize = 5;
/// What calls may be compressed with.
const ENCODINGS: &str = "identity,gzip,zstd";

/// Whether a request is a call.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .map_or(&b""[..], HeaderValue::as_bytes);
    content_type
        .get(..16)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"))
}

pub(crate) async fn answer<S: Sink>(door: &Arc<Door<S>>, request: Request) -> Response {
    let started = Instant::now();
    let agent = Agent::in_headers(request.headers());
    let signal = Signal::ALL
        .into_iter()
        .find(|signal| request.uri().path() == signal.grpc_path());
    let outcome = match signal {
        _ if !is_grpc(request.headers()) => Err(Reject::ContentType),
        None => refuse(Reject::NoSuchMethod, request.into_body()).await,
        Some(signal) => export(door, signal, request).await,
    };
    if let Err(reject) = &outcome {
        door.telemetry
            .refused(agent, reject.verdict().retry_after.is_some());
    }
    let (response, code, reason) = match outcome {
        Ok(accepted) => (success(&accepted), Code::Ok, None),
        Err(Reject::ContentType) => (no_call(), Code::InvalidArgument, Some(Reject::ContentType.tell())),
        Err(reject) => (failure(&reject), reject.verdict().code, Some(reject.tell())),
    };
    door.telemetry
        .answered(Protocol::Grpc, signal, code as u16, reason, started.elapsed());
    response
}

async fn refuse(reject: Reject, body: Body) -> Result<Accepted, Reject> {
    discard(body).await;
    Err(reject)
}

async fn export<S: Sink>(door: &Arc<Door<S>>, signal: Signal, request: Request) -> Result<Accepted, Reject> {
    let (parts, mut body) = request.into_parts();
    let coding = match parts.headers.get("grpc-encoding") {
        None => Some(Coding::Identity),
        Some(name) => name.to_str().ok().and_then(Coding::by_name),
    };
    let Some(coding) = coding else {
        return refuse(Reject::GrpcEncoding, body).await;
    };
    let mut permit = door.permit()?;
    let limit = door.config.body_bytes_max;
    match read(
        &mut body,
        limit.saturating_add(PREFIX_BYTES),
        door.config.body_time_max,
        &mut permit,
    )
    .await
    {
        Ok(framed) => {
            let (is_compressed, message) = message(&framed)?;
            let coding = match (is_compressed, coding) {
                (false, _) => Coding::Identity,
                (true, Coding::Identity) => return Err(Reject::GrpcFrame),
                (true, coding) => coding,
            };
            door.accept(Incoming {
                signal: Some(signal),
                form: Form::Protobuf,
                coding,
                body: message,
                permit,
            })
            .await
        }
        Err(reject @ (Reject::Slow | Reject::Body)) => Err(reject),
        Err(Reject::BodyTooLarge(_)) => refuse(Reject::BodyTooLarge(limit), body).await,
        Err(reject) => refuse(reject, body).await,
    }
}

/// The one message of a call, and whether it is compressed.
fn message(framed: &Bytes) -> Result<(bool, Bytes), Reject> {
    let (prefix, message) = framed
        .split_first_chunk::<PREFIX_BYTES>()
        .ok_or(Reject::GrpcFrame)?;
    let [flag, length @ ..] = *prefix;
    if flag > 1 || usize::try_from(u32::from_be_bytes(length)) != Ok(message.len()) {
        return Err(Reject::GrpcFrame);
    }
    Ok((flag == 1, framed.slice(PREFIX_BYTES..)))
}

fn success(accepted: &Accepted) -> Response {
    let message = accepted.to_protobuf();
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    // Far below 4 GiB: messages are cut.
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

/// The status alone, with `google.rpc.Status` in `grpc-status-details-bin`.
fn failure(reject: &Reject) -> Response {
    let status = reject.status();
    let code = reject.verdict().code;
    let mut response: Response =
        Status::with_details(code, status.message.clone(), status.to_protobuf().into()).into_http();
    response
        .headers_mut()
        .insert("grpc-accept-encoding", HeaderValue::from_static(ENCODINGS));
    response
}

/// The answer to what is no call at all: the protocol wants HTTP's words for it.
fn no_call() -> Response {
    let mut response = Response::new(Body::from("content type must be application/grpc"));
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

/// A message, then the trailers of success.
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
            |framed: &'static [u8]| message(&Bytes::from_static(framed)).map_err(|reject| reject.to_string());
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
