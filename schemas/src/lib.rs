//! The vocabulary of Tachograph: what an event, a metric, a record and a derived row are, and how each is
//! encoded.
//!
//! Five tables live here, and nowhere else: the [events](event::EventKind) on the wire, the
//! [metrics](metric::Metric) and [rows](derived::Row) derived from them, the [stages](stage::Stage) that
//! derive, and the [topics](topic::Topic) that carry all of it. The compiler demands that they are complete.
//!
//! | module | what |
//! |---|---|
//! | [`otlp`] | OTLP on the wire: the scan (no copy, no allocation, any order of fields, never a panic), prost as its oracle, dedup marks, JSON to protobuf in one pass |
//! | [`fact`], [`histogram`], [`delta`] | what records mean, as metrics are made of it; exponential buckets of integers; what stages send to stage `series` |
//! | [`state`] | keys and values of the changelogs, as prost structs written by hand |
//! | [`derived`] | rows, and their Avro schemas in `avro/`; in `avro/past` those that rows in topics still have |
//! | [`settings`], [`control`], [`price`], [`privacy`] | the seed, records that start an epoch, price tables with their checks, privacy policies |
//! | [`record`], [`origin`], [`id`], [`time`] | records as read and to be appended; newtypes |
//! | [`failure`] | the words that error messages are reduced to |
//! | [`catalogue`] | the documents that are generated from the tables |
//!
//! **Architecture Invariant:** a leaf of the workspace and pure: no IO, no clock, no randomness. No float and
//! no wall time in state, deltas or rows: durations are integer µs, ratios a numerator and a denominator, so
//! that a sum does not depend on how it was batched.
#![deny(missing_docs)]
#![deny(clippy::wildcard_enum_match_arm)]

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
