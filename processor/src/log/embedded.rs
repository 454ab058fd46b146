//! A durable log within one process.
