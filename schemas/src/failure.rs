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

/// The words for requests over WebSocket that were answered by a status instead of a stream; over HTTP, the request's own
/// record has it.
pub const OF_REFUSALS: &[(&str, u16)] = &[("status_400", 400), ("status_429", 429), ("status_500", 500)];

/// The status that a word for a request over WebSocket stands for; `None` if the request was answered by a stream.
#[must_use]
pub fn refusal(word: &str) -> Option<u16> {
    let found = OF_REFUSALS.iter().find(|(refusal, _)| *refusal == word);
    found.map(|(_, status)| *status)
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
    if has("last status: 429") {
        "status_429"
    } else if has("experiencing high demand") {
        "status_500"
    } else if has("\"status\":400") || has("invalid_request_error") || has("connection limit reached") {
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
