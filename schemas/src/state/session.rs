//! State of stage `sessions`: sessions, dedup marks and marks of origins.

use prost::Message;

/// State of one session segment.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SessionState {
    /// Event time of the segment's first record, ms: its identity.
    #[prost(int64, tag = "1")]
    pub segment_start_ms: i64,
    /// Latest event time, ms.
    #[prost(int64, tag = "2")]
    pub last_event_ms: i64,
    /// Partition clock at the last record, ms: what the gap counts from.
    #[prost(int64, tag = "3")]
    pub last_clock_ms: i64,
    /// Offset of the first record.
    #[prost(int64, tag = "4")]
    pub first_offset: i64,
    /// Offset of the last record.
    #[prost(int64, tag = "5")]
    pub last_offset: i64,
    /// 0 open, 1 ended, 2 re-opened.
    #[prost(uint32, tag = "6")]
    pub phase: u32,
    /// Clock at which a row was last published, ms.
    #[prost(int64, optional, tag = "7")]
    pub row_clock_ms: Option<i64>,
    /// Who and what the session is.
    #[prost(message, optional, tag = "8")]
    pub identity: Option<Identity>,
    /// What happened in it.
    #[prost(message, optional, tag = "9")]
    pub counts: Option<Counts>,
    /// Whether a request or stream failed since the last prompt or token record.
    #[prost(bool, tag = "10")]
    pub failed: bool,
    /// Input tokens of the last completed response.
    #[prost(uint64, optional, tag = "11")]
    pub last_input_tokens: Option<u64>,
    /// `context_window` of the last `conversation_starts`.
    #[prost(uint64, optional, tag = "12")]
    pub context_window: Option<u64>,
    /// `auto_compact_token_limit` of the last `conversation_starts`.
    #[prost(uint64, optional, tag = "13")]
    pub compact_limit: Option<u64>,
    /// Event time of the last compaction seen by its endpoint, ms.
    #[prost(int64, optional, tag = "14")]
    pub compacted_ms: Option<i64>,
    /// Whether the row has not been published since the last change.
    #[prost(bool, tag = "15")]
    pub unpublished: bool,
    /// Epoch of the partition at the last change.
    #[prost(int64, tag = "16")]
    pub epoch: i64,
    /// Calls that were decided on but have not ended, at most a bounded number.
    #[prost(string, repeated, tag = "17")]
    pub open_calls: Vec<String>,
    /// Event time of the session's end, once it ended: the last event's.
    #[prost(int64, optional, tag = "18")]
    pub ended_ms: Option<i64>,
}

/// Who and what a session is; the latest value wins, an absent one changes nothing.
#[derive(Clone, PartialEq, Eq, Message)]
#[expect(missing_docs, reason = "the names are the attributes'")]
pub struct Identity {
    #[prost(string, tag = "1")]
    pub model: String,
    #[prost(string, tag = "2")]
    pub originator: String,
    #[prost(string, tag = "3")]
    pub service_name: String,
    #[prost(string, tag = "4")]
    pub app_version: String,
    #[prost(string, tag = "5")]
    pub auth_mode: String,
    #[prost(string, tag = "6")]
    pub terminal_type: String,
    #[prost(string, tag = "7")]
    pub user_email: String,
    #[prost(string, tag = "8")]
    pub user_account_id: String,
    #[prost(string, tag = "9")]
    pub team: String,
    #[prost(string, tag = "10")]
    pub project: String,
    #[prost(string, tag = "11")]
    pub cost_centre: String,
    #[prost(string, tag = "12")]
    pub department: String,
    #[prost(string, tag = "13")]
    pub env: String,
    #[prost(string, tag = "14")]
    pub agent_name: String,
    #[prost(string, tag = "15")]
    pub approval_policy: String,
    #[prost(string, tag = "16")]
    pub sandbox_policy: String,
    #[prost(string, tag = "17")]
    pub effort: String,
    #[prost(string, tag = "18")]
    pub tier: String,
}

/// What happened in a session segment.
#[derive(Clone, PartialEq, Eq, Message)]
#[expect(
    missing_docs,
    reason = "the names are the row's, documented in its Avro schema"
)]
pub struct Counts {
    #[prost(uint64, tag = "1")]
    pub records: u64,
    #[prost(uint64, tag = "2")]
    pub conversation_starts: u64,
    #[prost(uint64, tag = "3")]
    pub user_prompts: u64,
    #[prost(uint64, tag = "4")]
    pub api_requests: u64,
    #[prost(uint64, tag = "5")]
    pub api_errors: u64,
    #[prost(uint64, tag = "6")]
    pub api_retries_http: u64,
    #[prost(uint64, tag = "7")]
    pub api_retries_stream: u64,
    #[prost(uint64, tag = "8")]
    pub api_duration_us: u64,
    #[prost(uint64, tag = "9")]
    pub stream_failures: u64,
    #[prost(uint64, tag = "10")]
    pub responses_completed: u64,
    #[prost(uint64, tag = "11")]
    pub input_uncached: u64,
    #[prost(uint64, tag = "12")]
    pub input_cached: u64,
    #[prost(uint64, tag = "13")]
    pub input_cache_write: u64,
    #[prost(uint64, tag = "14")]
    pub output_visible: u64,
    #[prost(uint64, tag = "15")]
    pub output_reasoning: u64,
    #[prost(uint64, tag = "16")]
    pub tool_calls: u64,
    #[prost(uint64, tag = "17")]
    pub tool_failures: u64,
    #[prost(uint64, tag = "18")]
    pub tool_duration_us: u64,
    #[prost(uint64, tag = "19")]
    pub nonzero_exits: u64,
    #[prost(uint64, tag = "20")]
    pub compactions: u64,
    #[prost(uint64, tag = "21")]
    pub spawned_agents: u64,
    #[prost(uint64, tag = "22")]
    pub ttft_count: u64,
    #[prost(uint64, tag = "23")]
    pub ttft_us: u64,
    /// Ordered by tool, decision, source.
    #[prost(message, repeated, tag = "24")]
    pub decisions: Vec<DecisionCount>,
    /// Ordered by tool.
    #[prost(message, repeated, tag = "25")]
    pub tools: Vec<ToolCount>,
    #[prost(uint64, tag = "26")]
    pub cost_nano_usd: u64,
    #[prost(uint64, tag = "27")]
    pub equivalent_nano_usd: u64,
    #[prost(uint64, tag = "28")]
    pub micro_credits: u64,
    #[prost(uint64, tag = "29")]
    pub unpriced_tokens: u64,
    #[prost(uint64, tag = "30")]
    pub native_cost_nano_usd: u64,
}

/// How often one decision was made about one tool.
#[derive(Clone, PartialEq, Eq, Message)]
#[expect(missing_docs, reason = "the names are the labels'")]
pub struct DecisionCount {
    #[prost(string, tag = "1")]
    pub tool: String,
    #[prost(string, tag = "2")]
    pub decision: String,
    #[prost(string, tag = "3")]
    pub source: String,
    #[prost(uint64, tag = "4")]
    pub count: u64,
}

/// How often one tool was called.
#[derive(Clone, PartialEq, Eq, Message)]
#[expect(missing_docs, reason = "the names are the labels'")]
pub struct ToolCount {
    #[prost(string, tag = "1")]
    pub tool: String,
    #[prost(uint64, tag = "2")]
    pub calls: u64,
    #[prost(uint64, tag = "3")]
    pub failures: u64,
}

/// A chunk of dedup marks: 16 bytes each, in log order.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct MarkChunk {
    /// The marks, one after another.
    #[prost(bytes = "vec", tag = "1")]
    pub marks: Vec<u8>,
}

/// How far the records of one inbox partition have come on a raw partition.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct OriginMark {
    /// Offset in the inbox of the last record taken.
    #[prost(int64, tag = "1")]
    pub offset: i64,
    /// Which part of it.
    #[prost(uint32, tag = "2")]
    pub part: u32,
    /// Latest stamp of the inbox so far, ms.
    #[prost(int64, tag = "3")]
    pub stamped_ms: i64,
    /// Offset of the last record taken, on the raw partition.
    #[prost(int64, tag = "4")]
    pub last_offset: i64,
}
