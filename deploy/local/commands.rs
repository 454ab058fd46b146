//! The commands of an operator, one module each: flags, what follows from them, and the work itself.

pub mod control;
mod cursor;
pub mod derivations;
pub mod prices;
pub mod quarantine;
pub mod read;
mod render;
pub mod topics;

use settings::process::{Failure, chain};

/// The failure of a command whose command line is right.
fn failed(error: impl std::error::Error) -> Failure {
    Failure::Running(chain(&error))
}
