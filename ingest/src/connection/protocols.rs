//! Speaks the protocols of a port: OTLP/HTTP, OTLP/gRPC, or both.

use crate::connection::telemetry::RequestTelemetry;
use crate::connection::{grpc, http};
use crate::prepare::pipeline::Pipeline;
use crate::sink::Sink;
use axum::extract::Request;
use axum::response::Response;
use std::sync::Arc;

/// Answers the requests of a port, by the protocols that it speaks. Clones share everything.
pub struct Protocols<S>(Arc<Service<S>>);

struct Service<S> {
    pipeline: Arc<Pipeline<S>>,
    telemetry: RequestTelemetry,
    spoken: Spoken,
}

#[derive(Clone, Copy, Debug)]
enum Spoken {
    Http,
    Grpc,
    Both,
}

impl<S> Clone for Protocols<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Sink> Protocols<S> {
    fn new(pipeline: Arc<Pipeline<S>>, spoken: Spoken) -> Self {
        Self(Arc::new(Service {
            pipeline,
            telemetry: RequestTelemetry::new(),
            spoken,
        }))
    }

    /// OTLP/HTTP: `/v1/logs`, `/v1/traces` and `/v1/metrics` under any prefix, with or without a slash at the end; `/` for
    /// all three. Every other path is 404.
    #[must_use]
    pub fn http(pipeline: Arc<Pipeline<S>>) -> Self {
        Self::new(pipeline, Spoken::Http)
    }

    /// OTLP/gRPC, to be served with HTTP/2; every other method is `UNIMPLEMENTED`.
    #[must_use]
    pub fn grpc(pipeline: Arc<Pipeline<S>>) -> Self {
        Self::new(pipeline, Spoken::Grpc)
    }

    /// Both protocols, told apart by content type, since OTLP/gRPC has one of its own.
    #[must_use]
    pub fn both(pipeline: Arc<Pipeline<S>>) -> Self {
        Self::new(pipeline, Spoken::Both)
    }

    /// Answers a request, whatever it is.
    pub async fn answer(&self, request: Request) -> Response {
        let Service {
            pipeline,
            telemetry,
            spoken,
        } = &*self.0;
        match spoken {
            Spoken::Grpc => grpc::answer(pipeline, telemetry, request).await,
            Spoken::Both if grpc::is_grpc(request.headers()) => {
                grpc::answer(pipeline, telemetry, request).await
            }
            Spoken::Http | Spoken::Both => http::answer(pipeline, telemetry, request).await,
        }
    }
}
