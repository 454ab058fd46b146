//! The ways to one door: OTLP/HTTP, OTLP/gRPC, or both on one port.

use crate::connection::{grpc, http};
use crate::prepare::pipeline::Door;
use crate::sink::Sink;
use axum::extract::Request;
use axum::response::Response;
use std::sync::Arc;

/// What answers the requests of a listener.
pub struct Entrance<S> {
    door: Arc<Door<S>>,
    protocols: Protocols,
}

#[derive(Clone, Copy, Debug)]
enum Protocols {
    Http,
    Grpc,
    Both,
}

impl<S> Clone for Entrance<S> {
    fn clone(&self) -> Self {
        Self {
            door: Arc::clone(&self.door),
            protocols: self.protocols,
        }
    }
}

impl<S: Sink> Entrance<S> {
    /// OTLP/HTTP: `/v1/logs`, `/v1/traces` and `/v1/metrics` under any prefix, with or without a slash at the end; `/` for
    /// all three. Every other path is 404.
    #[must_use]
    pub const fn http(door: Arc<Door<S>>) -> Self {
        Self {
            door,
            protocols: Protocols::Http,
        }
    }

    /// OTLP/gRPC, to be served with HTTP/2; every other method is `UNIMPLEMENTED`.
    #[must_use]
    pub const fn grpc(door: Arc<Door<S>>) -> Self {
        Self {
            door,
            protocols: Protocols::Grpc,
        }
    }

    /// Both, told apart by content type, as OTLP/gRPC has one of its own.
    #[must_use]
    pub const fn both(door: Arc<Door<S>>) -> Self {
        Self {
            door,
            protocols: Protocols::Both,
        }
    }

    /// Answers a request, whatever it is.
    pub async fn answer(&self, request: Request) -> Response {
        match self.protocols {
            Protocols::Grpc => grpc::answer(&self.door, request).await,
            Protocols::Both if grpc::is_grpc(request.headers()) => grpc::answer(&self.door, request).await,
            Protocols::Http | Protocols::Both => http::answer(&self.door, request).await,
        }
    }
}
