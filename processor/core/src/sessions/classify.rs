//! Classification: maps the free texts of records to the bounded values of closed labels.

use schemas::event::Attr;
use schemas::fact::{Decision, DecisionSource};
use schemas::failure;
use schemas::metric::values::{DEFAULT, EFFORTS, ENDPOINTS, MCP, OTHER, TOOLS};
use schemas::otlp::scan::Attrs;
use strum::VariantArray;

fn known(list: &[&'static str], value: &str) -> Option<&'static str> {
    list.iter().copied().find(|known| *known == value)
}

/// Whether an MCP server ran the tool.
pub fn is_mcp(attrs: &Attrs<'_>) -> bool {
    attrs
        .text(Attr::McpServer)
        .is_some_and(|server| !server.is_empty())
        || attrs
            .text(Attr::ToolNamespace)
            .is_some_and(|namespace| namespace.starts_with("mcp__"))
        || attrs
            .text(Attr::ToolName)
            .is_some_and(|name| name.starts_with("mcp__"))
}

/// The tool of a call: a built-in tool's name, `mcp` for all tools of MCP servers, or `other`.
pub fn tool(attrs: &Attrs<'_>) -> &'static str {
    if is_mcp(attrs) {
        return MCP;
    }
    attrs
        .text(Attr::ToolName)
        .and_then(|name| known(TOOLS, name))
        .filter(|tool| *tool != MCP)
        .unwrap_or(OTHER)
}

/// The decision of an approval. An approval with an amendment has an older and a newer name.
pub fn decision(attrs: &Attrs<'_>) -> Decision {
    let of_name = |name: &str| {
        Decision::VARIANTS
            .iter()
            .copied()
            .find(|decision| decision.name() == name)
    };
    match attrs.text(Attr::Decision) {
        Some("approved_execpolicy_amendment") => Decision::ApprovedWithAmendment,
        Some(name) => of_name(name).unwrap_or(Decision::Other),
        None => Decision::Other,
    }
}

/// Who or what decided, a word that Codex writes in two ways.
pub fn source(attrs: &Attrs<'_>) -> DecisionSource {
    match attrs.text(Attr::Source) {
        Some("User" | "user") => DecisionSource::Human,
        Some("Config" | "config") => DecisionSource::Policy,
        Some("AutomatedReviewer" | "automated_reviewer") => DecisionSource::AutoReviewer,
        Some(_) | None => DecisionSource::Unknown,
    }
}

/// The endpoint of a request to the model API, without its query; `other` if it is not known.
pub fn endpoint(attrs: &Attrs<'_>) -> &'static str {
    // Older versions of Codex do not report the endpoint, and use this one only.
    let Some(text) = attrs.text(Attr::Endpoint) else {
        return "/responses";
    };
    let path = text.split('?').next().unwrap_or(text).trim_end_matches('/');
    known(ENDPOINTS, path).unwrap_or(OTHER)
}

/// The word for an error message: the one that ingest wrote beside the message, else the one that `of` finds
/// in it.
fn error_word(attrs: &Attrs<'_>, of: fn(&str) -> &'static str) -> Option<&'static str> {
    match attrs.text(Attr::TachoError) {
        Some(word) => Some(failure::known(word)).filter(|word| *word != failure::UNREADABLE),
        None => attrs.text(Attr::ErrorMessage).map(of),
    }
}

/// The kind of error of a request, by its status and error message; `None` for a success.
pub fn request_error(status: Option<u16>, attrs: &Attrs<'_>) -> Option<&'static str> {
    let word = error_word(attrs, failure::of_request);
    match status {
        Some(200..=399) if word.is_none() => None,
        Some(200..=399) => Some("other"),
        Some(status) => Some(error_of_status(status)),
        None => Some(if word == Some(failure::TIMEOUT) {
            "timeout"
        } else {
            "network"
        }),
    }
}

/// The kind of error of a request that was answered by a status that is no success.
pub const fn error_of_status(status: u16) -> &'static str {
    match status {
        401 | 403 => "auth",
        408 => "timeout",
        429 => "rate_limited",
        400..=499 => "bad_request",
        500..=599 => "server",
        _ => "other",
    }
}

/// The kind of failure of a response stream; `None` if there is no error message.
pub fn stream_error(attrs: &Attrs<'_>) -> Option<&'static str> {
    error_word(attrs, failure::of_stream)
}

/// The reasoning effort: a known one, `default` if none is reported, else `other`.
pub fn effort(text: &str) -> &'static str {
    if text.is_empty() {
        DEFAULT
    } else {
        known(EFFORTS, text)
            .filter(|effort| *effort != DEFAULT)
            .unwrap_or(OTHER)
    }
}

/// The service tier: a known one, `default` if none is reported, else `other`.
pub fn tier(text: &str) -> &'static str {
    match text {
        "" | "default" | "auto" | "standard" => "default",
        "priority" | "fast" => "priority",
        "flex" => "flex",
        _ => "other",
    }
}

/// Whether tokens are paid by a ChatGPT plan, in credits. An API key pays in dollars; a provider with a key
/// of its own reports no sign-in, and is assumed to do so too.
pub fn is_chatgpt(auth_mode: &str) -> bool {
    auth_mode
        .get(.."chatgpt".len())
        .is_some_and(|start| start.eq_ignore_ascii_case("chatgpt"))
}

/// The kind of client that started a session, by the names that the client gives itself.
pub fn entrypoint(service_name: &str, originator: &str) -> &'static str {
    match (originator, service_name) {
        ("codex_vscode", _) => "vscode",
        ("Codex Desktop" | "codex_desktop", _) | (_, "Codex Desktop") => "desktop",
        (_, "codex_exec") => "exec",
        (_, "codex_cli_rs") => "cli",
        (_, "codex-app-server" | "codex_app_server") => "app_server",
        (_, "codex_mcp_server" | "codex-mcp-server") => "mcp",
        ("codex_exec", _) => "exec",
        ("codex-tui" | "codex_cli_rs", _) => "cli",
        _ => "other",
    }
}
