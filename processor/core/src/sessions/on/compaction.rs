//! Compactions of the context: requested at an endpoint, or inferred from a fall of the input tokens.

use crate::out::Out;
use schemas::fact::{CompactionMethod, Fact};
use schemas::state::SessionState;
use schemas::time::EventTime;

/// The endpoint at which Codex requests a compaction.
pub const ENDPOINT: &str = "/responses/compact";

/// How long after a request to the endpoint an inferred compaction is taken for the requested one, ms.
const SAME_COMPACTION_MS: i64 = 60_000;

/// Counts a compaction that was requested at the endpoint. The first shorter response after it tells what it gave back.
pub fn requested(at: EventTime, session: &mut SessionState, out: &mut Out<'_>) {
    session.compacted_ms = Some(at.0);
    session.compacted_from = session.last_input_tokens;
    session.counts.get_or_insert_default().compactions += 1;
    out.emit(&Fact::Compaction {
        method: CompactionMethod::Endpoint,
    });
}

/// Counts a compaction if a response has at most half of the input tokens of the one before, which had at
/// least 60 % of the limit of the context, unless one was requested within a minute before. Tells what the compaction gave
/// back.
pub fn infer(at: EventTime, before: Option<u64>, input: u64, session: &mut SessionState, out: &mut Out<'_>) {
    let is_requested = session
        .compacted_ms
        .is_some_and(|seen| (0..=SAME_COMPACTION_MS).contains(&at.0.saturating_sub(seen)));
    let limit = session.compact_limit.or(session.context_window);
    let fall = before
        .zip(limit)
        .and_then(|(before, limit)| fall(before, input, limit))
        .filter(|_| !is_requested);
    if let Some(tokens) = fall {
        session.compacted_from = None;
        session.counts.get_or_insert_default().compactions += 1;
        out.emit(&Fact::Compaction {
            method: CompactionMethod::Inferred,
        });
        out.emit(&Fact::Reclaimed { tokens });
    } else if let Some(from) = session.compacted_from.take_if(|from| input < *from) {
        // An answer that is as long as before was under way; a shorter one has the compacted context.
        out.emit(&Fact::Reclaimed { tokens: from - input });
    }
}

/// By how much the input tokens fell, if only a compaction can make them fall so.
fn fall(before: u64, input: u64, limit: u64) -> Option<u64> {
    let is_half = input.saturating_mul(2) <= before;
    let was_full = before.saturating_mul(10) >= limit.saturating_mul(6);
    (is_half && was_full).then(|| before - input)
}
