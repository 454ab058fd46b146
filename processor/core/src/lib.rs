//! The pure core: records in, effects out. No IO, no clock, no randomness, no hash order; `apply` cannot fail.
#![deny(missing_docs)]
