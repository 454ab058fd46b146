//! Starts and resumptions of conversations.

use super::{Event, prewarm};
use crate::out::Out;
use schemas::event::Attr;
use schemas::state::SessionState;

/// Counts a start, and keeps the limits of the context, by which compactions are inferred. A process that starts has its own
/// connections and its own prewarm.
pub fn conversation_starts(event: Event<'_>, session: &mut SessionState, out: &mut Out<'_>) {
    let attrs = event.attrs;
    session.counts.get_or_insert_default().conversation_starts += 1;
    session.context_window = attrs.count(Attr::ContextWindow).or(session.context_window);
    session.compact_limit = attrs.count(Attr::AutoCompactTokenLimit).or(session.compact_limit);
    prewarm::restart(event.record.time, session, out);
    if let Some(transport) = &mut session.transport {
        transport.had_websocket = false;
        transport.fell_back = false;
    }
}
