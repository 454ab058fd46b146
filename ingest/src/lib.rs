//! OTLP in, raw topics out: admit, keep secrets out, split by conversation, answer when durable.
//!
//! A request goes one way: [`connection`] reads it, [`prepare`] bounds it, takes texts out of it and makes keyed raw records of it, and a [`sink::Sink`] makes them durable. Only then is it answered.
//!
//! While Kafka does not answer, a [`spool`] can.
//!
//! What foreign writers put into the inbox topics comes in by [`inbox`], and goes the same way.
//!
//! **Architecture Invariant:** nothing is written anywhere before [`privacy::apply`] has seen it. (What an inbox holds that
//! can't be read can't be cleaned either: what goes to the quarantine has its secrets overwritten, as
//! far as [`scrub`] finds them.)
#![deny(missing_docs)]

pub mod connection;
pub mod control;
pub mod inbox;
pub mod prepare;
pub mod process;
pub mod sink;
pub mod telemetry;

pub use connection::listener::Gate;
pub use connection::protocols::Entrance;
pub use control::policy::Policies;
pub use prepare::config::Config;
pub use prepare::pipeline::Door;
pub use prepare::wire::WireError;
pub use schemas::signal::Signal;
pub use sink::kafka::KafkaSink;
pub use sink::partition::murmur2_partition;
