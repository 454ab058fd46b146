//! The metric table: every derived metric, one arm each. `/metrics`, `deploy/METRICS.md`, the window rows and the tests
//! follow from it.
//!
//! To add a metric: one variant and its arm in [`Metric::def`]. Nothing else has to be touched.

use crate::fact::{Agent, CompactionMethod, Dimensions, Fact, RetryLayer};
use crate::histogram::Histogram;
use strum::{EnumCount, VariantArray};

/// A derived metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray, EnumCount)]
#[expect(missing_docs, reason = "each is explained by its help text, below")]
pub enum Metric {
    LogRecords,
    EventTimeSource,
    EventTimeClamped,
    ApiRequests,
    ApiErrors,
    ApiRetries,
    ApiRateLimited,
    ApiRetryRatio,
    ApiRequestDuration,
    ApiRequestDurationWindow,
    StreamFailures,
    Ttft,
    TtftWindow,
    Tokens,
    ResponseTokens,
    TokenChecksumMismatch,
    CacheHitRatio,
    ToolCalls,
    ToolDuration,
    ToolNonzeroExit,
    ApprovalDecisions,
    HumanApprovalRatio,
    PolicyAutoRatio,
    Compactions,
    CompactionReclaimedTokens,
    SessionsStarted,
    SessionsActive,
    Turns,
}

/// How a metric adds up and how it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A total that never goes down; window rows hold the window's part.
    Counter,
    /// A total that goes both ways.
    UpDown,
    /// A distribution; the total has classic buckets `2^first ..= 2^last` of the unit.
    Histogram {
        /// Exponent of the lowest bound.
        first: i32,
        /// Exponent of the highest bound.
        last: i32,
    },
    /// Numerator and denominator, shown as the ratio of the last final window.
    WindowRatio,
    /// A distribution, shown as quantiles of the last final window.
    WindowQuantiles,
}

/// The unit of the values shown; state holds sub-units as integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    One,
    /// Tokens.
    Tokens,
    /// Seconds; state holds microseconds.
    Seconds,
    /// A share between 0 and 1.
    Ratio,
}

impl Unit {
    /// How many sub-units of state make one unit.
    #[must_use]
    pub const fn per(self) -> u64 {
        match self {
            Self::Seconds => 1_000_000,
            Self::One | Self::Tokens | Self::Ratio => 1,
        }
    }

    /// The word in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::One => "1",
            Self::Tokens => "token",
            Self::Seconds => "s",
            Self::Ratio => "ratio",
        }
    }
}

/// A label of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray)]
#[expect(missing_docs, reason = "each is explained in its definition, below")]
pub enum Label {
    Tenant,
    Team,
    Project,
    CostCentre,
    Department,
    Env,
    Model,
    Entrypoint,
    Agent,
    Effort,
    Tier,
    Endpoint,
    StatusClass,
    StatusCode,
    AttemptClass,
    Layer,
    ErrorType,
    Direction,
    TokenKind,
    Tool,
    Outcome,
    Origin,
    Decision,
    Source,
    Method,
    Event,
}

/// What is known of a label.
#[derive(Clone, Copy, Debug)]
pub struct LabelDef {
    /// Its name.
    pub name: &'static str,
    /// How many values it can have; for an open label, per tenant, before `other`.
    pub cap: usize,
    /// Whether its values come off the wire, so that `tacho.labels` admits them first come, first served.
    pub open: bool,
    /// The resource attribute that it shows, if it is a dimension that the seed can switch off.
    pub dimension: Option<&'static str>,
}

const fn closed(name: &'static str, cap: usize) -> LabelDef {
    LabelDef { name, cap, open: false, dimension: None }
}

const fn dimension(name: &'static str, cap: usize, attribute: &'static str) -> LabelDef {
    LabelDef { name, cap, open: true, dimension: Some(attribute) }
}

impl Label {
    /// Everything there is to know about a label. Caps of open labels are defaults: the seed can set others.
    #[must_use]
    pub const fn def(self) -> LabelDef {
        match self {
            Self::Tenant => closed("tenant", 200),
            Self::Team => dimension("team", 500, "team.id"),
            Self::Project => dimension("project", 200, "project"),
            Self::CostCentre => dimension("cost_centre", 200, "cost_centre"),
            Self::Department => dimension("department", 50, "department"),
            Self::Env => dimension("env", 10, "env"),
            Self::Model => LabelDef { name: "model", cap: 50, open: true, dimension: None },
            Self::Entrypoint => closed("entrypoint", 8),
            Self::Agent => closed("agent", 2),
            Self::Effort => closed("effort", 8),
            Self::Tier => closed("tier", 5),
            Self::Endpoint => closed("endpoint", 12),
            Self::StatusClass => closed("status_class", 6),
            Self::StatusCode => closed("status_code", 16),
            Self::AttemptClass => closed("attempt_class", 2),
            Self::Layer => closed("layer", 2),
            Self::ErrorType => closed("error_type", 20),
            Self::Direction => closed("direction", 2),
            Self::TokenKind => closed("kind", 5),
            Self::Tool => closed("tool", 40),
            Self::Outcome => closed("outcome", 8),
            Self::Origin => closed("origin", 2),
            Self::Decision => closed("decision", 9),
            Self::Source => closed("source", 4),
            Self::Method => closed("method", 2),
            Self::Event => closed("event", 24),
        }
    }
}

/// What one fact adds to one series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Amount {
    /// To a counter or an up-down counter.
    Count(i64),
    /// To a ratio.
    Ratio {
        /// Of those…
        numerator: u64,
        /// …among these.
        denominator: u64,
    },
    /// To a distribution, in sub-units.
    Values(Histogram),
}

impl Amount {
    /// Adds `other`; amounts of one metric always have one form, and another form is ignored.
    pub fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Count(a), Self::Count(b)) => *a += b,
            (Self::Ratio { numerator, denominator }, Self::Ratio { numerator: n, denominator: d }) => {
                *numerator += n;
                *denominator += d;
            }
            (Self::Values(a), Self::Values(b)) => a.merge(b),
            _ => debug_assert!(false, "amounts of two forms under one series"),
        }
    }
}

/// What a fact contributes: one of these per series that it touches.
#[derive(Clone, Copy, Debug)]
pub enum Sample {
    /// Adds to a counter.
    Add(i64),
    /// Adds to a ratio: in the numerator too, or in the denominator only.
    Share(bool),
    /// Adds many to a ratio.
    Shares(u64, u64),
    /// Adds a value, in sub-units, to a distribution.
    Value(u64),
}

/// Takes the samples of a fact: the sample, and the value of a label that differs between samples of one fact.
pub type Emit<'e> = dyn FnMut(Sample, Option<&'static str>) + 'e;

/// Everything there is to know about a metric.
#[derive(Clone, Copy)]
pub struct MetricDef {
    /// Its name on `/metrics` and in window rows.
    pub name: &'static str,
    /// One sentence for `# HELP`.
    pub help: &'static str,
    /// How it adds up.
    pub kind: Kind,
    /// The unit shown.
    pub unit: Unit,
    /// Its labels, in the order in which series keys hold them.
    pub labels: &'static [Label],
    /// The event it comes from, for documents.
    pub from: &'static str,
    /// What a fact adds; nothing, for facts that are not its own.
    pub observe: fn(&Fact, &mut Emit<'_>),
}

const STANDARD: &[Label] =
    &[Label::Tenant, Label::Team, Label::Model, Label::Env, Label::Entrypoint, Label::Project, Label::CostCentre, Label::Department];
const STANDARD_AGENT: &[Label] = &[
    Label::Tenant,
    Label::Team,
    Label::Model,
    Label::Env,
    Label::Entrypoint,
    Label::Project,
    Label::CostCentre,
    Label::Department,
    Label::Agent,
];
const TOKENS: &[Label] = &[
    Label::Tenant,
    Label::Team,
    Label::Model,
    Label::Env,
    Label::Entrypoint,
    Label::Project,
    Label::CostCentre,
    Label::Department,
    Label::Agent,
    Label::TokenKind,
];
/// 2^-6 s (16 ms) to 2^10 s (17 min).
const SECONDS: Kind = Kind::Histogram { first: -6, last: 10 };
/// 1 to 2^22 (4 M) tokens.
const TOKEN_COUNTS: Kind = Kind::Histogram { first: 0, last: 22 };

impl Metric {
    /// Everything there is to know about a metric. Rendering, documents and tests read this and nothing else.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a table: one arm a metric")]
    pub const fn def(self) -> MetricDef {
        match self {
            Self::LogRecords => MetricDef {
                name: "tacho_log_records_total",
                help: "Log records by event and by what became of them; each ends in exactly one outcome.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[Label::Tenant, Label::Event, Label::Outcome],
                from: "every record",
                observe: |fact, emit| {
                    if let Fact::Record { .. } = fact {
                        emit(Sample::Add(1), None);
                    }
                },
            },
            Self::EventTimeSource => MetricDef {
                name: "tacho_event_time_source_total",
                help: "Log records by the field that gave their event time.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[Label::Tenant, Label::Source],
                from: "every record",
                observe: |fact, emit| {
                    if let Fact::Record { .. } = fact {
                        emit(Sample::Add(1), None);
                    }
                },
            },
            Self::EventTimeClamped => MetricDef {
                name: "tacho_event_time_clamped_total",
                help: "Log records whose event time was too far from the log's clock, and was moved to the bound.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[Label::Tenant],
                from: "every record",
                observe: |fact, emit| {
                    if let Fact::Record { clamped: true, .. } = fact {
                        emit(Sample::Add(1), None);
                    }
                },
            },
            Self::ApiRequests => MetricDef {
                name: "tacho_api_requests_total",
                help: "HTTP attempts at the model API.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[Label::Tenant, Label::Team, Label::Model, Label::Endpoint, Label::StatusClass, Label::AttemptClass],
                from: "codex.api_request",
                observe: |fact, emit| {
                    if let Fact::Request { .. } = fact {
                        emit(Sample::Add(1), None);
                    }
                },
            },
            Self::ApiErrors => MetricDef {
                name: "tacho_api_errors_total",
                help: "HTTP attempts at the model API that failed, by status and kind of error.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[Label::Tenant, Label::Model, Label::StatusCode, Label::ErrorType],
                from: "codex.api_request",
                observe: |fact, emit| {
                    if let Fact::Request { error: Some(_), .. } = fact {
                        emit(Sample::Add(1), None);
                    }
                },
            },
            Self::ApiRetries => MetricDef {
                name: "tacho_api_retries_total",
                help: "Retries of model API requests, by the layer that retried.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[Label::Tenant, Label::Team, Label::Model, Label::Endpoint, Label::Layer],
                from: "codex.api_request",
                observe: |fact, emit| {
                    if let Fact::Request { retry: Some(_), .. } = fact {
                        emit(Sample::Add(1), None);
                    }
                },
            },
            Self::ApiRateLimited => MetricDef {
                name: "tacho_api_rate_limited_total",
                help: "HTTP attempts at the model API that were answered 429.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[Label::Tenant, Label::Team, Label::Model],
                from: "codex.api_request",
                observe: |fact, emit| {
                    if let Fact::Request { status: Some(429), .. } = fact {
                        emit(Sample::Add(1), None);
                    }
                },
            },
            Self::ApiRetryRatio => MetricDef {
                name: "tacho_api_retry_window_ratio",
                help: "Retries among the requests of the last final window.",
                kind: Kind::WindowRatio,
                unit: Unit::Ratio,
                labels: &[Label::Tenant, Label::Model, Label::Endpoint],
                from: "codex.api_request",
                observe: |fact, emit| {
                    if let Fact::Request { retry, .. } = fact {
                        emit(Sample::Share(retry.is_some()), None);
                    }
                },
            },
            Self::ApiRequestDuration => MetricDef {
                name: "tacho_api_request_duration_seconds",
                help: "Time from sending a model API request to its response headers.",
                kind: SECONDS,
                unit: Unit::Seconds,
                labels: &[Label::Tenant, Label::Model, Label::Endpoint, Label::StatusClass],
                from: "codex.api_request",
                observe: request_duration,
            },
            Self::ApiRequestDurationWindow => MetricDef {
                name: "tacho_api_request_duration_window_seconds",
                help: "Quantiles of the time to response headers in the last final window, within 1.1 %.",
                kind: Kind::WindowQuantiles,
                unit: Unit::Seconds,
                labels: &[Label::Tenant, Label::Model],
                from: "codex.api_request",
                observe: request_duration,
            },
            Self::StreamFailures => MetricDef {
                name: "tacho_stream_failures_total",
                help: "Response streams that broke, timed out or ended in a failure.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[Label::Tenant, Label::Model, Label::ErrorType],
                from: "codex.sse_event",
                observe: |fact, emit| {
                    if let Fact::StreamFailure { .. } = fact {
                        emit(Sample::Add(1), None);
                    }
                },
            },
            Self::Ttft => MetricDef {
                name: "tacho_ttft_seconds",
                help: "Time from a turn's start to its first token, retries included.",
                kind: SECONDS,
                unit: Unit::Seconds,
                labels: &[Label::Tenant, Label::Model, Label::Effort, Label::Tier],
                from: "codex.turn_ttft",
                observe: first_token,
            },
            Self::TtftWindow => MetricDef {
                name: "tacho_ttft_window_seconds",
                help: "Quantiles of the time to first token in the last final window, within 1.1 %.",
                kind: Kind::WindowQuantiles,
                unit: Unit::Seconds,
                labels: &[Label::Tenant, Label::Model],
                from: "codex.turn_ttft",
                observe: first_token,
            },
            Self::Tokens => MetricDef {
                name: "tacho_tokens_total",
                help: "Tokens used, in disjoint kinds: the sum over kinds is the total.",
                kind: Kind::Counter,
                unit: Unit::Tokens,
                labels: TOKENS,
                from: "codex.sse_event with token counts",
                observe: |fact, emit| {
                    if let Fact::Response { tokens, .. } = fact {
                        for (kind, count) in tokens.by_kind() {
                            emit(Sample::Add(i64::try_from(count).unwrap_or(i64::MAX)), Some(kind));
                        }
                    }
                },
            },
            Self::ResponseTokens => MetricDef {
                name: "tacho_response_tokens",
                help: "Tokens of a completed response, by direction; the count is the number of responses.",
                kind: TOKEN_COUNTS,
                unit: Unit::Tokens,
                labels: &[Label::Tenant, Label::Model, Label::Direction],
                from: "codex.sse_event with token counts",
                observe: |fact, emit| {
                    if let Fact::Response { tokens, .. } = fact {
                        emit(Sample::Value(tokens.input()), Some("input"));
                        emit(Sample::Value(tokens.output()), Some("output"));
                    }
                },
            },
            Self::TokenChecksumMismatch => MetricDef {
                name: "tacho_token_checksum_mismatch_total",
                help: "Responses whose token counts contradict each other (the counts are clamped).",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[Label::Tenant, Label::ErrorType],
                from: "codex.sse_event with token counts",
                observe: |fact, emit| {
                    if let Fact::Response { mismatch: Some(_), .. } = fact {
                        emit(Sample::Add(1), None);
                    }
                },
            },
            Self::CacheHitRatio => MetricDef {
                name: "tacho_cache_hit_window_ratio",
                help: "Cached among all input tokens of the last final window.",
                kind: Kind::WindowRatio,
                unit: Unit::Ratio,
                labels: &[Label::Tenant, Label::Team, Label::Model],
                from: "codex.sse_event with token counts",
                observe: |fact, emit| {
                    if let Fact::Response { tokens, .. } = fact {
                        emit(Sample::Shares(tokens.input_cached, tokens.input()), None);
                    }
                },
            },
            Self::ToolCalls => MetricDef {
                name: "tacho_tool_calls_total",
                help: "Tool calls that ended. Failure means that the tool failed, not that a command exited with an error.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[Label::Tenant, Label::Team, Label::Tool, Label::Outcome, Label::Origin, Label::Agent],
                from: "codex.tool_result",
                observe: |fact, emit| {
                    if let Fact::ToolCall { .. } = fact {
                        emit(Sample::Add(1), None);
                    }
                },
            },
            Self::ToolDuration => MetricDef {
                name: "tacho_tool_duration_seconds",
                help: "How long tool calls took.",
                kind: SECONDS,
                unit: Unit::Seconds,
                labels: &[Label::Tenant, Label::Tool, Label::Outcome],
                from: "codex.tool_result",
                observe: |fact, emit| {
                    if let Fact::ToolCall { duration_us: Some(value), .. } = fact {
                        emit(Sample::Value(*value), None);
                    }
                },
            },
            Self::ToolNonzeroExit => MetricDef {
                name: "tacho_tool_nonzero_exit_total",
                help: "Commands that ended with an exit code other than 0, whatever the tool call's outcome.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[Label::Tenant, Label::Tool],
                from: "codex.tool_result",
                observe: |fact, emit| {
                    if let Fact::ToolCall { exit_code: Some(code), .. } = fact
                        && *code != 0
                    {
                        emit(Sample::Add(1), None);
                    }
                },
            },
            Self::ApprovalDecisions => MetricDef {
                name: "tacho_approval_decisions_total",
                help: "Approval decisions by tool, decision and who or what decided.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[Label::Tenant, Label::Team, Label::Tool, Label::Decision, Label::Source],
                from: "codex.tool_decision",
                observe: |fact, emit| {
                    if let Fact::Decision { .. } = fact {
                        emit(Sample::Add(1), None);
                    }
                },
            },
            Self::HumanApprovalRatio => MetricDef {
                name: "tacho_human_approval_window_ratio",
                help: "Approved among the decisions that a person made in the last final window.",
                kind: Kind::WindowRatio,
                unit: Unit::Ratio,
                labels: &[Label::Tenant, Label::Team, Label::Tool],
                from: "codex.tool_decision",
                observe: |fact, emit| {
                    if let Fact::Decision { decision, source: "human", .. } = fact {
                        emit(Sample::Share(decision.starts_with("approved")), None);
                    }
                },
            },
            Self::PolicyAutoRatio => MetricDef {
                name: "tacho_policy_auto_window_ratio",
                help: "Decisions made by policy among all decisions of the last final window.",
                kind: Kind::WindowRatio,
                unit: Unit::Ratio,
                labels: &[Label::Tenant, Label::Team],
                from: "codex.tool_decision",
                observe: |fact, emit| {
                    if let Fact::Decision { source, .. } = fact {
                        emit(Sample::Share(matches!(*source, "policy")), None);
                    }
                },
            },
            Self::Compactions => MetricDef {
                name: "tacho_compactions_total",
                help: "Compactions of a session's context, by how they were noticed.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[Label::Tenant, Label::Team, Label::Model, Label::Method],
                from: "codex.api_request, codex.sse_event",
                observe: |fact, emit| {
                    if let Fact::Compaction { .. } = fact {
                        emit(Sample::Add(1), None);
                    }
                },
            },
            Self::CompactionReclaimedTokens => MetricDef {
                name: "tacho_compaction_reclaimed_tokens",
                help: "Input tokens before a compaction minus those after it.",
                kind: TOKEN_COUNTS,
                unit: Unit::Tokens,
                labels: &[Label::Tenant, Label::Model],
                from: "codex.sse_event with token counts",
                observe: |fact, emit| {
                    if let Fact::Compaction { reclaimed: Some(tokens), .. } = fact {
                        emit(Sample::Value(*tokens), None);
                    }
                },
            },
            Self::SessionsStarted => MetricDef {
                name: "tacho_sessions_started_total",
                help: "Session segments that began; a resumed conversation is not counted again while its session is kept.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: STANDARD_AGENT,
                from: "the first record of a conversation",
                observe: |fact, emit| {
                    if let Fact::SessionStarted = fact {
                        emit(Sample::Add(1), None);
                    }
                },
            },
            Self::SessionsActive => MetricDef {
                name: "tacho_sessions_active",
                help: "Sessions that are open: not yet silent for the session gap.",
                kind: Kind::UpDown,
                unit: Unit::One,
                labels: &[Label::Tenant, Label::Team, Label::Entrypoint],
                from: "session state",
                observe: |fact, emit| {
                    if let Fact::SessionsActive { change } = fact {
                        emit(Sample::Add(*change), None);
                    }
                },
            },
            Self::Turns => MetricDef {
                name: "tacho_turns_total",
                help: "Turns that began: prompts of people, and of reviewers and sub-agents that log their own.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: STANDARD,
                from: "codex.user_prompt",
                observe: |fact, emit| {
                    if let Fact::Turn = fact {
                        emit(Sample::Add(1), None);
                    }
                },
            },
        }
    }

    /// The metric of that name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::VARIANTS.iter().copied().find(|metric| metric.def().name == name)
    }
}

fn request_duration(fact: &Fact, emit: &mut Emit<'_>) {
    if let Fact::Request { duration_us: Some(value), .. } = fact {
        emit(Sample::Value(*value), None);
    }
}

fn first_token(fact: &Fact, emit: &mut Emit<'_>) {
    if let Fact::FirstToken { duration_us } = fact {
        emit(Sample::Value(*duration_us), None);
    }
}

/// The value of a label for a fact; `varying` is what the metric gave for the label that differs between samples.
///
/// A label that the fact says nothing about is empty, and not shown.
#[must_use]
pub fn label_value<'a>(label: Label, dimensions: &Dimensions<'a>, fact: &Fact, varying: Option<&'static str>) -> &'a str {
    match (label, fact) {
        (Label::Tenant, _) => dimensions.tenant,
        (Label::Team, _) => dimensions.team,
        (Label::Project, _) => dimensions.project,
        (Label::CostCentre, _) => dimensions.cost_centre,
        (Label::Department, _) => dimensions.department,
        (Label::Env, _) => dimensions.env,
        (Label::Model, _) => dimensions.model,
        (Label::Entrypoint, _) => dimensions.entrypoint,
        (Label::Effort, _) => dimensions.effort,
        (Label::Tier, _) => dimensions.tier,
        (Label::Agent, _) => match dimensions.agent {
            Agent::Root => "root",
            Agent::Subagent => "subagent",
        },
        (Label::Direction | Label::TokenKind, _) => varying.unwrap_or(""),
        (Label::Endpoint, Fact::Request { endpoint, .. }) => endpoint,
        (Label::StatusClass, Fact::Request { status, .. }) => status_class(*status),
        (Label::StatusCode, Fact::Request { status, .. }) => status_code(*status),
        (Label::AttemptClass, Fact::Request { retry, .. }) => match retry {
            Some(_) => "retry",
            None => "first",
        },
        (Label::Layer, Fact::Request { retry: Some(layer), .. }) => match layer {
            RetryLayer::Http => "http",
            RetryLayer::Stream => "stream",
        },
        (Label::ErrorType, Fact::Request { error: Some(error), .. } | Fact::StreamFailure { error }) => error,
        (Label::ErrorType, Fact::Response { mismatch: Some(mismatch), .. }) => mismatch,
        (Label::Tool, Fact::ToolCall { tool, .. } | Fact::Decision { tool, .. }) => tool,
        (Label::Outcome, Fact::ToolCall { success, .. }) => {
            if *success {
                "success"
            } else {
                "failure"
            }
        }
        (Label::Outcome, Fact::Record { outcome, .. }) => outcome.name(),
        (Label::Origin, Fact::ToolCall { mcp, .. }) => {
            if *mcp {
                "mcp"
            } else {
                "builtin"
            }
        }
        (Label::Decision, Fact::Decision { decision, .. }) => decision,
        (Label::Source, Fact::Decision { source, .. }) => source,
        (Label::Source, Fact::Record { time_source, .. }) => time_source.name(),
        (Label::Method, Fact::Compaction { method, .. }) => match method {
            CompactionMethod::Endpoint => "endpoint",
            CompactionMethod::Inferred => "inferred",
        },
        (Label::Event, Fact::Record { event, .. }) => event,
        _ => "",
    }
}

const fn status_class(status: Option<u16>) -> &'static str {
    match status {
        Some(429) => "429",
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(500..=599) => "5xx",
        _ => "none",
    }
}

const fn status_code(status: Option<u16>) -> &'static str {
    match status {
        None => "none",
        Some(400) => "400",
        Some(401) => "401",
        Some(403) => "403",
        Some(404) => "404",
        Some(408) => "408",
        Some(409) => "409",
        Some(413) => "413",
        Some(422) => "422",
        Some(429) => "429",
        Some(500) => "500",
        Some(502) => "502",
        Some(503) => "503",
        Some(504) => "504",
        Some(529) => "529",
        Some(_) => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_kind_and_unit() {
        for &metric in Metric::VARIANTS {
            let def = metric.def();
            assert_eq!(Metric::by_name(def.name), Some(metric));
            assert!(def.name.starts_with("tacho_"), "{}", def.name);
            assert!(def.help.ends_with('.'), "{}: the help is a sentence", def.name);
            let counts = def.kind == Kind::Counter;
            assert_eq!(def.name.ends_with("_total"), counts, "{}: _total is for counters and only for them", def.name);
            match def.unit {
                Unit::Seconds => assert!(def.name.ends_with("_seconds"), "{}", def.name),
                Unit::Ratio => assert!(def.name.ends_with("_window_ratio"), "{}", def.name),
                Unit::One | Unit::Tokens => {}
            }
            if matches!(def.kind, Kind::Histogram { .. } | Kind::WindowQuantiles) {
                for label in [Label::Team, Label::Project, Label::CostCentre, Label::Department] {
                    assert!(!def.labels.contains(&label), "{}: distributions never carry {}", def.name, label.def().name);
                }
            }
        }
    }
}
