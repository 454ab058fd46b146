//! Facts: what a record means, given the state of its conversation. Every metric is made of facts.

mod words;

pub use words::{
    Agent, AnswerEnd, BillingBasis, CompactionMethod, ConnectPhase, Decision, DecisionSource, Outcome,
    PrewarmBasis, RetryLayer, TimeSource, Transport, WindowEnd,
};

use crate::price::{Book, Unpriced};
use strum::VariantArray;

/// The kinds of tokens, which are disjoint.
pub const TOKEN_KINDS: &[&str] = &[
    "input_uncached",
    "input_cached",
    "input_cache_write",
    "output_visible",
    "output_reasoning",
];

/// Tokens of one response in disjoint kinds: their sum is what was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the kinds")]
pub struct Tokens {
    pub input_uncached: u64,
    pub input_cached: u64,
    pub input_cache_write: u64,
    pub output_visible: u64,
    pub output_reasoning: u64,
}

impl Tokens {
    /// The tokens of each kind, with the kind's label value.
    #[must_use]
    pub const fn by_kind(&self) -> [(&'static str, u64); 5] {
        [
            (TOKEN_KINDS[0], self.input_uncached),
            (TOKEN_KINDS[1], self.input_cached),
            (TOKEN_KINDS[2], self.input_cache_write),
            (TOKEN_KINDS[3], self.output_visible),
            (TOKEN_KINDS[4], self.output_reasoning),
        ]
    }

    /// All input tokens.
    #[must_use]
    pub const fn input(&self) -> u64 {
        self.input_uncached + self.input_cached + self.input_cache_write
    }

    /// All output tokens.
    #[must_use]
    pub const fn output(&self) -> u64 {
        self.output_visible + self.output_reasoning
    }

    /// All tokens.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.input() + self.output()
    }
}

/// An amount of money for each kind of token, in nano-dollars or millionths of a credit.
pub type AmountByKind = Tokens;

/// What a record means. Texts in it are of bounded sets; label values that come off the wire are in
/// [`Dimensions`].
#[derive(Clone, Copy, Debug)]
pub enum Fact {
    /// A log record ended in an outcome: every one does, exactly once.
    Record {
        /// The event's name, of those in the event table.
        event: &'static str,
        /// What became of the log record.
        outcome: Outcome,
        /// Where the event time came from.
        time_source: TimeSource,
        /// Whether the event time was out of bounds and clamped.
        clamped: bool,
    },
    /// One request to the model API: an HTTP attempt, or a WebSocket request of a turn that has its end.
    Request {
        /// How the request was sent.
        transport: Transport,
        /// The endpoint: a known one, or `other`.
        endpoint: &'static str,
        /// The status; `None` if there was no answer, or one that tells none.
        status: Option<u16>,
        /// The kind of error; `None` for a success, and for a request that has neither answer nor error.
        error: Option<&'static str>,
        /// Whether the request repeats one that failed.
        retry: bool,
        /// Time to the response's headers, µs; `None` over WebSocket.
        duration_us: Option<u64>,
    },
    /// A request to the model API was tried again.
    Retry {
        /// The endpoint: a known one, or `other`.
        endpoint: &'static str,
        /// The layer that retried.
        layer: RetryLayer,
    },
    /// A request of a turn was answered, wholly or not.
    Answer {
        /// How the request was sent.
        transport: Transport,
        /// How the answer ended.
        end: AnswerEnd,
        /// From sending the request to the end of its answer, µs; `None` if one of the two is not known.
        duration_us: Option<u64>,
        /// From sending the request to the first token, µs; `None` if it is not reported.
        first_token_us: Option<u64>,
    },
    /// An upgrade to a WebSocket connection was accepted or refused.
    Connect {
        /// Whether the upgrade was accepted.
        accepted: bool,
        /// The HTTP status of the refusal; `None` if there was no answer, or a connection.
        status: Option<u16>,
        /// What the connection is for.
        phase: ConnectPhase,
        /// Time to the answer, µs.
        duration_us: Option<u64>,
    },
    /// A request of a turn was sent over a WebSocket connection.
    Sent {
        /// Whether the connection had a request before, that of a prewarm included.
        reused: bool,
    },
    /// A conversation that used WebSocket went back to HTTP.
    Fallback,
    /// The request of a prewarm was sent.
    PrewarmRequest,
    /// The request of a prewarm was answered.
    Prewarm {
        /// How the answer ended.
        end: AnswerEnd,
        /// By what the answer is known to be that of a prewarm.
        basis: PrewarmBasis,
        /// The answer's tokens, which are no use.
        tokens: Tokens,
    },
    /// What the tokens of a prewarm would cost, at list price.
    PrewarmCost {
        /// What the dollars stand for.
        basis: BillingBasis,
        /// The cost, nano-dollars.
        nano_usd: u64,
    },
    /// The window of a prewarm ended.
    PrewarmWindow {
        /// What ended it.
        end: WindowEnd,
    },
    /// A completed response.
    Response {
        /// The response's tokens.
        tokens: Tokens,
        /// How the token counts contradict each other; `None` if they do not.
        mismatch: Option<&'static str>,
    },
    /// The dollars of a completed response, at list price.
    Cost {
        /// What the dollars stand for.
        basis: BillingBasis,
        /// The response's tier.
        tier: &'static str,
        /// The cost of each kind of token, nano-dollars.
        nano_usd: AmountByKind,
        /// How much more the cached tokens would have cost without the cache, nano-dollars.
        cache_savings_nano_usd: u64,
    },
    /// The credits of a completed response on a ChatGPT plan.
    Credits {
        /// The response's tier.
        tier: &'static str,
        /// The cost, millionths of a credit.
        micro_credits: u64,
    },
    /// The tokens of a completed response have no price in a book.
    Unpriced {
        /// The book.
        book: Book,
        /// Why there is no price.
        reason: Unpriced,
        /// How many tokens the response has.
        tokens: u64,
    },
    /// What Codex itself says that a turn cost.
    TurnCost {
        /// The cost, nano-dollars.
        nano_usd: u64,
        /// Whether the turn was interrupted.
        interrupted: bool,
    },
    /// A response stream broke.
    StreamFailure {
        /// The kind of error.
        error: &'static str,
    },
    /// The first token of a turn came.
    FirstToken {
        /// Time from the turn's start, µs.
        duration_us: u64,
    },
    /// A tool call ended.
    ToolCall {
        /// The tool: a built-in one, `mcp` or `other`.
        tool: &'static str,
        /// Whether the tool itself worked, whatever exit code a command had.
        success: bool,
        /// Whether an MCP server ran it.
        mcp: bool,
        /// The exit code of the command; `None` if the tool ran none.
        exit_code: Option<i64>,
        /// How long the call took, µs.
        duration_us: Option<u64>,
    },
    /// An approval of a tool call was decided.
    Decision {
        /// The tool: a built-in one, `mcp` or `other`.
        tool: &'static str,
        /// What was decided.
        decision: Decision,
        /// Who or what decided.
        source: DecisionSource,
    },
    /// A turn began.
    Turn,
    /// The context was compacted.
    Compaction {
        /// How the compaction was noticed.
        method: CompactionMethod,
    },
    /// The first response after a compaction told how much it gave back.
    Reclaimed {
        /// Input tokens before the compaction minus those after it.
        tokens: u64,
    },
    /// A session segment began.
    SessionStarted,
    /// The number of open sessions changed.
    SessionsActive {
        /// By how much: 1 where a session starts or re-opens, -1 where it ends.
        change: i64,
    },
}

/// The kind of a [`Fact`]: a metric names the kind that it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantArray)]
#[expect(missing_docs, reason = "each is the variant of that name")]
pub enum FactKind {
    Record,
    Request,
    Retry,
    Answer,
    Connect,
    Sent,
    Fallback,
    PrewarmRequest,
    Prewarm,
    PrewarmCost,
    PrewarmWindow,
    Response,
    Cost,
    Credits,
    Unpriced,
    TurnCost,
    StreamFailure,
    FirstToken,
    ToolCall,
    Decision,
    Turn,
    Compaction,
    Reclaimed,
    SessionStarted,
    SessionsActive,
}

impl Fact {
    /// The fact's kind.
    #[must_use]
    pub const fn kind(&self) -> FactKind {
        match self {
            Self::Record { .. } => FactKind::Record,
            Self::Request { .. } => FactKind::Request,
            Self::Retry { .. } => FactKind::Retry,
            Self::Answer { .. } => FactKind::Answer,
            Self::Connect { .. } => FactKind::Connect,
            Self::Sent { .. } => FactKind::Sent,
            Self::Fallback => FactKind::Fallback,
            Self::PrewarmRequest => FactKind::PrewarmRequest,
            Self::Prewarm { .. } => FactKind::Prewarm,
            Self::PrewarmCost { .. } => FactKind::PrewarmCost,
            Self::PrewarmWindow { .. } => FactKind::PrewarmWindow,
            Self::Response { .. } => FactKind::Response,
            Self::Cost { .. } => FactKind::Cost,
            Self::Credits { .. } => FactKind::Credits,
            Self::Unpriced { .. } => FactKind::Unpriced,
            Self::TurnCost { .. } => FactKind::TurnCost,
            Self::StreamFailure { .. } => FactKind::StreamFailure,
            Self::FirstToken { .. } => FactKind::FirstToken,
            Self::ToolCall { .. } => FactKind::ToolCall,
            Self::Decision { .. } => FactKind::Decision,
            Self::Turn => FactKind::Turn,
            Self::Compaction { .. } => FactKind::Compaction,
            Self::Reclaimed { .. } => FactKind::Reclaimed,
            Self::SessionStarted => FactKind::SessionStarted,
            Self::SessionsActive { .. } => FactKind::SessionsActive,
        }
    }
}

/// Who and what a fact is about: label values as they came off the wire, not yet capped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dimensions<'a> {
    /// The tenant, from the key of the raw record.
    pub tenant: &'a str,
    /// Resource attribute `team.id`.
    pub team: &'a str,
    /// Resource attribute `project`.
    pub project: &'a str,
    /// Resource attribute `cost_centre`.
    pub cost_centre: &'a str,
    /// Resource attribute `department`.
    pub department: &'a str,
    /// Resource attribute `env`.
    pub env: &'a str,
    /// The model in use.
    pub model: &'a str,
    /// The kind of client: `cli`, `exec`, `app_server`, `desktop`, `vscode`, `mcp` or `other`.
    pub entrypoint: &'static str,
    /// Which agent acted.
    pub agent: Agent,
    /// The reasoning effort: a known one, `default` or `other`.
    pub effort: &'static str,
    /// The service tier: a known one, `default` or `other`.
    pub tier: &'static str,
}

impl<'a> Dimensions<'a> {
    /// The dimensions of a fact of which only the tenant is known.
    #[must_use]
    pub const fn unassigned(tenant: &'a str) -> Self {
        Self {
            tenant,
            team: UNASSIGNED,
            project: UNASSIGNED,
            cost_centre: UNASSIGNED,
            department: UNASSIGNED,
            env: UNASSIGNED,
            model: UNASSIGNED,
            entrypoint: "other",
            agent: Agent::Root,
            effort: "default",
            tier: "default",
        }
    }
}

/// The value of a dimension for which nothing was reported.
pub const UNASSIGNED: &str = "unassigned";
