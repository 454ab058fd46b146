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
    /// What goes on between the conversation and the model API; absent before the first request.
    #[prost(message, optional, tag = "19")]
    pub transport: Option<TransportState>,
    /// The prewarms of the conversation; absent before the first one.
    #[prost(message, optional, tag = "20")]
    pub prewarm: Option<PrewarmState>,
    /// Hashes of the ids of tool calls whose results came without a decision before them, oldest first; their number is
    /// bounded.
    #[prost(fixed64, repeated, tag = "21")]
    pub ended_calls: Vec<u64>,
    /// Input tokens of the last response before a compaction that was requested at the endpoint; absent once a shorter one came
    /// after it.
    #[prost(uint64, optional, tag = "22")]
    pub compacted_from: Option<u64>,
}

/// What goes on between a conversation and the model API.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TransportState {
    /// The request that is not known to have ended.
    #[prost(message, optional, tag = "1")]
    pub open: Option<OpenRequest>,
    /// Whether the last upgrade was a retry, of which the next request is a part.
    #[prost(bool, tag = "2")]
    pub retrying: bool,
    /// Whether the last request could not be sent: the error record that follows is its own.
    #[prost(bool, tag = "3")]
    pub unsent: bool,
    /// Whether the conversation used WebSocket since it last started.
    #[prost(bool, tag = "4")]
    pub had_websocket: bool,
    /// Whether the conversation went back to HTTP since it last started.
    #[prost(bool, tag = "5")]
    pub fell_back: bool,
}

/// A request of a turn that is not known to have ended.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct OpenRequest {
    /// Whether the request went over WebSocket.
    #[prost(bool, tag = "1")]
    pub websocket: bool,
    /// When Codex sent the request, µs since the Unix epoch.
    #[prost(int64, tag = "2")]
    pub sent_us: i64,
    /// Partition clock at the request's record, ms.
    #[prost(int64, tag = "3")]
    pub clock_ms: i64,
    /// Whether the request repeats one that failed.
    #[prost(bool, tag = "4")]
    pub retry: bool,
}

/// The prewarms of a conversation: each process that starts or resumes it asks the model API once before its first turn.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PrewarmState {
    /// Partition clock when the window began, ms; absent once it ended.
    #[prost(int64, optional, tag = "1")]
    pub open_clock_ms: Option<i64>,
    /// Earliest event time of the last windows' phases, ms.
    #[prost(int64, tag = "2")]
    pub from_ms: i64,
    /// Latest event time of the last windows' phases, ms.
    #[prost(int64, tag = "3")]
    pub until_ms: i64,
    /// Prewarms that began and whose request was not seen.
    #[prost(uint32, tag = "4")]
    pub requests_due: u32,
    /// Prewarms that began and whose token counts were not seen.
    #[prost(uint32, tag = "5")]
    pub tokens_due: u32,
    /// Requests of prewarms that were sent and not answered.
    #[prost(uint32, tag = "6")]
    pub unanswered: u32,
    /// Whether the last window was ended by another start of the conversation.
    #[prost(bool, tag = "7")]
    pub ended_by_start: bool,
    /// Whether a prewarm was seen since the conversation last started.
    #[prost(bool, tag = "8")]
    pub seen: bool,
    /// Whether any phase of a prewarm was ever seen.
    #[prost(bool, tag = "9")]
    pub has_phases: bool,
    /// Responses that may be those of prewarms whose phases have not come, oldest first; their number is bounded.
    #[prost(message, repeated, tag = "10")]
    pub held: Vec<HeldResponse>,
    /// Whether the last window began without its first phase, which may yet come.
    #[prost(bool, tag = "11")]
    pub lacks_first: bool,
    /// Whether two prewarms share the window, of which none has ended.
    #[prost(bool, tag = "12")]
    pub is_shared: bool,
    /// Prewarms whose last phase was seen, and not yet the use of their result.
    #[prost(uint32, tag = "13")]
    pub resolves_due: u32,
}

/// A completed response of which it is not known whether it is a prewarm's.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct HeldResponse {
    /// Event time, ms.
    #[prost(int64, tag = "1")]
    pub time_ms: i64,
    /// When Codex made the record, µs since the Unix epoch.
    #[prost(int64, tag = "2")]
    pub made_us: i64,
    /// Partition clock at the record, ms.
    #[prost(int64, tag = "3")]
    pub clock_ms: i64,
    /// Input tokens that came from no cache and went into none.
    #[prost(uint64, tag = "4")]
    pub input_uncached: u64,
    /// Input tokens read from the cache.
    #[prost(uint64, tag = "5")]
    pub input_cached: u64,
    /// Input tokens written to the cache.
    #[prost(uint64, tag = "6")]
    pub input_cache_write: u64,
    /// How the token counts contradict each other, as the number of the contradiction and one; 0 if they do not.
    #[prost(uint32, tag = "7")]
    pub mismatch: u32,
    /// The model in use.
    #[prost(string, tag = "8")]
    pub model: String,
    /// Whether the response is paid by a ChatGPT plan.
    #[prost(bool, tag = "9")]
    pub plan: bool,
    /// The service tier, as it came off the wire.
    #[prost(string, tag = "10")]
    pub tier: String,
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
    #[prost(uint64, tag = "31")]
    pub api_retries_websocket: u64,
    #[prost(uint64, tag = "32")]
    pub requests_failed: u64,
    #[prost(uint64, tag = "33")]
    pub answer_us: u64,
    /// What the session did over WebSocket; absent if it did nothing there.
    #[prost(message, optional, tag = "34")]
    pub websocket: Option<WebsocketCounts>,
    /// The session's prewarms; absent if there was none.
    #[prost(message, optional, tag = "35")]
    pub prewarm: Option<PrewarmCounts>,
}

/// What a session did over WebSocket.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
#[expect(
    missing_docs,
    reason = "the names are the row's, documented in its Avro schema"
)]
pub struct WebsocketCounts {
    #[prost(uint64, tag = "1")]
    pub requests: u64,
    #[prost(uint64, tag = "2")]
    pub reused: u64,
    #[prost(uint64, tag = "3")]
    pub connects: u64,
    #[prost(uint64, tag = "4")]
    pub refused: u64,
    #[prost(uint64, tag = "5")]
    pub refused_in_turns: u64,
    #[prost(uint64, tag = "6")]
    pub fallbacks: u64,
}

/// The prewarms of a session, which are no use.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
#[expect(
    missing_docs,
    reason = "the names are the row's, documented in its Avro schema"
)]
pub struct PrewarmCounts {
    #[prost(uint64, tag = "1")]
    pub requests: u64,
    #[prost(uint64, tag = "2")]
    pub completed: u64,
    #[prost(uint64, tag = "3")]
    pub failed: u64,
    #[prost(uint64, tag = "4")]
    pub input_uncached: u64,
    #[prost(uint64, tag = "5")]
    pub input_cached: u64,
    #[prost(uint64, tag = "6")]
    pub input_cache_write: u64,
    #[prost(uint64, tag = "7")]
    pub output: u64,
    #[prost(uint64, tag = "8")]
    pub cost_nano_usd: u64,
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
