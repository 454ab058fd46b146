//! OTLP in, raw topics out: admit, keep secrets out, split by conversation, answer when durable.
//!
//! A request goes one way: [`http`] or [`grpc`] reads it, [`admit`] bounds it, [`privacy`] takes texts out of it,
//! [`route`] makes keyed raw records of it, and a [`sink::Sink`] makes them durable. Only then is it answered.
//!
//! While Kafka does not answer, a [`spool`] can.
//!
//! What foreign writers put into the inbox topics comes in by [`inbox`], and goes the same way.
//!
//! **Architecture Invariant:** nothing is written anywhere before [`privacy::apply`] has seen it. (What an inbox holds that
//! can't be read can't be cleaned either: what goes to the quarantine has its secrets overwritten, as
//! far as [`scrub`] finds them.)
#![deny(missing_docs)]

pub mod admit;
pub mod agent;
mod body;
pub mod coding;
pub mod config;
pub mod conversation;
mod detect;
pub mod door;
pub mod entrance;
pub mod environment;
mod finish;
mod gapless;
pub mod grpc;
pub mod hash;
pub mod http;
pub mod inbox;
pub mod json;
pub mod kafka;
mod lanes;
pub(crate) mod linger;
mod memory;
mod partial;
pub mod partition;
mod patience;
pub mod policy;
pub mod privacy;
pub mod process;
pub mod quarantine;
pub mod reply;
pub mod route;
pub mod scrub;
pub mod serve;
pub mod signal;
pub mod sink;
pub mod spool;
pub mod telemetry;
mod wire;

pub use config::Config;
pub use door::Door;
pub use entrance::Entrance;
pub use kafka::KafkaSink;
pub use partition::murmur2_partition;
pub use policy::Policies;
pub use serve::Gate;
pub use signal::Signal;
pub use wire::WireError;
