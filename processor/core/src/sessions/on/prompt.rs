//! A turn's input.

use crate::out::Out;
use schemas::fact::Fact;
use schemas::state::SessionState;

/// Counts the turn. A request after it is no retry of one that failed before it.
pub fn user_prompt(session: &mut SessionState, out: &mut Out<'_>) {
    session.failed = false;
    session.counts.get_or_insert_default().user_prompts += 1;
    out.tell(&Fact::Turn);
}
