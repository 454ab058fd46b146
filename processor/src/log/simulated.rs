//! A log in memory, for simulation.
