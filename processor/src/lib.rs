//! The processor: workers that fold the raw logs into the derived topics, and show what is committed.
//!
//! | module | what |
//! |---|---|
//! | [`runner`] | the loop of one worker: intake, pace, commit, restore, control, ticks, gauges |
//! | [`workers`], [`status`] | the threads of a process; alive, ready, and whether what they show may be shown |
//! | [`view`], [`sink`] | what was committed; the same for Prometheus, in two formats |
//! | [`derivation`] | the name and prefix of what this process derives, and whether it ticks the raw partitions |
//! | [`admin`] | the port with `/metrics`, probes, the page, and `/api/read` for `tacho read` |
//! | [`telemetry`] | the process's own metrics, which die with it |
//! | [`process`] | the program `tacho-processor` |
//!
//! **Architecture Invariant:** commit before effect. Records, state and positions become visible together;
//! the view and the process's own counters change after that.
//!
//! **Architecture Invariant:** one worker is one thread, which owns its log handle and its tasks. There are
//! no locks on the data path. A partition is restored before its first record is folded, and committed before
//! it is given away.

pub mod admin;
pub mod derivation;
pub mod process;
pub mod runner;
pub mod sink;
pub mod status;
pub mod telemetry;
pub mod view;
pub mod workers;
