//! The values of closed labels, for whoever asks for a series by its labels. Classification of records takes its values
//! from here, and a test of the core compares what is derived with these lists.

use super::Label;
use super::label::{STATUS_CLASSES, STATUS_CODES};
use crate::event::EventKind;
use crate::fact::{
    Agent, AnswerEnd, BillingBasis, CompactionMethod, ConnectPhase, Decision, DecisionSource, Outcome,
    PrewarmBasis, RetryLayer, TOKEN_KINDS, TimeSource, Transport, WindowEnd,
};
use crate::failure;
use crate::price::{Book, Unpriced};
use strum::VariantArray;

/// Values that a closed label has for facts of one kind.
#[derive(Clone, Copy, Debug)]
pub struct ValueGroup {
    /// What the values are about, in words; empty if the label has one group.
    pub of: &'static str,
    /// The values.
    pub values: &'static [&'static str],
}

/// The value for whatever is on none of the lists.
pub const OTHER: &str = "other";
/// The value for what a record does not report.
pub const DEFAULT: &str = "default";

/// The names of Codex' built-in tools, and `mcp` for all tools of MCP servers.
pub const TOOLS: &[&str] = &[
    "exec_command",
    "write_stdin",
    "shell",
    "shell_command",
    "local_shell",
    "apply_patch",
    "exec",
    "wait",
    "update_plan",
    "view_image",
    "web_search",
    "image_generation",
    "read_file",
    "list_dir",
    "grep_files",
    "spawn_agent",
    "send_input",
    "send_message",
    "followup_task",
    "resume_agent",
    "wait_agent",
    "close_agent",
    "list_agents",
    "interrupt_agent",
    "request_user_input",
    "request_permissions",
    "list_mcp_resources",
    "list_mcp_resource_templates",
    "read_mcp_resource",
    "tool_search",
    "tool_suggest",
    "js_repl",
    MCP,
    OTHER,
];
/// The tool for all tools of MCP servers.
pub const MCP: &str = "mcp";

/// The reasoning efforts that Codex knows, and [`DEFAULT`] and [`OTHER`].
pub const EFFORTS: &[&str] = &[
    "none", "minimal", "low", "medium", "high", "xhigh", DEFAULT, OTHER,
];

/// The service tiers: those with prices, and [`OTHER`].
pub const TIERS: &[&str] = &[DEFAULT, "priority", "flex", OTHER];

/// The kinds of clients that start sessions.
pub const ENTRYPOINTS: &[&str] = &["cli", "exec", "app_server", "desktop", "vscode", MCP, OTHER];

/// The endpoints of the model API.
pub const ENDPOINTS: &[&str] = &[
    "/responses",
    "/responses/compact",
    "/models",
    "/chat/completions",
    "/memories/trace_summarize",
    "/images/generations",
    "/alpha/search",
    OTHER,
];

/// The kinds of errors of requests.
pub const REQUEST_ERRORS: &[&str] = &[
    "rate_limited",
    "auth",
    "timeout",
    "bad_request",
    "server",
    "network",
    OTHER,
];

/// How token counts of one response can contradict each other.
pub const MISMATCHES: &[&str] = &["cached_gt_input", "reasoning_gt_output", "total_ne_sum"];

const fn group(of: &'static str, values: &'static [&'static str]) -> ValueGroup {
    ValueGroup { of, values }
}

/// The names of all variants of an enum, in their order.
macro_rules! names {
    ($of:ty, $name:expr) => {{
        const NAMES: [&str; <$of>::VARIANTS.len()] = {
            let mut names = [""; <$of>::VARIANTS.len()];
            let mut index = 0;
            while index < names.len() {
                names[index] = $name(<$of>::VARIANTS[index]);
                index += 1;
            }
            names
        };
        &NAMES
    }};
}

const fn event(event: EventKind) -> &'static str {
    event.def().name
}

/// The values of a closed label by what they are about; none for a label whose values come off the wire.
#[must_use]
pub const fn groups(label: Label) -> &'static [ValueGroup] {
    const TRUTHS: &[&str] = &["true", "false"];
    match label {
        // The tenant is in the key of a raw record, and the others come off the wire.
        Label::Tenant
        | Label::Team
        | Label::Project
        | Label::CostCentre
        | Label::Department
        | Label::Env
        | Label::Model => &[],
        Label::Entrypoint => const { &[group("", ENTRYPOINTS)] },
        Label::Agent => const { &[group("", names!(Agent, Agent::name))] },
        Label::Effort => const { &[group("", EFFORTS)] },
        Label::Tier => const { &[group("", TIERS)] },
        Label::Transport => const { &[group("", names!(Transport, Transport::name))] },
        Label::Endpoint => const { &[group("", ENDPOINTS)] },
        Label::StatusClass => const { &[group("", STATUS_CLASSES)] },
        Label::StatusCode => const { &[group("", STATUS_CODES)] },
        Label::AttemptClass => const { &[group("", &["first", "retry"])] },
        Label::Layer => const { &[group("", names!(RetryLayer, RetryLayer::name))] },
        Label::ErrorType => {
            const {
                &[
                    group("requests", REQUEST_ERRORS),
                    group("response streams", failure::OF_STREAMS),
                    group("token counts", MISMATCHES),
                ]
            }
        }
        Label::Direction => const { &[group("", &["input", "output"])] },
        Label::TokenKind => const { &[group("", TOKEN_KINDS)] },
        Label::Tool => const { &[group("", TOOLS)] },
        Label::Outcome => {
            const {
                &[
                    group("records", names!(Outcome, Outcome::name)),
                    group("tool calls", &["success", "failure"]),
                    group("answers", names!(AnswerEnd, AnswerEnd::name)),
                    group("upgrades", &["accepted", "refused"]),
                ]
            }
        }
        Label::Origin => const { &[group("", &["builtin", MCP])] },
        Label::Decision => const { &[group("", names!(Decision, Decision::name))] },
        Label::Source => {
            const {
                &[
                    group("decisions", names!(DecisionSource, DecisionSource::name)),
                    group("event times", names!(TimeSource, TimeSource::name)),
                ]
            }
        }
        Label::Method => const { &[group("", names!(CompactionMethod, CompactionMethod::name))] },
        Label::Event => const { &[group("", names!(EventKind, event))] },
        Label::BillingBasis => const { &[group("", names!(BillingBasis, BillingBasis::name))] },
        Label::Book => const { &[group("", names!(Book, Book::name))] },
        Label::Reason => const { &[group("", names!(Unpriced, Unpriced::name))] },
        Label::Interrupted | Label::Reused => const { &[group("", TRUTHS)] },
        Label::Phase => const { &[group("", names!(ConnectPhase, ConnectPhase::name))] },
        Label::Basis => const { &[group("", names!(PrewarmBasis, PrewarmBasis::name))] },
        Label::ClosedBy => const { &[group("", names!(WindowEnd, WindowEnd::name))] },
    }
}

/// Whether a label can have that value: any value where values come off the wire, and none at all for a fact that does
/// not determine it.
#[must_use]
pub fn allows(label: Label, value: &str) -> bool {
    let groups = groups(label);
    value.is_empty() || groups.is_empty() || groups.iter().any(|group| group.values.contains(&value))
}
