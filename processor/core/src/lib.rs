//! The core of the processor: takes records and returns effects. It has no IO, no clock, no randomness, no
//! logging and no hash order.
//!
//! ```text
//! raw partition ─► SessionTask ─ take() ─► rows, RawDeltas ─ LabelTable ─► Deltas ─ seal() ─► delta records
//! deltas partition ─► SeriesTask ─ take() ─► totals, final windows, corrections
//! ```
//!
//! Every stage of [`schemas::stage::Stage`] has a type here that is a [`Task`]; [`AnyTask`] is a task of any
//! stage.
//!
//! **Architecture Invariant:** state = fold(changelog). [`Task::restore`] rebuilds exactly the state that the
//! changes given out so far describe. Time enters only in a record.
#![deny(missing_docs)]
#![deny(clippy::wildcard_enum_match_arm)]

pub mod clock;
mod combiner;
mod indexed;
pub mod labels;
pub mod out;
mod outbox;
mod rules;
pub mod series;
pub mod sessions;
pub mod task;

pub use labels::{Deltas, LabelTable, RawDeltas};
pub use rules::Rules;
pub use series::SeriesTask;
pub use sessions::SessionTask;
pub use task::{AnyTask, Applied, Effects, Halt, Input, Pending, Quarantined, RestoreError, Sealed, Task};
