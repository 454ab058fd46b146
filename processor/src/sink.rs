//! Sinks: formats in which others read committed results.

pub mod prometheus;
