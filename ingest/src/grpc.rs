//! The OTLP/gRPC door: `Export` of the three services, on the request's bytes as they came.

use crate::agent::Agent;
use crate::door::{Door, Form, Incoming};
use crate::reply::Reject;
use crate::signal::Signal;
use crate::sink::Sink;
use crate::telemetry::Protocol;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use bytes::{Buf, BufMut, Bytes};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;
use tonic::Status;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, UnaryService};

/// The routes of OTLP/gRPC, to be served with HTTP/2; every other method is `UNIMPLEMENTED`.
pub fn grpc_router<S: Sink>(door: Arc<Door<S>>) -> Router {
    routes().fallback(|| async { unknown_method() }).with_state(door)
}

/// The answer to a method that is not there.
pub(crate) fn unknown_method() -> Response {
    Status::unimplemented("no such method: OTLP has Export of logs, traces and metrics").into_http()
}

pub(crate) fn routes<S: Sink>() -> Router<Arc<Door<S>>> {
    let mut router = Router::new();
    for signal in Signal::ALL {
        let export = move |State(door): State<Arc<Door<S>>>, request: Request| call(door, signal, request);
        router = router.route(signal.grpc_path(), post(export));
    }
    router
}

async fn call<S: Sink>(door: Arc<Door<S>>, signal: Signal, request: Request) -> Response {
    let mut grpc = Grpc::new(Raw)
        .accept_compressed(CompressionEncoding::Gzip)
        .apply_max_message_size_config(Some(door.config.decoded_bytes_max), None);
    grpc.unary(Export { door, signal }, request).await.map(axum::body::Body::new)
}

struct Export<S> {
    door: Arc<Door<S>>,
    signal: Signal,
}

impl<S: Sink> UnaryService<Bytes> for Export<S> {
    type Response = Bytes;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Bytes>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let (door, signal) = (Arc::clone(&self.door), self.signal);
        Box::pin(async move {
            let started = Instant::now();
            let agent = Agent::of(request.metadata().get("user-agent").map(|agent| agent.as_bytes()));
            let outcome = export(&door, signal, request.into_inner()).await;
            let verdict = outcome.as_ref().err().map(Reject::verdict);
            if let Some(verdict) = verdict {
                door.telemetry.refused(agent, verdict.retry_after.is_some());
            }
            let code = verdict.map_or(0, |verdict| verdict.code as u16);
            door.telemetry.answered(Protocol::Grpc, Some(signal), code, verdict.map(|verdict| verdict.reason), started.elapsed());
            match outcome {
                Ok(()) => Ok(tonic::Response::new(Bytes::new())),
                Err(reject) => Err(Status::new(reject.verdict().code, reject.to_string())),
            }
        })
    }
}

async fn export<S: Sink>(door: &Arc<Door<S>>, signal: Signal, body: Bytes) -> Result<(), Reject> {
    let mut permit = door.permit()?;
    permit.grow(body.len())?;
    door.accept(Incoming { signal, form: Form::Protobuf, gzip: false, body, permit }).await
}

/// Messages as bytes: what is stored is what came.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(src.copy_to_bytes(src.remaining())))
    }
}
