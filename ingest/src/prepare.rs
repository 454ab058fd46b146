//! What becomes of a request before it is written: checked, cleaned by the privacy policy, split by conversation.

pub mod admit;
pub mod coding;
pub mod config;
pub mod conversation;
mod detect;
pub mod environment;
mod finish;
pub mod hash;
pub mod json;
mod lanes;
pub(crate) mod memory;
mod partial;
pub mod pipeline;
pub mod privacy;
pub mod route;
pub mod scrub;
pub(crate) mod wire;
