//! OTLP in, raw topics out: admit, keep secrets out, split by conversation, answer when durable.

pub mod sink;
