//! The pure core: records in, effects out. No IO, no clock, no randomness, no logging, no hash order.
//!
//! ```text
//! raw partition ─► SessionTask ─ take() ─► rows, RawDeltas ─ LabelTable ─► Deltas ─ seal() ─► delta records
//! deltas partition ─► SeriesTask ─ take() ─► totals, final windows, corrections
//! ```
//!
//! Every stage of [`schemas::stage::Stage`] has a task type here that is a [`Task`]; [`AnyTask`] is any one of them.
//! State is `fold(changelog)`: [`Task::restore`] rebuilds exactly what the changes given out so far describe. Time
//! enters only in a record.
#![deny(missing_docs)]

pub mod clock;
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
