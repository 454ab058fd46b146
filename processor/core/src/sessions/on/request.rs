//! HTTP requests to the model API.

use super::{Event, add, compaction, duration_us, transport};
use crate::out::Out;
use crate::sessions::classify;
use schemas::event::Attr;
use schemas::fact::{AnswerEnd, Fact, RetryLayer, Transport};
use schemas::state::{OpenRequest, SessionState};

/// Counts an HTTP attempt, and decides whether it failed and whether it was a retry.
pub fn api_request(event: Event<'_>, session: &mut SessionState, out: &mut Out<'_>) {
    let attrs = event.attrs;
    let endpoint = classify::endpoint(attrs);
    let status = attrs
        .int(Attr::StatusCode)
        .and_then(|status| u16::try_from(status).ok());
    let error = classify::request_error(status, attrs);
    let of_turn = endpoint.starts_with(transport::ENDPOINT);
    let mut layer = attrs
        .int(Attr::Attempt)
        .is_some_and(|attempt| attempt > 0)
        .then_some(RetryLayer::Http);
    let mut continues = false;
    if of_turn {
        fall_back(session, out);
        transport::abandon(session, out);
        // A new request of the stream layer begins with `attempt` 0 again.
        layer = layer.or(session.failed.then_some(RetryLayer::Stream));
        // After a last refused upgrade, the attempt that the upgrade began goes on over HTTP.
        continues = session
            .transport
            .as_ref()
            .is_some_and(|transport| transport.retrying);
        transport::settle(session);
    }
    let duration_us = duration_us(attrs);
    let counts = session.counts.get_or_insert_default();
    counts.api_requests += 1;
    counts.api_errors += u64::from(error.is_some());
    add(&mut counts.api_duration_us, duration_us.unwrap_or(0));
    if let Some(layer) = layer {
        transport::retried(layer, endpoint, session, out);
    }
    out.emit(&Fact::Request {
        transport: Transport::Http,
        endpoint,
        status,
        error,
        retry: layer.is_some() || continues,
        duration_us,
    });
    if of_turn {
        sent(event, endpoint, error.is_some(), duration_us, session, out);
    }
}

/// Follows a request of a turn that was refused, or whose answer begins.
fn sent(
    event: Event<'_>,
    endpoint: &'static str,
    failed: bool,
    duration_us: Option<u64>,
    session: &mut SessionState,
    out: &mut Out<'_>,
) {
    if failed {
        session.failed = true;
        session.counts.get_or_insert_default().requests_failed += 1;
        out.emit(&Fact::Answer {
            transport: Transport::Http,
            end: AnswerEnd::Failed,
            duration_us,
            first_token_us: None,
        });
    } else if endpoint == compaction::ENDPOINT {
        compaction::requested(event.record.time, session, out);
    } else if endpoint == transport::ENDPOINT {
        let to_headers_us = i64::try_from(duration_us.unwrap_or(0)).unwrap_or(i64::MAX);
        session.transport.get_or_insert_default().open = Some(OpenRequest {
            websocket: false,
            sent_us: event.record.made_us.saturating_sub(to_headers_us),
            clock_ms: out.clock().0,
            retry: false,
        });
    }
}

/// Counts a fallback: the first request over HTTP of a conversation that used WebSocket.
fn fall_back(session: &mut SessionState, out: &mut Out<'_>) {
    let Some(transport) = session.transport.as_mut().filter(|state| state.had_websocket) else {
        return;
    };
    if !std::mem::replace(&mut transport.fell_back, true) {
        let counts = session.counts.get_or_insert_default();
        counts.websocket.get_or_insert_default().fallbacks += 1;
        out.emit(&Fact::Fallback);
    }
}
