//! Accepts connections of OTLP clients, reads their requests and answers them, over HTTP and gRPC.
//!
//! ```text
//! listener ─► protocols ─► http | grpc ─body─► prepare::pipeline ─► reply | error ─verdict─► rpc_status
//! ```
//!
//! **Invariant:** a request is answered with success only after everything of it that was taken is durable.

mod activity;
pub mod agent;
mod body;
pub mod error;
mod grpc;
mod http;
pub mod listener;
pub mod protocols;
mod reply;
pub mod rpc_status;
mod telemetry;
pub mod verdict;
