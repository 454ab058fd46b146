//! Error words: what an error message says, as one word of a bounded set.
//!
//! Ingest writes the word beside a message (`tacho.error`) before a privacy policy touches the message, and
//! derivation reads that word. Where there is none, it finds the word in the message by the same functions.

use crate::event::EventKind;

/// The word for a message that is not a string.
pub const UNREADABLE: &str = "unreadable";
/// The word for a request that took too long.
pub const TIMEOUT: &str = "timeout";
/// The word for every other message.
pub const OTHER: &str = "other";

/// The words for failed response streams. No stream's message leads to [`TIMEOUT`], but ingest may have written the word
/// of another event beside it.
pub const OF_STREAMS: &[&str] = &[
    "idle_timeout",
    "rate_limited",
    "context_window",
    "quota",
    "network",
    "disconnected",
    "server",
    TIMEOUT,
    OTHER,
];

/// The words for requests over WebSocket that were answered by a status instead of a stream, each with the status; over HTTP,
/// the request's own record has it. The last two stand for all other statuses of their class.
pub const OF_REFUSALS: &[(&str, u16)] = &[
    ("status_400", 400),
    ("status_401", 401),
    ("status_402", 402),
    ("status_403", 403),
    ("status_404", 404),
    ("status_408", 408),
    ("status_409", 409),
    ("status_413", 413),
    ("status_422", 422),
    ("status_429", 429),
    ("status_500", 500),
    ("status_502", 502),
    ("status_503", 503),
    ("status_504", 504),
    ("status_529", 529),
    ("status_4xx", 499),
    ("status_5xx", 599),
];

/// The status that a word for a request over WebSocket stands for; `None` if the request was answered by a stream.
#[must_use]
pub fn refusal(word: &str) -> Option<u16> {
    let found = OF_REFUSALS.iter().find(|(refusal, _)| *refusal == word);
    found.map(|(_, status)| *status)
}

/// The word for a request over WebSocket that was answered by an error status.
fn word_of_status(status: u16) -> Option<&'static str> {
    let known = OF_REFUSALS.iter().find(|(_, known)| *known == status);
    match (known, status) {
        (Some((word, _)), _) => Some(word),
        (None, 400..=499) => Some("status_4xx"),
        (None, 500..=599) => Some("status_5xx"),
        (None, _) => None,
    }
}

/// The status in an error message, where the message tells one: as Codex words it, or as a member of the JSON that the server
/// sent.
fn status_in(message: &str) -> Option<u16> {
    let after = |mark: &str| message.split_once(mark).map(|(_, rest)| rest.trim_start());
    let in_json = || after("\"status\"")?.strip_prefix(':').map(str::trim_start);
    let text = after("unexpected status ")
        .or_else(|| after("last status: "))
        .or_else(in_json)?;
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    text[..digits].parse().ok()
}

/// The word for the error message of an event; `message` is `None` if it is not a string. Gives `None` for
/// events from whose messages nothing is derived.
#[must_use]
pub fn word(event: EventKind, message: Option<&str>) -> Option<&'static str> {
    match event {
        EventKind::ApiRequest => Some(message.map_or(UNREADABLE, of_request)),
        EventKind::SseEvent => Some(message.map_or(UNREADABLE, of_stream)),
        EventKind::ConversationStarts
        | EventKind::StartupPhase
        | EventKind::UserPrompt
        | EventKind::TurnTtft
        | EventKind::ToolDecision
        | EventKind::ToolResult
        | EventKind::SandboxOutcome
        | EventKind::AgentCommunication
        | EventKind::AgentResponse
        | EventKind::GuardianAssessment
        | EventKind::SkillInvocation
        | EventKind::TurnCost
        | EventKind::AuthRecovery
        | EventKind::WebsocketConnect
        | EventKind::WebsocketRequest
        | EventKind::PluginInstallElicitationSent
        | EventKind::PluginInstallSuggestion
        | EventKind::NetworkPolicyDecision
        | EventKind::Unknown => None,
    }
}

/// The word that is written as `text`; [`OTHER`] for a text that is none of this version's words.
#[must_use]
pub fn known(text: &str) -> &'static str {
    let refusals = OF_REFUSALS.iter().map(|(word, _)| *word);
    let mut words = OF_STREAMS.iter().copied().chain(refusals).chain([UNREADABLE]);
    words.find(|word| *word == text).unwrap_or(OTHER)
}

/// The word for the error message of a request: it says whether a request without a status timed out.
#[must_use]
pub fn of_request(message: &str) -> &'static str {
    if message.contains("timeout") || message.contains("timed out") {
        TIMEOUT
    } else {
        OTHER
    }
}

/// The word for the error message of a response stream, or of a request that was refused over WebSocket, by phrases that Codex
/// uses. It shows a refusal that it does not know whole, as JSON.
#[must_use]
pub fn of_stream(message: &str) -> &'static str {
    let has = |word: &str| message.contains(word);
    if let Some(word) = status_in(message).and_then(word_of_status) {
        word
    } else if has("experiencing high demand") {
        "status_500"
    } else if has("invalid_request_error") || has("connection limit reached") {
        "status_400"
    } else if has("idle timeout") {
        "idle_timeout"
    } else if has("ate limit") || has("rate_limit") || has("429") {
        "rate_limited"
    } else if has("context window") || has("context_length") {
        "context_window"
    } else if has("quota") || has("usage limit") {
        "quota"
    } else if has("network error") || has("Transport error") || has("connection") {
        "network"
    } else if has("disconnected") {
        "disconnected"
    } else if has("server_error") || has("overloaded") || has("http 5") {
        "server"
    } else {
        OTHER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_in_a_message_comes_before_words_of_the_server() {
        for (message, word) in [
            (
                "exceeded retry limit, last status: 429 Too Many Requests",
                "status_429",
            ),
            (
                "unexpected status 503 Service Unavailable: idle timeout, connection lost",
                "status_503",
            ),
            (
                "unexpected status 529 <unknown status code>: overloaded",
                "status_529",
            ),
            ("unexpected status 418 I'm a teapot: quota", "status_4xx"),
            ("unexpected status 599", "status_5xx"),
            (r#"{"type": "error", "status": 400, "error": {}}"#, "status_400"),
            (r#"{"status":404}"#, "status_404"),
            (r#"{"status":"failed"}"#, OTHER),
            (r#"{"status":99999999}"#, OTHER),
            ("unexpected status 200 OK", OTHER),
            ("unexpected status ", OTHER),
        ] {
            assert_eq!(of_stream(message), word, "{message}");
        }
    }

    #[test]
    fn every_word_leads_back_to_itself() {
        for message in [
            "idle timeout",
            "429",
            "context window",
            "quota",
            "connection",
            "disconnected",
            "overloaded",
            "exceeded retry limit, last status: 429 Too Many Requests",
            "We’re currently experiencing high demand, which may cause temporary errors.",
            r#"{"type":"error","status":400}"#,
            "unexpected status 418 I'm a teapot",
            "x",
        ] {
            assert_eq!(known(of_stream(message)), of_stream(message), "{message}");
        }
        for message in ["it timed out", "timeout", "refused"] {
            assert_eq!(known(of_request(message)), of_request(message), "{message}");
        }
        assert_eq!(
            (known(UNREADABLE), known("a text of a client")),
            (UNREADABLE, OTHER)
        );
        assert_eq!(word(EventKind::ToolResult, Some("timeout")), None);
        assert_eq!(word(EventKind::SseEvent, None), Some(UNREADABLE));
    }
}
