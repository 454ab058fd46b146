//! State of stage `sessions`: sessions, chunks of dedup marks, and the last record taken from each origin.

use prost::Message;

/// The state of one session segment.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SessionState {
    /// Event time of the segment's first record, ms. With tenant and conversation it identifies the segment.
    #[prost(int64, tag = "1")]
    pub segment_start_ms: i64,
    /// Latest event time of the segment's records, ms.
    #[prost(int64, tag = "2")]
    pub last_event_ms: i64,
    /// Partition clock at the segment's last record, ms: the session gap counts from here.
    #[prost(int64, tag = "3")]
    pub last_clock_ms: i64,
    /// Offset of the segment's first raw record.
    #[prost(int64, tag = "4")]
    pub first_offset: i64,
    /// Offset of the segment's last raw record.
    #[prost(int64, tag = "5")]
    pub last_offset: i64,
    /// Where the segment is in its life: 0 open, 1 ended, 2 re-opened.
    #[prost(uint32, tag = "6")]
    pub phase: u32,
    /// Partition clock when a row of the segment was last published, ms; absent before the first row and
    /// after a re-opening, where the next commit publishes one.
    #[prost(int64, optional, tag = "7")]
    pub row_clock_ms: Option<i64>,
    /// Who and what the session is.
    #[prost(message, optional, tag = "8")]
    pub identity: Option<Identity>,
    /// What happened in the segment.
    #[prost(message, optional, tag = "9")]
    pub counts: Option<Counts>,
    /// Whether a request or a stream failed since the last prompt or completed response.
    #[prost(bool, tag = "10")]
    pub failed: bool,
    /// Input tokens of the last completed response.
    #[prost(uint64, optional, tag = "11")]
    pub last_input_tokens: Option<u64>,
    /// Attribute `context_window` of the last `codex.conversation_starts`, in tokens.
    #[prost(uint64, optional, tag = "12")]
    pub context_window: Option<u64>,
    /// Attribute `auto_compact_token_limit` of the last `codex.conversation_starts`, in tokens.
    #[prost(uint64, optional, tag = "13")]
    pub compact_limit: Option<u64>,
    /// Event time of the last successful request to the endpoint that compacts, ms; absent once a later
    /// response was compared with it.
    #[prost(int64, optional, tag = "14")]
    pub compacted_ms: Option<i64>,
    /// Whether the segment changed since its last row.
    #[prost(bool, tag = "15")]
    pub unpublished: bool,
    /// Epoch of the partition at the segment's last record.
    #[prost(int64, tag = "16")]
    pub epoch: i64,
    /// Ids of tool calls that were approved and have not ended; their number is bounded.
    #[prost(string, repeated, tag = "17")]
    pub open_calls: Vec<String>,
    /// Event time of an ended segment's last record, ms; absent while the segment is open.
    #[prost(int64, optional, tag = "18")]
    pub ended_ms: Option<i64>,
}

/// Who and what a session is: the latest value of each attribute that is not empty.
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
    /// Approval decisions, ordered by tool, decision and source.
    #[prost(message, repeated, tag = "24")]
    pub decisions: Vec<DecisionCount>,
    /// Tool calls, ordered by tool.
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

/// A chunk of dedup marks, each of 16 bytes.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct MarkChunk {
    /// The marks one after another, in log order.
    #[prost(bytes = "vec", tag = "1")]
    pub marks: Vec<u8>,
}

/// The last record that a raw partition took from one inbox partition or spool.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct OriginMark {
    /// Offset of that record in the inbox, or its number in the spool.
    #[prost(int64, tag = "1")]
    pub offset: i64,
    /// The part of the inbox record that was taken last.
    #[prost(uint32, tag = "2")]
    pub part: u32,
    /// The latest stamp of any record taken from the source, ms.
    #[prost(int64, tag = "3")]
    pub stamped_ms: i64,
    /// Offset of the raw record that was taken last.
    #[prost(int64, tag = "4")]
    pub last_offset: i64,
}
