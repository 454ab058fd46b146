//! The row of `codex.sessions.v1`. Its fields are those of `avro/codex.sessions.v1.avsc`, in the same order.

use crate::derived::RowError;
use crate::derived::avro::AvroCodec;
use crate::state::{self, Counts, Identity};
use serde::{Deserialize, Serialize};

/// The Avro schema of `codex.sessions.v1`.
pub const SESSIONS_AVSC: &str = include_str!("../../avro/codex.sessions.v1.avsc");
/// The earlier schemas of `codex.sessions.v1`, oldest first; each lacks the last fields of the next one.
pub const SESSIONS_AVSC_PAST: &[&str] = &[
    include_str!("../../avro/past/codex.sessions.v1-1.avsc"),
    include_str!("../../avro/past/codex.sessions.v1-2.avsc"),
];

static CODEC: AvroCodec = AvroCodec::new(SESSIONS_AVSC, SESSIONS_AVSC_PAST);

/// The state of a segment in its life, as rows name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentState {
    /// The segment goes on: further records may come.
    #[default]
    Open,
    /// The segment was silent for the session gap.
    Ended,
    /// The segment had ended, and further records came.
    Reopened,
}

/// A segment of a Codex session: one conversation from its first record until it was silent for the session
/// gap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "Session")]
pub struct SessionRow {
    /// Tenant, from the key of the raw records.
    pub tenant: String,
    /// Id of the conversation on the wire.
    pub conversation_id: String,
    /// Event time of the segment's first record. With tenant, conversation and first_offset it identifies the segment.
    pub segment_start_ms: i64,
    /// open: records may come; ended: silent for the session gap; reopened: records came again after it had
    /// ended.
    pub state: SegmentState,
    /// Topic of the raw records that the row was folded from.
    pub source_topic: String,
    /// Partition of source_topic.
    pub source_partition: i32,
    /// Offset to read next: the row holds everything before it on its partition.
    pub position: i64,
    /// Grows with every row of a key; equal to position.
    pub revision: i64,
    /// Epoch of the settings that the last record was folded under.
    pub epoch: i64,
    /// Event time of the first record; equal to segment_start_ms.
    pub started_ms: i64,
    /// Latest event time of the segment's records.
    pub last_event_ms: i64,
    /// Event time of the last record of an ended segment; null while the segment is open.
    pub ended_ms: Option<i64>,
    /// last_event_ms minus started_ms.
    pub duration_ms: i64,
    /// Offset of the segment's first raw record.
    pub first_offset: i64,
    /// Offset of the segment's last raw record so far: its timeline is a scan from first_offset to here.
    pub last_offset: i64,
    /// Model last in use (attribute model).
    pub model: String,
    /// Client, as it names itself (attribute originator).
    pub originator: String,
    /// Kind of client: cli, exec, app_server, desktop, vscode, mcp or other.
    pub entrypoint: String,
    /// Resource attribute service.name.
    pub service_name: String,
    /// Version of Codex (attribute app.version).
    pub app_version: String,
    /// How the user signed in (attribute auth_mode); empty for a provider with a key of its own.
    pub auth_mode: String,
    /// Terminal (attribute terminal.type).
    pub terminal_type: String,
    /// E-mail of the signed-in user. Personal data.
    pub user_email: String,
    /// Account id of the signed-in user. Personal data.
    pub user_account_id: String,
    /// Name of the agent that last ended a tool call, /root for the one that the user talks to.
    pub agent_name: String,
    /// Approval policy at the last start of the conversation.
    pub approval_policy: String,
    /// Sandbox policy at the last start of the conversation.
    pub sandbox_policy: String,
    /// Reasoning effort last in use.
    pub effort: String,
    /// Service tier last in use.
    pub tier: String,
    /// Resource attribute team.id.
    pub team: String,
    /// Resource attribute project.
    pub project: String,
    /// Resource attribute cost_centre.
    pub cost_centre: String,
    /// Resource attribute department.
    pub department: String,
    /// Resource attribute env: the environment in Codex' configuration.
    pub env: String,
    /// Log records applied, of all events.
    pub records: i64,
    /// Starts and resumptions of the conversation.
    pub conversation_starts: i64,
    /// Turns' inputs: of people, and of reviewers and sub-agents that log their own.
    pub user_prompts: i64,
    /// Requests to the model API: HTTP attempts, and requests of turns over WebSocket.
    pub api_requests: i64,
    /// Requests that failed: HTTP attempts without a good status, and WebSocket requests whose answer is an error.
    pub api_errors: i64,
    /// Retries: api_retries_http plus api_retries_stream plus api_retries_websocket.
    pub api_retries: i64,
    /// Retries by the HTTP client.
    pub api_retries_http: i64,
    /// HTTP requests after a failed request, stream or upgrade of the same turn.
    pub api_retries_stream: i64,
    /// Sum of the HTTP attempts' times to the response's headers, in microseconds.
    pub api_duration_us: i64,
    /// Response streams that broke.
    pub stream_failures: i64,
    /// Responses that completed, with token counts.
    pub responses_completed: i64,
    /// Tokens of the completed responses.
    pub tokens: Tokens,
    /// Tool calls that ended.
    pub tool_calls: i64,
    /// Tool calls where the tool itself failed; a command's exit code is no failure of the tool.
    pub tool_failures: i64,
    /// Sum of the tool calls' durations, in microseconds.
    pub tool_duration_us: i64,
    /// Commands that ended with an exit code other than 0.
    pub nonzero_exits: i64,
    /// Compactions of the context, seen by their endpoint or inferred.
    pub compactions: i64,
    /// Sub-agents that were spawned.
    pub spawned_agents: i64,
    /// First tokens of turns.
    pub ttft_count: i64,
    /// Sum of the times from a turn's start to its first token, in microseconds.
    pub ttft_us: i64,
    /// Approval decisions, ordered by tool, decision and source.
    pub decisions: Vec<DecisionCount>,
    /// Tool calls by tool, ordered by tool.
    pub tools: Vec<ToolCount>,
    /// Tool calls that were approved and have not ended.
    pub open_calls: i64,
    /// Estimated cost at list price of the tokens that are paid in dollars, in nano-dollars.
    #[serde(default)]
    pub cost_nano_usd: i64,
    /// What the tokens of a ChatGPT plan would have cost at list price, in nano-dollars; never to be added to
    /// cost_nano_usd.
    #[serde(default)]
    pub equivalent_nano_usd: i64,
    /// Estimated credits of the tokens of a ChatGPT plan, in millionths of a credit.
    #[serde(default)]
    pub micro_credits: i64,
    /// Tokens without a price in the book that they are paid by: no amount of the row includes them.
    #[serde(default)]
    pub unpriced_tokens: i64,
    /// What Codex itself says that turns cost, in nano-dollars.
    #[serde(default)]
    pub native_cost_nano_usd: i64,
    /// Upgrades and requests over WebSocket after a failed request or upgrade of the same turn; an upgrade and its request are one.
    #[serde(default)]
    pub api_retries_websocket: i64,
    /// Requests of turns that were refused or whose answer broke, over either transport.
    #[serde(default)]
    pub requests_failed: i64,
    /// Sum of the times from sending a request to the end of its answer, of answers that completed and where both are known, in microseconds.
    #[serde(default)]
    pub answer_us: i64,
    /// What the segment did over WebSocket; null if it did nothing there.
    #[serde(default)]
    pub websocket: Option<Websocket>,
    /// The prewarms of the segment; null if there was none.
    #[serde(default)]
    pub prewarm: Option<Prewarm>,
}

/// What a segment did over WebSocket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Websocket {
    /// Requests of turns that were sent over WebSocket; they are in api_requests too.
    pub requests: i64,
    /// Those of them whose connection had a request before, that of a prewarm included.
    pub reused: i64,
    /// Upgrades that were tried.
    pub connects: i64,
    /// Upgrades that were refused.
    pub refused: i64,
    /// Upgrades that were refused, but for those of prewarms.
    pub refused_in_turns: i64,
    /// How often the conversation went back to HTTP.
    pub fallbacks: i64,
}

/// The prewarms of a segment: what each process asks the model API before its first turn. They are in no other count, token
/// or cost of the row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prewarm {
    /// Requests that were sent.
    pub requests: i64,
    /// Answers that completed, with token counts.
    pub completed: i64,
    /// Answers that failed.
    pub failed: i64,
    /// Input tokens that came from no cache and went into none.
    pub input_uncached: i64,
    /// Input tokens read from the cache.
    pub input_cached: i64,
    /// Input tokens written to the cache.
    pub input_cache_write: i64,
    /// Output tokens.
    pub output: i64,
    /// What the tokens would cost at list price, if they were billed, in nano-dollars.
    pub cost_nano_usd: i64,
}

/// Tokens of a segment in disjoint kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Input tokens that came from no cache and went into none.
    pub input_uncached: i64,
    /// Input tokens read from the cache.
    pub input_cached: i64,
    /// Input tokens written to the cache.
    pub input_cache_write: i64,
    /// Output tokens without reasoning.
    pub output_visible: i64,
    /// Reasoning tokens.
    pub output_reasoning: i64,
    /// Sum of the five kinds.
    pub total: i64,
}

/// How often one decision was made about one tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionCount {
    /// The tool: a built-in one, mcp or other.
    pub tool: String,
    /// What was decided.
    pub decision: String,
    /// Who or what decided: human, policy, auto_reviewer or unknown.
    pub source: String,
    /// How often the decision was made.
    pub count: i64,
}

/// How often one tool was called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCount {
    /// The tool: a built-in one, mcp or other.
    pub tool: String,
    /// Calls that ended.
    pub calls: i64,
    /// Calls where the tool itself failed.
    pub failures: i64,
}

impl SessionRow {
    /// The key of the row's record: tenant, conversation, and the segment's start with its first offset. A segment that begins
    /// at the event time of an earlier one has a key of its own.
    #[must_use]
    pub fn key(&self) -> String {
        format!(
            "{}/{}/{}-{}",
            self.tenant, self.conversation_id, self.segment_start_ms, self.first_offset
        )
    }

    /// The row in Avro's single-object encoding. Equal rows always have equal bytes.
    ///
    /// # Panics
    /// Never: a test writes rows of every shape.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        CODEC.encode(self)
    }

    /// Reads a row in Avro's single-object encoding.
    ///
    /// # Errors
    /// The bytes are not a row of this schema or of an earlier one.
    pub fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        CODEC.decode(bytes)
    }

    /// Sets the fields that say who and what the session is, but for `entrypoint`.
    pub fn set_identity(&mut self, identity: &Identity) {
        let from = identity.clone();
        self.model = from.model;
        self.originator = from.originator;
        self.service_name = from.service_name;
        self.app_version = from.app_version;
        self.auth_mode = from.auth_mode;
        self.terminal_type = from.terminal_type;
        self.user_email = from.user_email;
        self.user_account_id = from.user_account_id;
        self.agent_name = from.agent_name;
        self.approval_policy = from.approval_policy;
        self.sandbox_policy = from.sandbox_policy;
        self.effort = from.effort;
        self.tier = from.tier;
        self.team = from.team;
        self.project = from.project;
        self.cost_centre = from.cost_centre;
        self.department = from.department;
        self.env = from.env;
    }

    /// Sets the fields that say what happened in the session, with the sums that only rows have. Counts
    /// saturate at `i64::MAX`.
    pub fn set_counts(&mut self, counts: &Counts) {
        self.records = long(counts.records);
        self.conversation_starts = long(counts.conversation_starts);
        self.user_prompts = long(counts.user_prompts);
        self.api_requests = long(counts.api_requests);
        self.api_errors = long(counts.api_errors);
        let retries = [
            counts.api_retries_http,
            counts.api_retries_stream,
            counts.api_retries_websocket,
        ];
        self.api_retries = long(retries.into_iter().fold(0, u64::saturating_add));
        self.api_retries_http = long(counts.api_retries_http);
        self.api_retries_stream = long(counts.api_retries_stream);
        self.api_duration_us = long(counts.api_duration_us);
        self.stream_failures = long(counts.stream_failures);
        self.responses_completed = long(counts.responses_completed);
        let kinds = [
            counts.input_uncached,
            counts.input_cached,
            counts.input_cache_write,
            counts.output_visible,
            counts.output_reasoning,
        ];
        self.tokens = Tokens {
            input_uncached: long(counts.input_uncached),
            input_cached: long(counts.input_cached),
            input_cache_write: long(counts.input_cache_write),
            output_visible: long(counts.output_visible),
            output_reasoning: long(counts.output_reasoning),
            total: long(kinds.into_iter().fold(0, u64::saturating_add)),
        };
        self.tool_calls = long(counts.tool_calls);
        self.tool_failures = long(counts.tool_failures);
        self.tool_duration_us = long(counts.tool_duration_us);
        self.nonzero_exits = long(counts.nonzero_exits);
        self.compactions = long(counts.compactions);
        self.spawned_agents = long(counts.spawned_agents);
        self.ttft_count = long(counts.ttft_count);
        self.ttft_us = long(counts.ttft_us);
        self.cost_nano_usd = long(counts.cost_nano_usd);
        self.equivalent_nano_usd = long(counts.equivalent_nano_usd);
        self.micro_credits = long(counts.micro_credits);
        self.unpriced_tokens = long(counts.unpriced_tokens);
        self.native_cost_nano_usd = long(counts.native_cost_nano_usd);
        self.api_retries_websocket = long(counts.api_retries_websocket);
        self.requests_failed = long(counts.requests_failed);
        self.answer_us = long(counts.answer_us);
        self.websocket = counts.websocket.as_ref().map(Websocket::of);
        self.prewarm = counts.prewarm.as_ref().map(Prewarm::of);
        self.decisions = counts.decisions.iter().map(DecisionCount::of).collect();
        self.tools = counts.tools.iter().map(ToolCount::of).collect();
    }
}

impl Websocket {
    fn of(counts: &state::WebsocketCounts) -> Self {
        Self {
            requests: long(counts.requests),
            reused: long(counts.reused),
            connects: long(counts.connects),
            refused: long(counts.refused),
            refused_in_turns: long(counts.refused_in_turns),
            fallbacks: long(counts.fallbacks),
        }
    }
}

impl Prewarm {
    fn of(counts: &state::PrewarmCounts) -> Self {
        Self {
            requests: long(counts.requests),
            completed: long(counts.completed),
            failed: long(counts.failed),
            input_uncached: long(counts.input_uncached),
            input_cached: long(counts.input_cached),
            input_cache_write: long(counts.input_cache_write),
            output: long(counts.output),
            cost_nano_usd: long(counts.cost_nano_usd),
        }
    }
}

impl DecisionCount {
    fn of(count: &state::DecisionCount) -> Self {
        Self {
            tool: count.tool.clone(),
            decision: count.decision.clone(),
            source: count.source.clone(),
            count: long(count.count),
        }
    }
}

impl ToolCount {
    fn of(count: &state::ToolCount) -> Self {
        Self {
            tool: count.tool.clone(),
            calls: long(count.calls),
            failures: long(count.failures),
        }
    }
}

/// A count as Avro's `long`, its only 64-bit integer, which is signed.
fn long(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
