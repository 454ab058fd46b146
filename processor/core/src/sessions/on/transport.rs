//! Requests of turns from their sending to their end, over either transport, and the retries between them.
//!
//! A failure sets a mark ([`SessionState::failed`]): a request that failed or was not sent, an answer that broke, an upgrade
//! that was refused, but for a refusal that sends Codex to HTTP. The next upgrade or request counts one retry and takes the
//! mark away; a completed response and a prompt take it away without counting. An upgrade and its request are one attempt.
//!
//! An HTTP request is counted by its own record, which has its status. A WebSocket request has none, so it is counted once
//! its end is known: the completed response or the error of its answer, the next request or prompt, or [`ANSWER_WAIT_MS`]
//! without any of them.

use crate::out::Out;
use crate::sessions::classify;
use schemas::fact::{AnswerEnd, Fact, RetryLayer, Transport};
use schemas::failure;
use schemas::state::{OpenRequest, SessionState};

/// The endpoint at which turns ask.
pub const ENDPOINT: &str = "/responses";

/// How long a WebSocket request waits for its end, by the partition clock, ms: as long as Codex itself waits for a stream
/// that is silent.
pub const ANSWER_WAIT_MS: i64 = 300_000;

/// The end of a request: the status and the kind of error that its answer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub status: Option<u16>,
    pub error: Option<&'static str>,
}

impl End {
    /// The end of a request whose answer is whole.
    pub const COMPLETED: Self = Self {
        status: Some(200),
        error: None,
    };
    /// The end of a request that was answered by nothing.
    const NONE: Self = Self {
        status: None,
        error: None,
    };

    /// The end of a WebSocket request by the word for its error message: no record has the status of its answer.
    pub fn of_word(word: &'static str) -> Self {
        let (status, error) = match (failure::refusal(word), word) {
            (Some(status), _) => (Some(status), classify::error_of_status(status)),
            (None, "rate_limited") => (Some(429), "rate_limited"),
            (None, "server") => (Some(500), "server"),
            (None, "idle_timeout" | failure::TIMEOUT) => (None, "timeout"),
            (None, "network" | "disconnected") => (None, "network"),
            (None, _) => (None, "other"),
        };
        Self {
            status,
            error: Some(error),
        }
    }
}

/// Counts a retry by a layer, and takes the mark of the failure away.
pub fn retried(layer: RetryLayer, endpoint: &'static str, session: &mut SessionState, out: &mut Out<'_>) {
    session.failed = false;
    let counts = session.counts.get_or_insert_default();
    match layer {
        RetryLayer::Http => counts.api_retries_http += 1,
        RetryLayer::Stream => counts.api_retries_stream += 1,
        RetryLayer::Websocket => counts.api_retries_websocket += 1,
    }
    out.emit(&Fact::Retry { endpoint, layer });
}

/// Forgets the failures before a prompt or a completed response: what comes next is no retry.
pub fn settle(session: &mut SessionState) {
    session.failed = false;
    if let Some(transport) = &mut session.transport {
        transport.retrying = false;
        transport.unsent = false;
    }
}

/// Ends the open request as one that has no answer.
pub fn abandon(session: &mut SessionState, out: &mut Out<'_>) {
    let open = session.transport.as_mut().and_then(|state| state.open.take());
    if let Some(open) = open.filter(|open| open.websocket) {
        count(open, End::NONE, out);
    }
}

/// Counts an answer to a request of a turn that ended at `made_us`, and ends the request with it. Says whether a request was
/// open.
pub fn answered(
    end: End,
    made_us: i64,
    first_token_us: Option<u64>,
    session: &mut SessionState,
    out: &mut Out<'_>,
) -> bool {
    let transport = transport_of(session);
    let state = session.transport.get_or_insert_default();
    // An answer that was made before the request was sent is that of an earlier one.
    let open = state.open.take_if(|open| open.sent_us <= made_us);
    let duration_us = open.and_then(|open| u64::try_from(made_us.saturating_sub(open.sent_us)).ok());
    if let Some(open) = open.filter(|open| open.websocket) {
        count(open, end, out);
    }
    let failed = end.error.is_some();
    let counts = session.counts.get_or_insert_default();
    if failed && open.is_some() {
        counts.requests_failed += 1;
        counts.api_errors += u64::from(transport == Transport::Websocket);
    } else if !failed {
        super::add(&mut counts.answer_us, duration_us.unwrap_or(0));
    }
    if open.is_some() || !failed {
        out.emit(&Fact::Answer {
            transport,
            end: if failed {
                AnswerEnd::Failed
            } else {
                AnswerEnd::Completed
            },
            duration_us,
            first_token_us,
        });
    }
    open.is_some()
}

/// The transport of the open request, else the one that the conversation uses.
fn transport_of(session: &SessionState) -> Transport {
    let is_websocket = session.transport.as_ref().is_some_and(|state| {
        let used = state.had_websocket && !state.fell_back;
        state.open.map_or(used, |open| open.websocket)
    });
    if is_websocket {
        Transport::Websocket
    } else {
        Transport::Http
    }
}

/// Counts a WebSocket request that has its end.
fn count(open: OpenRequest, end: End, out: &mut Out<'_>) {
    out.emit(&Fact::Request {
        transport: Transport::Websocket,
        endpoint: ENDPOINT,
        status: end.status,
        error: end.error,
        retry: open.retry,
        duration_us: None,
    });
}
