//! WebSocket connections to the model API, and the requests that go over them.

use super::{Event, duration_us, prewarm, transport};
use crate::out::Out;
use schemas::event::Attr;
use schemas::fact::{ConnectPhase, Fact, RetryLayer};
use schemas::state::{OpenRequest, SessionState};

/// The status of a refused upgrade that sends Codex to HTTP at once, which is no failure.
const UPGRADE_REQUIRED: i64 = 426;

/// Counts an upgrade. One in a turn is the retry of a failure before it, and a failure itself if it is refused.
pub fn connect(event: Event<'_>, session: &mut SessionState, out: &mut Out<'_>) {
    let attrs = event.attrs;
    let accepted = attrs.flag(Attr::Success).unwrap_or(false);
    let status = attrs.int(Attr::StatusCode);
    let phase = if prewarm::is_open(session) {
        ConnectPhase::Prewarm
    } else {
        ConnectPhase::Turn
    };
    session.transport.get_or_insert_default().had_websocket = true;
    let counts = session.counts.get_or_insert_default();
    let counts = counts.websocket.get_or_insert_default();
    counts.connects += 1;
    counts.refused += u64::from(!accepted);
    counts.refused_in_turns += u64::from(!accepted && phase == ConnectPhase::Turn);
    out.emit(&Fact::Connect {
        accepted,
        status: status.and_then(|status| u16::try_from(status).ok()),
        phase,
        duration_us: duration_us(attrs),
    });
    if phase == ConnectPhase::Prewarm {
        return;
    }
    if session.failed {
        transport::retried(RetryLayer::Websocket, transport::ENDPOINT, session, out);
        session.transport.get_or_insert_default().retrying = true;
    }
    session.failed = !accepted && status != Some(UPGRADE_REQUIRED);
}

/// Counts a request of a turn, which is open until its answer ends, or the request of a prewarm.
pub fn request(event: Event<'_>, session: &mut SessionState, out: &mut Out<'_>) {
    let attrs = event.attrs;
    let is_sent = attrs.flag(Attr::Success).unwrap_or(false);
    session.transport.get_or_insert_default().had_websocket = true;
    if prewarm::takes_request(event.record.time, is_sent, session, out) {
        return;
    }
    transport::abandon(session, out);
    let is_retry = session.failed;
    if is_retry {
        transport::retried(RetryLayer::Websocket, transport::ENDPOINT, session, out);
    }
    let state = session.transport.get_or_insert_default();
    let continues = std::mem::take(&mut state.retrying);
    state.unsent = !is_sent;
    if !is_sent {
        session.failed = true;
        return;
    }
    state.open = Some(OpenRequest {
        websocket: true,
        sent_us: event.record.made_us,
        clock_ms: out.clock().0,
        retry: is_retry || continues,
    });
    let reused = attrs.flag(Attr::ConnectionReused).unwrap_or(false);
    let counts = session.counts.get_or_insert_default();
    counts.api_requests += 1;
    let counts = counts.websocket.get_or_insert_default();
    counts.requests += 1;
    counts.reused += u64::from(reused);
    out.emit(&Fact::Sent { reused });
}
