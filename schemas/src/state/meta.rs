//! How far the state in a changelog partition has come.

use crate::stage::Stage;
use prost::Message;

/// How far the state in a changelog partition has come; written with every commit, under [`super::StateKey::Meta`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Meta {
    /// Position of the input partition that the state includes.
    #[prost(int64, tag = "1")]
    pub position: i64,
    /// Epoch of the partition.
    #[prost(int64, tag = "2")]
    pub epoch: i64,
    /// Semantics that computed the state.
    #[prost(uint32, tag = "3")]
    pub semantics: u32,
    /// `transactional.id` of the writer: who to fence when its transaction hangs.
    #[prost(string, tag = "4")]
    pub writer: String,
    /// Partition clock of a raw partition, or running maximum of the append times of another input, ms; absent before
    /// the first record.
    #[prost(int64, optional, tag = "5")]
    pub clock: Option<i64>,
    /// Stages that emit deltas: for each target partition, `position` in the last delta record sent there.
    #[prost(int64, repeated, tag = "6")]
    pub sent: Vec<i64>,
    /// Stages that emit deltas: the clock's mark of the last delta record sent to all targets.
    #[prost(int64, optional, tag = "7")]
    pub marked: Option<i64>,
    /// Stage `series`: for each window size, how far windows are final: the end of the last final window, ms.
    #[prost(int64, repeated, tag = "8")]
    pub final_until: Vec<i64>,
    /// Stage `series`: what is known of each source, by stage and partition.
    #[prost(message, repeated, tag = "9")]
    pub sources: Vec<SourceState>,
}

/// What stage `series` knows of one source: a partition of a stage that emits deltas.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct SourceState {
    /// The partition of the stage's input.
    #[prost(int32, tag = "1")]
    pub source: i32,
    /// Position in its last whole record.
    #[prost(int64, tag = "2")]
    pub position: i64,
    /// Clock in its last whole record, ms.
    #[prost(int64, tag = "3")]
    pub clock: i64,
    /// The stage's number ([`crate::stage::StageDef::code`]); absent in state from before there were numbers, which
    /// reads as stage `sessions`.
    #[prost(uint32, tag = "4")]
    pub stage: u32,
    /// How many parts are merged of a record that is not whole yet; 0 between records.
    #[prost(uint32, tag = "5")]
    pub parts: u32,
    /// Position in these parts; 0 between records.
    #[prost(int64, tag = "6")]
    pub parts_position: i64,
}

impl SourceState {
    /// A source that was not heard yet.
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
