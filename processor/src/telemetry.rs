//! The process's own metrics: they die with it, unlike the derived ones.
