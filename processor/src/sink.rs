//! Where committed results become readable for others.

pub mod prometheus;
