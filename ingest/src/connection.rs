//! Connections of OTLP clients: how they are accepted, read and answered, over HTTP and gRPC.

pub mod agent;
mod body;
pub mod grpc;
pub mod http;
pub mod listener;
pub mod protocols;
pub mod reply;
