//! The whole system, as its users meet it: a `tacho` process, its ports, and a real Kafka broker.
#![allow(clippy::unwrap_used, reason = "test code")]

#[path = "../support/mod.rs"]
mod support;

mod attacks;
mod bad_input;
mod crash;
mod derivations;
mod environments;
mod facts;
mod group;
mod inbox;
mod large;
mod law;
mod names;
mod outage;
mod policy;
mod prices;
mod privacy;
mod processes;
mod quarantine;
mod scale;
mod secure;
mod upgrade;
mod veiled;
mod windows;
