//! Prepares requests for being written: bounds them, cleans them by the privacy policy, splits them into raw records.
//!
//! ```text
//! pipeline ─► request: coding ─► json ─► admit ─► privacy ─► route ─► sink
//!    │                                              │
//!    └─ lanes bound the work                        └─ scrub, hash
//! ```
//!
//! The steps are pure functions of the request, the settings and the rule in force; `pipeline` alone waits for anything.

pub mod admit;
pub mod coding;
pub mod config;
pub mod conversation;
mod detect;
pub mod environment;
pub mod error;
mod finish;
pub mod hash;
pub mod json;
mod lanes;
pub(crate) mod memory;
mod partial;
pub mod pipeline;
pub mod privacy;
pub mod reason;
pub mod request;
pub mod route;
pub mod scrub;
pub(crate) mod telemetry;
pub(crate) mod wire;
