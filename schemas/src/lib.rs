//! The vocabulary of Tachograph: what an event, a metric, a record and a derived row are, and how each is encoded.
//!
//! A leaf of the workspace and pure: no IO, no clock, no randomness. Five tables live here, and nowhere else:
//! the [events](event::EventKind) on the wire, the [metrics](metric::Metric) and [rows](derived::Row) derived from them,
//! the [stages](stage::Stage) that derive, and the [topics](topic::Topic) that carry all of it.
#![deny(missing_docs)]

pub mod catalogue;
pub mod control;
pub mod delta;
pub mod derived;
pub mod event;
pub mod fact;
pub mod failure;
pub mod histogram;
pub mod id;
pub mod metric;
pub mod origin;
pub mod otlp;
pub mod price;
pub mod privacy;
pub mod record;
pub mod settings;
pub mod signal;
pub mod stage;
pub mod state;
pub mod time;
pub mod topic;
