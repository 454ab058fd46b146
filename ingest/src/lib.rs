//! OTLP in, raw topics out: admits requests, keeps secrets out, splits them by conversation, answers when they are durable.
//!
//! A request of a client goes one way. [`connection`] reads it, [`prepare`] bounds it, takes texts out of it and makes keyed
//! raw records of it, and a [`sink`] makes these durable; only then is it answered. While Kafka does not answer, a
//! [`sink::spool`] can. What foreign writers put into the inbox topics comes in by [`inbox`], and goes the same way.
//!
//! ```text
//!  process ──► connection ──┐
//!     │                     ├──► prepare ──► sink ──► telemetry
//!     └──────► inbox ───────┘       │
//!     │                             ▼
//!     └─────────────────────────► control          the privacy policy, followed
//! ```
//!
//! **Architecture Invariant:** a folder uses only those that it reaches by the arrows, so there is no circle of folders.
//! (`telemetry`, the table of the process's own metrics, uses none, and each may use it.)
//!
//! **Architecture Invariant:** nothing is written anywhere before [`prepare::privacy::apply`] has seen it. (What an inbox holds
//! that can't be read can't be cleaned either: what goes to the quarantine has its secrets overwritten, as far as
//! [`prepare::scrub`] finds them.)
#![deny(missing_docs)]

pub mod connection;
pub mod control;
pub mod inbox;
pub mod prepare;
pub mod process;
pub mod sink;
pub mod telemetry;

pub use connection::listener::ConnectionLimits;
pub use connection::protocols::Protocols;
pub use control::policy::Policies;
pub use prepare::config::Config;
pub use prepare::hash::HashKey;
pub use prepare::pipeline::Pipeline;
pub use prepare::wire::WireError;
pub use schemas::signal::Signal;
pub use sink::kafka::KafkaSink;
pub use sink::partition::murmur2_partition;
