//! Follows the control topic, which holds what all ingests go by: the privacy policy and the number of raw partitions.

pub(crate) mod follow;
pub mod policy;
pub(crate) mod remembered;

pub use follow::follow_policy;
