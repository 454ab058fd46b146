//! What the processes have in common: layered settings, the tables `[kafka]` and `[log]`, signals and exit codes.
//!
//! Settings come from four layers, each over the one before: defaults, a TOML file, environment variables, flags.
//! [`layers::load`] reads them; [`kafka::KafkaSection`] and [`log::LogSection`] are the tables that all processes have.
//!
//! ```text
//!   defaults ◄ file ◄ TACHO_… ◄ flags ── layers::load ──► settings of the process, and every fault of their form
//!                                        checks of content ─► every other fault, and what follows from the settings
//! ```
//!
//! **Architecture Invariant:** every fault of the settings is told at once, before the first socket is opened.
#![deny(missing_docs)]

pub mod flags;
pub mod kafka;
pub mod layers;
pub mod log;
pub mod process;
pub mod units;
