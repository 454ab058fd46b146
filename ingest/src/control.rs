//! The control topic as ingest reads it: the privacy policy and the pinned number of raw partitions.

pub(crate) mod follow;
pub mod policy;
pub(crate) mod remembered;
