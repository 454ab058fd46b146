//! What a record means, once its conversation's state is taken into account: the input of every metric.

use crate::price::{Book, Unpriced};
use strum::VariantArray;

/// Which agent of a session acted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    /// The one that the user talks to, and everything not known to be another.
    Root,
    /// One that it spawned.
    Subagent,
}

/// Who made a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryLayer {
    /// The HTTP client: `attempt > 0`.
    Http,
    /// The response stream: a new request after one that failed.
    Stream,
}

/// How a compaction was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionMethod {
    /// A request to `/responses/compact`.
    Endpoint,
    /// Input tokens that fell by half or more, from near the limit.
    Inferred,
}

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
    /// The kinds, by their label values.
    #[must_use]
    pub const fn by_kind(&self) -> [(&'static str, u64); 5] {
        [
            ("input_uncached", self.input_uncached),
            ("input_cached", self.input_cached),
            ("input_cache_write", self.input_cache_write),
            ("output_visible", self.output_visible),
            ("output_reasoning", self.output_reasoning),
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

/// An amount of money for each kind of token.
pub type AmountByKind = Tokens;

/// What dollars stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BillingBasis {
    /// Tokens of the API, at list price.
    ApiList,
    /// What tokens of a ChatGPT plan, which are paid in credits, would have cost as tokens of the API.
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
    /// Run it, this once.
    Approved,
    /// Run it, and the like of it for the rest of the session.
    ApprovedForSession,
    /// Run it, and change the policy so that the like of it is run.
    ApprovedWithAmendment,
    /// Run it, and let it reach the network.
    ApprovedWithNetworkPolicyAllow,
    /// Do not run it.
    Denied,
    /// Do not run it, and keep it from the network.
    DeniedWithNetworkPolicyDeny,
    /// Nobody decided in time.
    TimedOut,
    /// Stop the turn.
    Abort,
    /// A word that this version does not know, or none.
    Other,
}

impl Decision {
    /// The label value, and the word in rows.
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
    /// A word that this version does not know, or none.
    Unknown,
}

impl DecisionSource {
    /// The label value, and the word in rows.
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

/// What a record means. Its label values are bounded already: open ones are in [`Dimensions`].
#[derive(Clone, Copy, Debug)]
pub enum Fact {
    /// A record ended in an outcome (every record, exactly once).
    Record {
        /// The event's name, bounded to the table.
        event: &'static str,
        /// What became of it.
        outcome: Outcome,
        /// Where its event time came from.
        time_source: TimeSource,
        /// Whether its event time was out of bounds and clamped.
        clamped: bool,
    },
    /// One attempt at the model API.
    Request {
        /// Bounded to the known endpoints.
        endpoint: &'static str,
        /// HTTP status, if there was an answer.
        status: Option<u16>,
        /// Classified, never the text; `None` for a success.
        error: Option<&'static str>,
        /// `Some` if it was a retry.
        retry: Option<RetryLayer>,
        /// Time to the response's headers, in µs.
        duration_us: Option<u64>,
    },
    /// A completed response.
    Response {
        /// Its tokens, disjoint.
        tokens: Tokens,
        /// Whether the counts contradict each other, and how.
        mismatch: Option<&'static str>,
    },
    /// The dollars of a completed response, at list price.
    Cost {
        /// What they stand for.
        basis: BillingBasis,
        /// The response's tier.
        tier: &'static str,
        /// In nano-dollars.
        nano_usd: AmountByKind,
        /// What the cached tokens would have cost more without the cache, in nano-dollars.
        cache_savings_nano_usd: u64,
    },
    /// The credits of a completed response on a ChatGPT plan.
    Credits {
        /// The response's tier.
        tier: &'static str,
        /// In millionths of a credit.
        micro_credits: u64,
    },
    /// Tokens of a completed response without a price in a book.
    Unpriced {
        /// The book.
        book: Book,
        /// Why.
        reason: Unpriced,
        /// How many.
        tokens: u64,
    },
    /// Codex' own price of a turn.
    TurnCost {
        /// In nano-dollars.
        nano_usd: u64,
        /// Whether the turn was interrupted.
        interrupted: bool,
    },
    /// A response stream that broke.
    StreamFailure {
        /// Classified, never the text.
        error: &'static str,
    },
    /// First token of a turn.
    FirstToken {
        /// From the turn's start, in µs.
        duration_us: u64,
    },
    /// A tool call that ended.
    ToolCall {
        /// Bounded to the built-in tools, `mcp` and `other`.
        tool: &'static str,
        /// Whether the tool itself worked; says nothing about a command's exit code.
        success: bool,
        /// Whether an MCP server ran it.
        mcp: bool,
        /// The command's exit code, if it ran one.
        exit_code: Option<i64>,
        /// In µs.
        duration_us: Option<u64>,
    },
    /// An approval decision.
    Decision {
        /// Bounded like a tool call's.
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
        /// How it was noticed.
        method: CompactionMethod,
        /// Input tokens before minus after, where both are known.
        reclaimed: Option<u64>,
    },
    /// A session segment began.
    SessionStarted,
    /// The number of open sessions changed: +1 on start and re-opening, -1 on end.
    SessionsActive {
        /// The change.
        change: i64,
    },
}

/// A [`Fact`] without what it tells: by it, a metric says which facts it is made of.
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
    /// Its kind.
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

/// What became of a record: each ends in exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Counted in its windows and totals.
    Applied,
    /// Seen before.
    Duplicate,
    /// Counted in totals; too late for at least the smallest window, where it is a correction.
    Late,
    /// Kept in the raw log, no event of the table.
    Unknown,
    /// In a raw record that could not be read, or under the wrong key: its bytes are in the quarantine topic.
    Quarantined,
    /// Applied, but without any time of its own, so that a duplicate could not be told.
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

/// Which of a record's times was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Who and what a fact is about: the values of the labels that every metric shares. Raw values, not yet capped.
#[derive(Clone, Copy, Debug)]
pub struct Dimensions<'a> {
    /// From the key of the raw record.
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
    /// Bounded: `cli`, `exec`, `app_server`, `desktop`, `vscode`, `other`.
    pub entrypoint: &'static str,
    /// Which agent acted.
    pub agent: Agent,
    /// Bounded reasoning effort.
    pub effort: &'static str,
    /// Bounded service tier.
    pub tier: &'static str,
}

/// The value of a dimension that the record does not carry.
pub const UNASSIGNED: &str = "unassigned";
