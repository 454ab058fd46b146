//! The meta record of a changelog partition: the position and clock at which its state is complete.

use crate::stage::Stage;
use prost::Message;

/// The position, clock and epoch at which the state in a changelog partition is complete; written with every
/// commit, under [`super::StateKey::Meta`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Meta {
    /// Position of the input partition: the state holds everything before it.
    #[prost(int64, tag = "1")]
    pub position: i64,
    /// Epoch of the input partition; 0 for stages that have none.
    #[prost(int64, tag = "2")]
    pub epoch: i64,
    /// Semantics that computed the state.
    #[prost(uint32, tag = "3")]
    pub semantics: u32,
    /// `transactional.id` of the writer, which is fenced if its transaction hangs.
    #[prost(string, tag = "4")]
    pub writer: String,
    /// Partition clock of a raw partition, or running maximum of the append times of another input partition,
    /// ms; absent before the first record.
    #[prost(int64, optional, tag = "5")]
    pub clock: Option<i64>,
    /// For stages that emit deltas: `position` in the last delta record sent to each target partition.
    #[prost(int64, repeated, tag = "6")]
    pub sent: Vec<i64>,
    /// For stages that emit deltas: the mark (clock divided by `mark_ms`) at which a record last went to all
    /// targets.
    #[prost(int64, optional, tag = "7")]
    pub marked: Option<i64>,
    /// For stage `series`: the end of the last final window of each size, ms; `i64::MIN` before the first
    /// one.
    #[prost(int64, repeated, tag = "8")]
    pub final_until: Vec<i64>,
    /// For stage `series`: what is known of each source, by stage and partition.
    #[prost(message, repeated, tag = "9")]
    pub sources: Vec<SourceState>,
    /// For stage `series`: the end of the last window of each size that was told to be complete, ms; `i64::MIN` before the
    /// first one.
    #[prost(int64, repeated, tag = "10")]
    pub complete_until: Vec<i64>,
}

/// What stage `series` knows of one source: an input partition of a stage that emits deltas.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct SourceState {
    /// The source's partition of the stage's input.
    #[prost(int32, tag = "1")]
    pub source: i32,
    /// Position in the source's last whole record.
    #[prost(int64, tag = "2")]
    pub position: i64,
    /// Clock in the source's last whole record, ms.
    #[prost(int64, tag = "3")]
    pub clock: i64,
    /// The stage's number ([`crate::stage::StageDef::code`]). State of older versions carries none, which
    /// reads as stage `sessions`.
    #[prost(uint32, tag = "4")]
    pub stage: u32,
    /// How many parts of a record that is not whole yet are merged; 0 between records.
    #[prost(uint32, tag = "5")]
    pub parts: u32,
    /// Position in the parts of a record that is not whole yet; 0 between records.
    #[prost(int64, tag = "6")]
    pub parts_position: i64,
}

impl SourceState {
    /// The state of a source that has sent nothing yet.
    #[must_use]
    pub const fn unheard(stage: Stage, source: i32) -> Self {
        Self {
            source,
            position: 0,
            clock: i64::MIN,
            stage: stage.def().code,
            parts: 0,
            parts_position: 0,
        }
    }
}
