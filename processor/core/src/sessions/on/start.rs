//! Starts and resumptions of conversations.

use super::Event;
use crate::out::Out;
use schemas::event::Attr;
use schemas::state::SessionState;

/// Counts a start, and keeps the limits of the context, by which compactions are inferred.
pub fn conversation_starts(event: Event<'_>, session: &mut SessionState, _: &mut Out<'_>) {
    let attrs = event.attrs;
    session.counts.get_or_insert_default().conversation_starts += 1;
    session.context_window = attrs.count(Attr::ContextWindow).or(session.context_window);
    session.compact_limit = attrs.count(Attr::AutoCompactTokenLimit).or(session.compact_limit);
}
