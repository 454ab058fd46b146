//! What an error message says, in bounded words: ingest takes it out of the message (`tacho.error`) before a privacy policy
//! touches that, and the core, which reads the same of messages without it, derives from the word.

use crate::event::EventKind;

/// The word for a message that is no text.
pub const UNREADABLE: &str = "unreadable";
/// The word for a request that took too long.
pub const TIMEOUT: &str = "timeout";
/// The word for every other message.
pub const OTHER: &str = "other";

/// The words of failed response streams, but for [`OTHER`].
const OF_STREAMS: [&str; 7] = [
    "idle_timeout",
    "rate_limited",
    "context_window",
    "quota",
    "network",
    "disconnected",
    "server",
];

/// The word for the error message of an event; none for events whose message nothing is derived from.
#[must_use]
pub fn word(event: EventKind, message: Option<&str>) -> Option<&'static str> {
    match (event, message) {
        (EventKind::ApiRequest | EventKind::SseEvent, None) => Some(UNREADABLE),
        (EventKind::ApiRequest, Some(message)) => Some(of_request(message)),
        (EventKind::SseEvent, Some(message)) => Some(of_stream(message)),
        _ => None,
    }
}

/// The word that is written as that text; [`OTHER`] for every text that no build of this version writes.
#[must_use]
pub fn known(text: &str) -> &'static str {
    let words = OF_STREAMS.into_iter().chain([TIMEOUT, UNREADABLE]);
    words.into_iter().find(|word| *word == text).unwrap_or(OTHER)
}

/// The kind of failure of a request without a status.
#[must_use]
pub fn of_request(message: &str) -> &'static str {
    if message.contains("timeout") || message.contains("timed out") {
        TIMEOUT
    } else {
        OTHER
    }
}

/// The kind of failure of a response stream, by the words that Codex uses.
#[must_use]
pub fn of_stream(message: &str) -> &'static str {
    let has = |word: &str| message.contains(word);
    if has("idle timeout") {
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
