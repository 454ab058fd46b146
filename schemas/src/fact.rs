//! Facts: what a record means, given the state of its conversation. Every metric is made of facts.

use crate::price::{Book, Unpriced};
use strum::VariantArray;

/// Which agent of a session acted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantArray)]
pub enum Agent {
    /// The agent that the user talks to, and every agent not known to be another.
    Root,
    /// An agent that another one spawned.
    Subagent,
}

impl Agent {
    /// The label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Subagent => "subagent",
        }
    }
}

/// The layer of Codex that made a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantArray)]
pub enum RetryLayer {
    /// The HTTP client: its requests have an `attempt` above 0.
    Http,
    /// The response stream: a new request after one that failed.
    Stream,
}

impl RetryLayer {
    /// The label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Stream => "stream",
        }
    }
}

/// How a compaction was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantArray)]
pub enum CompactionMethod {
    /// A request to `/responses/compact` succeeded.
    Endpoint,
    /// The input tokens fell by half or more, from near the limit of the context.
    Inferred,
}

impl CompactionMethod {
    /// The label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Inferred => "inferred",
        }
    }
}

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

/// What an amount of dollars stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantArray)]
pub enum BillingBasis {
    /// What tokens of the API cost at list price.
    ApiList,
    /// What tokens of a ChatGPT plan, which are paid in credits, would cost as tokens of the API.
    SubscriptionEquivalent,
}

impl BillingBasis {
    /// The label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ApiList => "api_list",
            Self::SubscriptionEquivalent => "subscription_equivalent",
        }
    }
}

/// What was decided about a tool call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantArray)]
pub enum Decision {
    /// The tool call is run, this once.
    Approved,
    /// The tool call is run, and similar ones for the rest of the session.
    ApprovedForSession,
    /// The tool call is run, and the policy is changed so that similar ones are run.
    ApprovedWithAmendment,
    /// The tool call is run, and the network policy allows its connection.
    ApprovedWithNetworkPolicyAllow,
    /// The tool call is not run.
    Denied,
    /// The tool call is not run, and the network policy denies its connection.
    DeniedWithNetworkPolicyDeny,
    /// Nobody decided in time, and the tool call is not run.
    TimedOut,
    /// The turn is stopped.
    Abort,
    /// The record has no decision, or one that this version does not know.
    Other,
}

impl Decision {
    /// The name in rows, and the label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::ApprovedForSession => "approved_for_session",
            Self::ApprovedWithAmendment => "approved_with_amendment",
            Self::ApprovedWithNetworkPolicyAllow => "approved_with_network_policy_allow",
            Self::Denied => "denied",
            Self::DeniedWithNetworkPolicyDeny => "denied_with_network_policy_deny",
            Self::TimedOut => "timed_out",
            Self::Abort => "abort",
            Self::Other => "other",
        }
    }

    /// Whether the tool call is run.
    #[must_use]
    pub const fn is_approval(self) -> bool {
        match self {
            Self::Approved
            | Self::ApprovedForSession
            | Self::ApprovedWithAmendment
            | Self::ApprovedWithNetworkPolicyAllow => true,
            Self::Denied | Self::DeniedWithNetworkPolicyDeny | Self::TimedOut | Self::Abort | Self::Other => {
                false
            }
        }
    }
}

/// Who or what decided about a tool call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantArray)]
pub enum DecisionSource {
    /// A person.
    Human,
    /// A rule of the configuration.
    Policy,
    /// An automated reviewer.
    AutoReviewer,
    /// The record has no source, or one that this version does not know.
    Unknown,
}

impl DecisionSource {
    /// The name in rows, and the label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Policy => "policy",
            Self::AutoReviewer => "auto_reviewer",
            Self::Unknown => "unknown",
        }
    }
}

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
    /// One HTTP attempt at the model API.
    Request {
        /// The endpoint: a known one, or `other`.
        endpoint: &'static str,
        /// The HTTP status; `None` if there was no answer.
        status: Option<u16>,
        /// The kind of error; `None` for a success.
        error: Option<&'static str>,
        /// The layer that retried; `None` for a first attempt.
        retry: Option<RetryLayer>,
        /// Time to the response's headers, µs.
        duration_us: Option<u64>,
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
        /// Input tokens before the compaction minus those after it; `None` if they are not known.
        reclaimed: Option<u64>,
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
            Self::SessionStarted => FactKind::SessionStarted,
            Self::SessionsActive { .. } => FactKind::SessionsActive,
        }
    }
}

/// What became of a log record: each ends in exactly one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, VariantArray)]
pub enum Outcome {
    /// The record was counted in its windows and totals.
    Applied,
    /// The record was seen before, and nothing follows from it.
    Duplicate,
    /// The record was counted in totals, but came too late for its smallest window or more, for which it is a
    /// correction.
    Late,
    /// The record is no event of the table: it was counted, and stays in the raw log.
    Unknown,
    /// The record was in a raw record that could not be read, or had another conversation's key: the raw
    /// record is in the quarantine topic.
    Quarantined,
    /// The record was counted, but has no time of its own, so that a duplicate of it could not be recognised.
    Unmarked,
}

impl Outcome {
    /// The label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Duplicate => "duplicate",
            Self::Late => "late",
            Self::Unknown => "unknown",
            Self::Quarantined => "quarantined",
            Self::Unmarked => "unmarked",
        }
    }
}

/// Which of a record's times became its event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantArray)]
pub enum TimeSource {
    /// The attribute `event.timestamp`.
    Attribute,
    /// `time_unix_nano`.
    Time,
    /// `observed_time_unix_nano`.
    Observed,
    /// The log's append time.
    Received,
}

impl TimeSource {
    /// The label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attribute => "attribute",
            Self::Time => "time",
            Self::Observed => "observed",
            Self::Received => "received",
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
