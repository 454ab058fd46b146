//! OTLP on the wire: the zero-copy scan of log requests that derivation uses, the full decode by prost that
//! is its oracle, dedup marks, and OTLP/JSON of all signals.

pub mod decode;
pub mod json;
pub mod mark;
pub mod scan;
mod wire;
