//! What the processes have in common: layered settings, the tables `[kafka]` and `[log]`, signals and exit codes.
//!
//! Settings come from four layers, each over the one before: defaults, a TOML file, environment variables, flags.
//! [`layers::load`] reads them, [`kafka::KafkaSection`] and [`log::LogSection`] are the parts that all processes have.
//!
//! **Architecture Invariant:** every fault of the settings is told at once, before the first socket is opened.
#![deny(missing_docs)]

pub mod flags;
pub mod kafka;
pub mod layers;
pub mod log;
pub mod process;
pub mod units;
