//! The prompts that begin turns.

use super::{Event, prewarm, transport};
use crate::out::Out;
use schemas::fact::Fact;
use schemas::state::SessionState;

/// Counts a turn. A request after the prompt is no retry of one that failed before it, and one that is still open was
/// interrupted, unless it may be that of a prewarm, during which people may write.
pub fn user_prompt(event: Event<'_>, session: &mut SessionState, out: &mut Out<'_>) {
    transport::settle(session);
    if !prewarm::is_due_by_sign(&event.identity.app_version, session) {
        transport::abandon(session, out);
    }
    session.counts.get_or_insert_default().user_prompts += 1;
    out.emit(&Fact::Turn);
}
