//! The definitions of all metrics. Those of the transport and of prewarms lie in files of their own.

mod prewarm;
mod transport;

use super::{Emit, Kind, Label, Metric, MetricDef, Sample, Unit};
use crate::fact::{DecisionSource, Fact, FactKind};

const STANDARD: &[Label] = &[
    Label::Tenant,
    Label::Team,
    Label::Model,
    Label::Env,
    Label::Entrypoint,
    Label::Project,
    Label::CostCentre,
    Label::Department,
];
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
const COST: &[Label] = &[
    Label::Tenant,
    Label::Team,
    Label::Model,
    Label::Env,
    Label::Entrypoint,
    Label::Project,
    Label::CostCentre,
    Label::Department,
    Label::Agent,
    Label::BillingBasis,
];
const CREDITS: &[Label] = &[
    Label::Tenant,
    Label::Team,
    Label::Model,
    Label::Env,
    Label::Entrypoint,
    Label::Project,
    Label::CostCentre,
    Label::Department,
    Label::Tier,
];
/// Histograms of durations have bounds from 2^-6 s (16 ms) to 2^10 s (17 min).
const SECONDS: Kind = Kind::Histogram { first: -6, last: 10 };
/// Histograms of token counts have bounds from 1 to 2^22 (4 M).
const TOKEN_COUNTS: Kind = Kind::Histogram { first: 0, last: 22 };

impl Metric {
    /// The metric's definition.
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
                of: FactKind::Record,
                observe: |fact, emit| one(matches!(fact, Fact::Record { .. }), emit),
            },
            Self::EventTimeSource => MetricDef {
                name: "tacho_event_time_source_total",
                help: "Log records by the field that gave their event time.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[Label::Tenant, Label::Source],
                from: "every record",
                of: FactKind::Record,
                observe: |fact, emit| one(matches!(fact, Fact::Record { .. }), emit),
            },
            Self::EventTimeClamped => MetricDef {
                name: "tacho_event_time_clamped_total",
                help: "Log records whose event time was too far from the log's clock, and was moved to the bound.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[Label::Tenant],
                from: "every record",
                of: FactKind::Record,
                observe: |fact, emit| one(matches!(fact, Fact::Record { clamped: true, .. }), emit),
            },
            Self::ApiRequests => MetricDef {
                name: "tacho_api_requests_total",
                help: "Requests to the model API: HTTP attempts, and WebSocket requests of turns once they have their end.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[
                    Label::Tenant,
                    Label::Team,
                    Label::Department,
                    Label::Model,
                    Label::Entrypoint,
                    Label::Transport,
                    Label::Endpoint,
                    Label::StatusClass,
                    Label::AttemptClass,
                ],
                from: "codex.api_request, codex.websocket_request",
                of: FactKind::Request,
                observe: |fact, emit| one(matches!(fact, Fact::Request { .. }), emit),
            },
            Self::ApiErrors => MetricDef {
                name: "tacho_api_errors_total",
                help: "Requests to the model API that failed, by status and kind of error: HTTP attempts without a good status, and WebSocket requests whose answer is an error.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[Label::Tenant, Label::Model, Label::StatusCode, Label::ErrorType],
                from: "codex.api_request, codex.sse_event with an error",
                of: FactKind::Request,
                observe: |fact, emit| one(matches!(fact, Fact::Request { error: Some(_), .. }), emit),
            },
            Self::ApiRetries => MetricDef {
                name: "tacho_api_retries_total",
                help: "Retries of model API requests, by the layer that retried.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[
                    Label::Tenant,
                    Label::Team,
                    Label::Model,
                    Label::Endpoint,
                    Label::Layer,
                ],
                from: "codex.api_request, codex.websocket_connect, codex.websocket_request",
                of: FactKind::Retry,
                observe: |fact, emit| one(matches!(fact, Fact::Retry { .. }), emit),
            },
            Self::ApiRateLimited => MetricDef {
                name: "tacho_api_rate_limited_total",
                help: "Requests to the model API that were answered 429.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[Label::Tenant, Label::Team, Label::Model],
                from: "codex.api_request, codex.sse_event with an error",
                of: FactKind::Request,
                observe: |fact, emit| {
                    one(
                        matches!(
                            fact,
                            Fact::Request {
                                status: Some(429),
                                ..
                            }
                        ),
                        emit,
                    )
                },
            },
            Self::ApiRetryRatio => MetricDef {
                name: "tacho_api_retry_window_ratio",
                help: "Retries among the requests of turns in the last final window.",
                kind: Kind::WindowRatio,
                unit: Unit::Ratio,
                labels: &[Label::Tenant, Label::Model, Label::Endpoint],
                from: "codex.api_request, codex.websocket_request",
                of: FactKind::Request,
                observe: |fact, emit| {
                    if let Fact::Request { endpoint, retry, .. } = fact
                        && is_of_turns(endpoint)
                    {
                        emit(Sample::Share(*retry), None);
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
                of: FactKind::Request,
                observe: request_duration,
            },
            Self::ApiRequestDurationWindow => MetricDef {
                name: "tacho_api_request_duration_window_seconds",
                help: "Quantiles of the time to response headers of turns' HTTP requests in the last final window, within 1.1 %.",
                kind: Kind::WindowQuantiles,
                unit: Unit::Seconds,
                labels: &[Label::Tenant, Label::Model],
                from: "codex.api_request",
                of: FactKind::Request,
                observe: |fact, emit| {
                    if let Fact::Request { endpoint, .. } = fact
                        && is_of_turns(endpoint)
                    {
                        request_duration(fact, emit);
                    }
                },
            },
            Self::ResponseDuration => transport::RESPONSE_DURATION,
            Self::FirstToken => transport::FIRST_TOKEN,
            Self::WebsocketConnects => transport::CONNECTS,
            Self::WebsocketConnectDuration => transport::CONNECT_DURATION,
            Self::WebsocketReused => transport::REUSED,
            Self::WebsocketFallbacks => transport::FALLBACKS,
            Self::PrewarmRequests => prewarm::REQUESTS,
            Self::PrewarmResponses => prewarm::RESPONSES,
            Self::PrewarmTokens => prewarm::TOKENS,
            Self::PrewarmCost => prewarm::COST,
            Self::PrewarmWindows => prewarm::WINDOWS,
            Self::StreamFailures => MetricDef {
                name: "tacho_stream_failures_total",
                help: "Response streams that broke, timed out or ended in a failure.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[Label::Tenant, Label::Model, Label::ErrorType],
                from: "codex.sse_event",
                of: FactKind::StreamFailure,
                observe: |fact, emit| one(matches!(fact, Fact::StreamFailure { .. }), emit),
            },
            Self::Ttft => MetricDef {
                name: "tacho_ttft_seconds",
                help: "Time from a turn's start to its first token, retries included.",
                kind: SECONDS,
                unit: Unit::Seconds,
                labels: &[Label::Tenant, Label::Model, Label::Effort, Label::Tier],
                from: "codex.turn_ttft",
                of: FactKind::FirstToken,
                observe: first_token,
            },
            Self::TtftWindow => MetricDef {
                name: "tacho_ttft_window_seconds",
                help: "Quantiles of the time to first token in the last final window, within 1.1 %.",
                kind: Kind::WindowQuantiles,
                unit: Unit::Seconds,
                labels: &[Label::Tenant, Label::Model],
                from: "codex.turn_ttft",
                of: FactKind::FirstToken,
                observe: first_token,
            },
            Self::Tokens => MetricDef {
                name: "tacho_tokens_total",
                help: "Tokens used, in disjoint kinds: the sum over kinds is the total.",
                kind: Kind::Counter,
                unit: Unit::Tokens,
                labels: TOKENS,
                from: "codex.sse_event with token counts",
                of: FactKind::Response,
                observe: |fact, emit| {
                    if let Fact::Response { tokens, .. } = fact {
                        for (kind, count) in tokens.by_kind() {
                            add(count, Some(kind), emit);
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
                of: FactKind::Response,
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
                of: FactKind::Response,
                observe: |fact, emit| {
                    one(
                        matches!(
                            fact,
                            Fact::Response {
                                mismatch: Some(_),
                                ..
                            }
                        ),
                        emit,
                    )
                },
            },
            Self::CacheHitRatio => MetricDef {
                name: "tacho_cache_hit_window_ratio",
                help: "Cached among all input tokens of the last final window.",
                kind: Kind::WindowRatio,
                unit: Unit::Ratio,
                labels: &[Label::Tenant, Label::Team, Label::Model],
                from: "codex.sse_event with token counts",
                of: FactKind::Response,
                observe: |fact, emit| {
                    if let Fact::Response { tokens, .. } = fact {
                        emit(Sample::Shares(tokens.input_cached, tokens.input()), None);
                    }
                },
            },
            Self::Cost => MetricDef {
                name: "tacho_cost_usd_total",
                help: "Estimated cost of tokens at list price: api_list for tokens of the API, subscription_equivalent for what tokens of ChatGPT plans would have cost as such; never add the two.",
                kind: Kind::Counter,
                unit: Unit::Usd,
                labels: COST,
                from: "codex.sse_event with token counts, prices",
                of: FactKind::Cost,
                observe: |fact, emit| {
                    if let Fact::Cost { nano_usd, .. } = fact {
                        add(nano_usd.total(), None, emit);
                    }
                },
            },
            Self::CostByKind => MetricDef {
                name: "tacho_cost_by_kind_usd_total",
                help: "The same cost by kind of token and service tier: its sum over both is that of tacho_cost_usd_total.",
                kind: Kind::Counter,
                unit: Unit::Usd,
                labels: &[
                    Label::Tenant,
                    Label::Model,
                    Label::TokenKind,
                    Label::Tier,
                    Label::BillingBasis,
                ],
                from: "codex.sse_event with token counts, prices",
                of: FactKind::Cost,
                observe: |fact, emit| {
                    if let Fact::Cost { nano_usd, .. } = fact {
                        for (kind, amount) in nano_usd.by_kind() {
                            add(amount, Some(kind), emit);
                        }
                    }
                },
            },
            Self::CacheSavings => MetricDef {
                name: "tacho_cache_savings_usd_total",
                help: "What cached input tokens would have cost more at the price of uncached ones; what writing to the cache cost is not taken off.",
                kind: Kind::Counter,
                unit: Unit::Usd,
                labels: &[Label::Tenant, Label::Model, Label::BillingBasis],
                from: "codex.sse_event with token counts, prices",
                of: FactKind::Cost,
                observe: |fact, emit| {
                    if let Fact::Cost {
                        cache_savings_nano_usd,
                        ..
                    } = fact
                    {
                        add(*cache_savings_nano_usd, None, emit);
                    }
                },
            },
            Self::Credits => MetricDef {
                name: "tacho_credits_total",
                help: "Estimated credits of ChatGPT plans, by the rate card; never add them to dollars.",
                kind: Kind::Counter,
                unit: Unit::Credits,
                labels: CREDITS,
                from: "codex.sse_event with token counts, prices",
                of: FactKind::Credits,
                observe: |fact, emit| {
                    if let Fact::Credits { micro_credits, .. } = fact {
                        add(*micro_credits, None, emit);
                    }
                },
            },
            Self::UnpricedTokens => MetricDef {
                name: "tacho_unpriced_tokens_total",
                help: "Tokens that have no price in a book, and so no cost there; those of ChatGPT plans are looked up in both books, so never add over book.",
                kind: Kind::Counter,
                unit: Unit::Tokens,
                labels: &[Label::Tenant, Label::Model, Label::Book, Label::Reason],
                from: "codex.sse_event with token counts, prices",
                of: FactKind::Unpriced,
                observe: |fact, emit| {
                    if let Fact::Unpriced { tokens, .. } = fact {
                        add(*tokens, None, emit);
                    }
                },
            },
            Self::NativeTurnCost => MetricDef {
                name: "tacho_native_turn_cost_usd_total",
                help: "What Codex itself says that turns cost, where it says so: a second opinion, never to be added to tacho_cost_usd_total.",
                kind: Kind::Counter,
                unit: Unit::Usd,
                labels: &[Label::Tenant, Label::Team, Label::Model, Label::Interrupted],
                from: "codex.turn_cost",
                of: FactKind::TurnCost,
                observe: |fact, emit| {
                    if let Fact::TurnCost { nano_usd, .. } = fact {
                        add(*nano_usd, None, emit);
                    }
                },
            },
            Self::ToolCalls => MetricDef {
                name: "tacho_tool_calls_total",
                help: "Tool calls that ended. Failure means that the tool failed, not that a command exited with an error.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[
                    Label::Tenant,
                    Label::Team,
                    Label::Tool,
                    Label::Outcome,
                    Label::Origin,
                    Label::Agent,
                ],
                from: "codex.tool_result",
                of: FactKind::ToolCall,
                observe: |fact, emit| one(matches!(fact, Fact::ToolCall { .. }), emit),
            },
            Self::ToolDuration => MetricDef {
                name: "tacho_tool_duration_seconds",
                help: "How long tool calls took.",
                kind: SECONDS,
                unit: Unit::Seconds,
                labels: &[Label::Tenant, Label::Tool, Label::Outcome],
                from: "codex.tool_result",
                of: FactKind::ToolCall,
                observe: |fact, emit| {
                    if let Fact::ToolCall {
                        duration_us: Some(value),
                        ..
                    } = fact
                    {
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
                of: FactKind::ToolCall,
                observe: |fact, emit| {
                    one(
                        matches!(fact, Fact::ToolCall { exit_code: Some(code), .. } if *code != 0),
                        emit,
                    )
                },
            },
            Self::ApprovalDecisions => MetricDef {
                name: "tacho_approval_decisions_total",
                help: "Approval decisions by tool, decision and who or what decided.",
                kind: Kind::Counter,
                unit: Unit::One,
                labels: &[
                    Label::Tenant,
                    Label::Team,
                    Label::Tool,
                    Label::Decision,
                    Label::Source,
                ],
                from: "codex.tool_decision",
                of: FactKind::Decision,
                observe: |fact, emit| one(matches!(fact, Fact::Decision { .. }), emit),
            },
            Self::HumanApprovalRatio => MetricDef {
                name: "tacho_human_approval_window_ratio",
                help: "Approved among the decisions that a person made in the last final window.",
                kind: Kind::WindowRatio,
                unit: Unit::Ratio,
                labels: &[Label::Tenant, Label::Team, Label::Tool],
                from: "codex.tool_decision",
                of: FactKind::Decision,
                observe: |fact, emit| {
                    if let Fact::Decision {
                        decision,
                        source: DecisionSource::Human,
                        ..
                    } = fact
                    {
                        emit(Sample::Share(decision.is_approval()), None);
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
                of: FactKind::Decision,
                observe: |fact, emit| {
                    if let Fact::Decision { source, .. } = fact {
                        emit(Sample::Share(*source == DecisionSource::Policy), None);
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
                of: FactKind::Compaction,
                observe: |fact, emit| one(matches!(fact, Fact::Compaction { .. }), emit),
            },
            Self::CompactionReclaimedTokens => MetricDef {
                name: "tacho_compaction_reclaimed_tokens",
                help: "Input tokens of the last response before a compaction minus those of the first one after it.",
                kind: TOKEN_COUNTS,
                unit: Unit::Tokens,
                labels: &[Label::Tenant, Label::Model],
                from: "codex.sse_event with token counts",
                of: FactKind::Reclaimed,
                observe: |fact, emit| {
                    if let Fact::Reclaimed { tokens } = fact {
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
                from: "the first record of a conversation that derives",
                of: FactKind::SessionStarted,
                observe: |fact, emit| one(matches!(fact, Fact::SessionStarted), emit),
            },
            Self::SessionsActive => MetricDef {
                name: "tacho_sessions_active",
                help: "Sessions that are open: not yet silent for the session gap.",
                kind: Kind::UpDown,
                unit: Unit::One,
                labels: &[Label::Tenant, Label::Team, Label::Entrypoint],
                from: "session state",
                of: FactKind::SessionsActive,
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
                of: FactKind::Turn,
                observe: |fact, emit| one(matches!(fact, Fact::Turn), emit),
            },
        }
    }
}

/// Whether requests at an endpoint are made by turns, not by polls such as those for the list of models.
fn is_of_turns(endpoint: &str) -> bool {
    endpoint.starts_with("/responses")
}

fn request_duration(fact: &Fact, emit: &mut Emit<'_>) {
    if let Fact::Request {
        duration_us: Some(value),
        ..
    } = fact
    {
        emit(Sample::Value(*value), None);
    }
}

fn first_token(fact: &Fact, emit: &mut Emit<'_>) {
    if let Fact::FirstToken { duration_us } = fact {
        emit(Sample::Value(*duration_us), None);
    }
}

/// Emits an amount for a counter.
fn add(amount: u64, varying: Option<&'static str>, emit: &mut Emit<'_>) {
    emit(Sample::Add(i64::try_from(amount).unwrap_or(i64::MAX)), varying);
}

/// Emits 1 for a counter if `counts` says that the metric counts the fact.
fn one(counts: bool, emit: &mut Emit<'_>) {
    if counts {
        emit(Sample::Add(1), None);
    }
}
