//! The event table: every event that Codex is known to log, one arm each, and every attribute that is read.
//!
//! To add an event: a variant of [`EventKind`] and its arm in [`EventKind::def`], its attributes in [`Attr`],
//! a folder in `schemas/examples`. A test fails until every event of the table has an example.

mod names;

use names::Names;
use strum::{EnumCount, VariantArray};

/// An event, identified by the attribute `event.name`. (The OTLP field `event_name` holds a code location and
/// is not read.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray, EnumCount)]
pub enum EventKind {
    /// A session starts, or is resumed.
    ConversationStarts,
    /// A phase of starting up ended.
    StartupPhase,
    /// A turn's input.
    UserPrompt,
    /// One HTTP attempt at the model API.
    ApiRequest,
    /// A server-sent event of a response stream; one with token counts is a completed response.
    SseEvent,
    /// The first token of a turn.
    TurnTtft,
    /// The outcome of an approval.
    ToolDecision,
    /// A tool call ended.
    ToolResult,
    /// The sandbox denied or escalated a command.
    SandboxOutcome,
    /// A message between agents, sent or received.
    AgentCommunication,
    /// An agent's final answer (opt-in).
    AgentResponse,
    /// An automated review ended (opt-in).
    GuardianAssessment,
    /// A skill was used.
    SkillInvocation,
    /// What Codex itself says that a turn cost.
    TurnCost,
    /// An attempt to recover from a 401.
    AuthRecovery,
    /// A WebSocket connection to the model API.
    WebsocketConnect,
    /// A request over a WebSocket.
    WebsocketRequest,
    /// The user was asked about a plugin.
    PluginInstallElicitationSent,
    /// A plugin was suggested.
    PluginInstallSuggestion,
    /// The managed network proxy allowed or denied a connection.
    NetworkPolicyDecision,
    /// Any other record, with or without a name: it is counted and stays in the raw log, and is never an
    /// error.
    Unknown,
}

/// The definition of an event: one row of the table.
#[derive(Clone, Copy, Debug)]
pub struct EventDef {
    /// The value of `event.name`.
    pub name: &'static str,
    /// What the event means, in a few words for people.
    pub about: &'static str,
    /// The attributes that derivation reads, beside those in [`COMMON`].
    pub reads: &'static [Attr],
    /// The records of the event that change a derived value beside counts of records. Only such records get a
    /// dedup mark.
    pub derives: Derives,
}

/// Which records of an event change a derived value beside counts of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Derives {
    /// Every record does.
    Always,
    /// Every record does that has one of these attributes.
    WithAny(&'static [Attr]),
    /// Every record does where this attribute begins with this text.
    WithPrefix(Attr, &'static str),
    /// No record does.
    Never,
}

/// What the names of all phases of a prewarm begin with, in attribute `startup.phase`.
pub const PREWARM_PHASES: &str = "startup_prewarm_";

/// The attributes that most events carry.
pub const COMMON: &[Attr] = &[
    Attr::EventName,
    Attr::EventTimestamp,
    Attr::ConversationId,
    Attr::AppVersion,
    Attr::AuthMode,
    Attr::Originator,
    Attr::UserAccountId,
    Attr::UserEmail,
    Attr::TerminalType,
    Attr::Model,
];

impl EventKind {
    /// The event's definition.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a table: one arm an event")]
    pub const fn def(self) -> EventDef {
        match self {
            Self::ConversationStarts => EventDef {
                name: "codex.conversation_starts",
                about: "a session starts, is resumed, or a sub-agent's does",
                reads: &[
                    Attr::ContextWindow,
                    Attr::AutoCompactTokenLimit,
                    Attr::ReasoningEffort,
                    Attr::ApprovalPolicy,
                    Attr::SandboxPolicy,
                ],
                derives: Derives::Always,
            },
            Self::StartupPhase => EventDef {
                name: "codex.startup_phase",
                about: "a phase of starting up ended",
                reads: &[Attr::StartupPhase, Attr::StartupStatus],
                derives: Derives::WithPrefix(Attr::StartupPhase, PREWARM_PHASES),
            },
            Self::UserPrompt => EventDef {
                name: "codex.user_prompt",
                about: "a turn's input, also of reviewers and of some sub-agents",
                reads: &[Attr::PromptLength],
                derives: Derives::Always,
            },
            Self::ApiRequest => EventDef {
                name: "codex.api_request",
                about: "one HTTP attempt at the model API",
                reads: &[
                    Attr::DurationMs,
                    Attr::StatusCode,
                    Attr::Attempt,
                    Attr::Endpoint,
                    Attr::ErrorMessage,
                    Attr::TachoError,
                ],
                derives: Derives::Always,
            },
            Self::SseEvent => EventDef {
                name: "codex.sse_event",
                about: "one event of a response stream; with token counts, a completed response",
                reads: &[
                    Attr::EventKindName,
                    Attr::ErrorMessage,
                    Attr::TachoError,
                    Attr::InputTokenCount,
                    Attr::OutputTokenCount,
                    Attr::CachedTokenCount,
                    Attr::CacheWriteTokenCount,
                    Attr::ReasoningTokenCount,
                    Attr::ToolTokenCount,
                    Attr::TtftMs,
                    Attr::ModelReasoningEffort,
                    Attr::ServiceTier,
                ],
                derives: Derives::WithAny(&[Attr::InputTokenCount, Attr::ErrorMessage, Attr::TachoError]),
            },
            Self::TurnTtft => EventDef {
                name: "codex.turn_ttft",
                about: "the first token of a turn, from the turn's start, retries included",
                reads: &[Attr::DurationMs],
                derives: Derives::Always,
            },
            Self::ToolDecision => EventDef {
                name: "codex.tool_decision",
                about: "the outcome of an approval",
                reads: &[Attr::ToolName, Attr::CallId, Attr::Decision, Attr::Source],
                derives: Derives::Always,
            },
            Self::ToolResult => EventDef {
                name: "codex.tool_result",
                about: "a tool call ended",
                reads: &[
                    Attr::ToolResultSeq,
                    Attr::ToolName,
                    Attr::ToolNamespace,
                    Attr::CallId,
                    Attr::DurationMs,
                    Attr::Success,
                    Attr::AgentName,
                    Attr::McpServer,
                    Attr::TachoExitCode,
                    Attr::TachoSpawnedAgent,
                ],
                derives: Derives::Always,
            },
            Self::SandboxOutcome => unread(
                "codex.sandbox_outcome",
                "the sandbox denied or escalated a command",
            ),
            Self::AgentCommunication => EventDef {
                name: "codex.agent_communication",
                about: "a message between agents, sent or received",
                reads: &[
                    Attr::CommunicationId,
                    Attr::State,
                    Attr::SenderThreadId,
                    Attr::ReceiverThreadId,
                ],
                derives: Derives::Never,
            },
            Self::AgentResponse => unread("codex.agent_response", "an agent's final answer"),
            Self::GuardianAssessment => unread("codex.guardian_assessment", "an automated review ended"),
            Self::SkillInvocation => unread("codex.skill_invocation", "a skill was used"),
            Self::TurnCost => EventDef {
                name: "codex.turn_cost",
                about: "Codex' own price of a turn, some minutes after it",
                reads: &[Attr::UsageEstimatedUsd, Attr::TurnInterrupted],
                derives: Derives::Always,
            },
            Self::AuthRecovery => unread("codex.auth_recovery", "an attempt to recover from a 401"),
            Self::WebsocketConnect => EventDef {
                name: "codex.websocket_connect",
                about: "a WebSocket connection to the model API was made or refused",
                reads: &[Attr::DurationMs, Attr::Success, Attr::StatusCode],
                derives: Derives::Always,
            },
            Self::WebsocketRequest => EventDef {
                name: "codex.websocket_request",
                about: "a request was sent over a WebSocket",
                reads: &[Attr::Success, Attr::ConnectionReused],
                derives: Derives::Always,
            },
            Self::PluginInstallElicitationSent => unread(
                "codex.plugin_install_elicitation_sent",
                "the user was asked about a plugin",
            ),
            Self::PluginInstallSuggestion => {
                unread("codex.plugin_install_suggestion", "a plugin was suggested")
            }
            Self::NetworkPolicyDecision => unread(
                "codex.network_proxy.policy_decision",
                "the network proxy decided about a connection",
            ),
            Self::Unknown => unread("unknown", "any other record: kept and counted"),
        }
    }

    /// The event with that name; [`EventKind::Unknown`] for a name that is not in the table.
    #[must_use]
    pub fn by_name(name: &str) -> Self {
        static NAMES: Names<{ EventKind::COUNT }> = {
            let mut names = [""; EventKind::COUNT];
            let mut index = 0;
            while index < EventKind::COUNT {
                names[index] = EventKind::VARIANTS[index].def().name;
                index += 1;
            }
            Names::new(names)
        };
        NAMES
            .find(name.as_bytes())
            .map_or(Self::Unknown, |index| Self::VARIANTS[index])
    }
}

/// An event of which nothing but its name is read.
const fn unread(name: &'static str, about: &'static str) -> EventDef {
    EventDef {
        name,
        about,
        reads: &[],
        derives: Derives::Never,
    }
}

/// An attribute that is read: of a log record, or of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray, EnumCount)]
#[expect(missing_docs, reason = "each is explained by its key, in `Attr::key`")]
pub enum Attr {
    EventName,
    EventTimestamp,
    ConversationId,
    AppVersion,
    AuthMode,
    Originator,
    UserAccountId,
    UserEmail,
    TerminalType,
    Model,
    EventKindName,
    DurationMs,
    StatusCode,
    Attempt,
    Endpoint,
    ErrorMessage,
    InputTokenCount,
    OutputTokenCount,
    CachedTokenCount,
    CacheWriteTokenCount,
    ReasoningTokenCount,
    ToolTokenCount,
    ModelReasoningEffort,
    ReasoningEffort,
    ServiceTier,
    ToolResultSeq,
    ToolName,
    ToolNamespace,
    CallId,
    Success,
    AgentName,
    McpServer,
    Decision,
    Source,
    PromptLength,
    ContextWindow,
    AutoCompactTokenLimit,
    ApprovalPolicy,
    SandboxPolicy,
    CommunicationId,
    State,
    SenderThreadId,
    ReceiverThreadId,
    UsageEstimatedUsd,
    TurnInterrupted,
    StartupPhase,
    StartupStatus,
    ConnectionReused,
    TtftMs,
    TachoExitCode,
    TachoSpawnedAgent,
    TachoCommandShape,
    TachoError,
    ServiceName,
    TeamId,
    Project,
    CostCentre,
    Department,
    Env,
}

impl Attr {
    /// The attribute's key on the wire.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::EventName => "event.name",
            Self::EventTimestamp => "event.timestamp",
            Self::ConversationId => "conversation.id",
            Self::AppVersion => "app.version",
            Self::AuthMode => "auth_mode",
            Self::Originator => "originator",
            Self::UserAccountId => "user.account_id",
            Self::UserEmail => "user.email",
            Self::TerminalType => "terminal.type",
            Self::Model => "model",
            Self::EventKindName => "event.kind",
            Self::DurationMs => "duration_ms",
            Self::StatusCode => "http.response.status_code",
            Self::Attempt => "attempt",
            Self::Endpoint => "endpoint",
            Self::ErrorMessage => "error.message",
            Self::InputTokenCount => "input_token_count",
            Self::OutputTokenCount => "output_token_count",
            Self::CachedTokenCount => "cached_token_count",
            Self::CacheWriteTokenCount => "cache_write_token_count",
            Self::ReasoningTokenCount => "reasoning_token_count",
            Self::ToolTokenCount => "tool_token_count",
            Self::ModelReasoningEffort => "model_reasoning_effort",
            Self::ReasoningEffort => "reasoning_effort",
            Self::ServiceTier => "service_tier",
            Self::ToolResultSeq => "tool_result_seq",
            Self::ToolName => "tool_name",
            Self::ToolNamespace => "tool_namespace",
            Self::CallId => "call_id",
            Self::Success => "success",
            Self::AgentName => "agent_name",
            Self::McpServer => "mcp_server",
            Self::Decision => "decision",
            Self::Source => "source",
            Self::PromptLength => "prompt_length",
            Self::ContextWindow => "context_window",
            Self::AutoCompactTokenLimit => "auto_compact_token_limit",
            Self::ApprovalPolicy => "approval_policy",
            Self::SandboxPolicy => "sandbox_policy",
            Self::CommunicationId => "communication_id",
            Self::State => "state",
            Self::SenderThreadId => "sender_thread_id",
            Self::ReceiverThreadId => "receiver_thread_id",
            Self::UsageEstimatedUsd => "usage.estimated_usd",
            Self::TurnInterrupted => "turn.interrupted",
            Self::StartupPhase => "startup.phase",
            Self::StartupStatus => "startup.status",
            Self::ConnectionReused => "auth.connection_reused",
            Self::TtftMs => "ttft_ms",
            Self::TachoExitCode => "tacho.exit_code",
            Self::TachoSpawnedAgent => "tacho.spawned_agent",
            Self::TachoCommandShape => "tacho.command_shape",
            Self::TachoError => "tacho.error",
            Self::ServiceName => "service.name",
            Self::TeamId => "team.id",
            Self::Project => "project",
            Self::CostCentre => "cost_centre",
            Self::Department => "department",
            Self::Env => "env",
        }
    }

    /// The attribute with that key; `None` for a key that nothing reads.
    ///
    /// Called for every attribute of every record: one lookup in a hash table that the compiler built.
    #[must_use]
    pub fn by_key(key: &[u8]) -> Option<Self> {
        static KEYS: Names<{ Attr::COUNT }> = {
            let mut keys = [""; Attr::COUNT];
            let mut index = 0;
            while index < Attr::COUNT {
                keys[index] = Attr::VARIANTS[index].key();
                index += 1;
            }
            Names::new(keys)
        };
        KEYS.find(key).map(|index| Self::VARIANTS[index])
    }
}

/// The keys of attributes whose text a privacy policy may change; dedup marks do not depend on them.
pub const PRIVATE_KEYS: [&str; 8] = [
    "prompt",
    "arguments",
    "output",
    "content",
    "response",
    "error.message",
    "user.email",
    "user.account_id",
];

/// The prefix of attributes that only ingest writes; ingest removes those that a client sends.
pub const OWN_PREFIX: &str = "tacho.";

/// Whether no privacy policy changes attributes with that key, and ingest adds none with it. Dedup marks
/// cover the content of these attributes only.
#[must_use]
pub fn is_public(key: &[u8]) -> bool {
    !key.starts_with(OWN_PREFIX.as_bytes()) && !PRIVATE_KEYS.iter().any(|private| private.as_bytes() == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_keys_lead_back() {
        for &kind in EventKind::VARIANTS {
            assert_eq!(EventKind::by_name(kind.def().name), kind);
        }
        for &attr in Attr::VARIANTS {
            assert_eq!(Attr::by_key(attr.key().as_bytes()), Some(attr));
        }
        assert_eq!(EventKind::by_name("codex.new"), EventKind::Unknown);
        assert_eq!(Attr::by_key(b"prompt"), None);
    }
}
