//! Tests of the whole system: processes, their ports, and real Kafka brokers.
#![allow(clippy::unwrap_used, reason = "test code")]

#[path = "../support/mod.rs"]
mod support;

mod attacks;
mod bad_input;
mod crash;
mod derivations;
mod environments;
mod epochs;
mod facts;
mod group;
mod inbox;
mod large;
mod law;
mod names;
mod outage;
mod policy;
mod prices;
mod prices_check;
mod privacy;
mod processes;
mod quarantine;
mod scale;
mod secrets;
mod secure;
mod topics;
mod upgrade;
mod veiled;
mod windows;
