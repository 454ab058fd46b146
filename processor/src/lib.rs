//! The stateful consumer: the runner over the log (`processor-log`), and the committed view that people see.

pub mod admin;
pub mod derivation;
pub mod process;
pub mod runner;
pub mod sink;
pub mod status;
pub mod telemetry;
pub mod view;
pub mod workers;
