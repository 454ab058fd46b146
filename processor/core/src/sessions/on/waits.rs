//! What a session waits for by the partition clock, beside its own end: the end of a WebSocket request, of the window of a
//! prewarm, and a decision about responses that are held.

use super::{prewarm, transport};
use crate::out::Out;
use schemas::fact::WindowEnd;
use schemas::price::Prices;
use schemas::state::SessionState;
use schemas::time::{EventTime, PartitionClock};

/// When the first of the waits is over; `None` if the session waits for nothing.
pub fn due(session: &SessionState) -> Option<PartitionClock> {
    let at = [request_due(session), window_due(session), held_due(session)];
    at.into_iter().flatten().min()
}

/// Ends every wait that is over at `now`, which is the event time of what follows.
pub fn end(now: PartitionClock, prices: &Prices, session: &mut SessionState, out: &mut Out<'_>) {
    let is_over = |due: Option<PartitionClock>| due.is_some_and(|due| due <= now);
    while is_over(held_due(session)) {
        prewarm::decide_oldest(prices, session, out);
    }
    let now_time = EventTime(now.0.min(out.clock().0));
    out.move_to(now_time);
    if is_over(window_due(session)) {
        prewarm::end(WindowEnd::Timeout, now_time, session, out);
    }
    if is_over(request_due(session)) {
        transport::abandon(session, out);
    }
}

fn request_due(session: &SessionState) -> Option<PartitionClock> {
    let open = session.transport.as_ref()?.open.filter(|open| open.websocket)?;
    Some(PartitionClock(
        open.clock_ms.saturating_add(transport::ANSWER_WAIT_MS),
    ))
}

fn window_due(session: &SessionState) -> Option<PartitionClock> {
    let since = session.prewarm.as_ref()?.open_clock_ms?;
    Some(PartitionClock(since.saturating_add(prewarm::WINDOW_MS)))
}

fn held_due(session: &SessionState) -> Option<PartitionClock> {
    let oldest = session.prewarm.as_ref()?.held.first()?;
    Some(PartitionClock(oldest.clock_ms.saturating_add(prewarm::HOLD_MS)))
}
