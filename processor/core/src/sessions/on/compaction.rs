//! Compactions of the context: asked for at their endpoint, or inferred from input tokens that fell.

use crate::out::Out;
use schemas::fact::{CompactionMethod, Fact};
use schemas::state::SessionState;
use schemas::time::EventTime;

/// The endpoint that compacts.
pub const ENDPOINT: &str = "/responses/compact";

/// An inferred compaction this soon after one seen by its endpoint is the same one, ms.
const SAME_COMPACTION_MS: i64 = 60_000;

/// A request at the endpoint succeeded.
pub fn requested(at: EventTime, session: &mut SessionState, out: &mut Out<'_>) {
    session.compacted_ms = Some(at.0);
    session.counts.get_or_insert_default().compactions += 1;
    out.tell(&Fact::Compaction {
        method: CompactionMethod::Endpoint,
        reclaimed: None,
    });
}

/// Takes a compaction for given where a response has at most half of the input tokens of the one before, which came near
/// the limit of the context.
pub fn infer(at: EventTime, before: Option<u64>, input: u64, session: &mut SessionState, out: &mut Out<'_>) {
    let limit = session.compact_limit.or(session.context_window);
    let (Some(before), Some(limit)) = (before, limit) else {
        return;
    };
    let fell = input.saturating_mul(2) <= before && before.saturating_mul(10) >= limit.saturating_mul(6);
    let seen = session
        .compacted_ms
        .take()
        .is_some_and(|seen| at.0.saturating_sub(seen) <= SAME_COMPACTION_MS);
    if fell && !seen {
        session.counts.get_or_insert_default().compactions += 1;
        out.tell(&Fact::Compaction {
            method: CompactionMethod::Inferred,
            reclaimed: Some(before - input),
        });
    }
}
