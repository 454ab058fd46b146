//! The words of facts: closed sets of values, each with its name in rows and labels.

use strum::VariantArray;

/// The agent of a session that acted.
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
    /// The response stream: a new HTTP request after a request, stream or upgrade that failed.
    Stream,
    /// The WebSocket: a new upgrade or request after a request or upgrade that failed.
    Websocket,
}

impl RetryLayer {
    /// The label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Stream => "stream",
            Self::Websocket => "websocket",
        }
    }
}

/// How a request goes to the model API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantArray)]
pub enum Transport {
    /// A POST, answered by a stream of server-sent events.
    Http,
    /// A message on a WebSocket connection.
    Websocket,
}

impl Transport {
    /// The label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Websocket => "websocket",
        }
    }
}

/// How an answer of the model API ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantArray)]
pub enum AnswerEnd {
    /// The answer is whole: its token counts came.
    Completed,
    /// The request was refused, or the answer broke.
    Failed,
}

impl AnswerEnd {
    /// The label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

/// What a WebSocket connection is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantArray)]
pub enum ConnectPhase {
    /// The prewarm of a session.
    Prewarm,
    /// A request of a turn.
    Turn,
}

impl ConnectPhase {
    /// The label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prewarm => "prewarm",
            Self::Turn => "turn",
        }
    }
}

/// By what a response is known to be that of a prewarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantArray)]
pub enum PrewarmBasis {
    /// It came in the window that the `startup_prewarm_*` phases of its conversation span.
    Window,
    /// It has no output and no time to first token, and its version of Codex logs no such phases.
    Sign,
}

impl PrewarmBasis {
    /// The label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::Sign => "sign",
        }
    }
}

/// What ended the window of a prewarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantArray)]
pub enum WindowEnd {
    /// The phase `startup_prewarm_total`.
    Total,
    /// The phase `startup_prewarm_resolve`.
    Resolve,
    /// The answer to a request of a turn.
    Answer,
    /// Another start of the conversation.
    Start,
    /// The partition clock, a minute after the window began.
    Timeout,
}

impl WindowEnd {
    /// The label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Resolve => "resolve",
            Self::Answer => "answer",
            Self::Start => "start",
            Self::Timeout => "timeout",
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

/// The time of a record that became its event time.
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
