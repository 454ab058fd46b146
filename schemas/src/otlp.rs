//! OTLP log requests: the zero-copy scan that derivation uses, the full decode that is its oracle, and OTLP/JSON.

pub mod decode;
pub mod json;
pub mod mark;
pub mod scan;
mod wire;
