//! What `tacho` does beside running: one module a command.

pub mod control;
pub mod quarantine;
pub mod read;
mod render;
pub mod topics;
