//! Measurements of whole turns: the time to the first token, and the price by Codex itself.

use super::{Event, add, duration_us};
use crate::out::Out;
use crate::sessions::cost::AMOUNT_MAX;
use schemas::event::Attr;
use schemas::fact::Fact;
use schemas::state::SessionState;

/// Counts the first token of a turn, and adds the time that it took.
pub fn first_token(event: Event<'_>, session: &mut SessionState, out: &mut Out<'_>) {
    let attrs = event.attrs;
    let Some(duration_us) = duration_us(attrs) else {
        return;
    };
    let counts = session.counts.get_or_insert_default();
    counts.ttft_count += 1;
    add(&mut counts.ttft_us, duration_us);
    out.emit(&Fact::FirstToken { duration_us });
}

/// Adds what Codex itself says that a turn cost; an amount above [`AMOUNT_MAX`] is ignored.
pub fn cost(event: Event<'_>, session: &mut SessionState, out: &mut Out<'_>) {
    let attrs = event.attrs;
    let estimate = attrs
        .billionths(Attr::UsageEstimatedUsd)
        .filter(|nano_usd| *nano_usd <= AMOUNT_MAX);
    let Some(nano_usd) = estimate else { return };
    let counts = session.counts.get_or_insert_default();
    add(&mut counts.native_cost_nano_usd, nano_usd);
    out.emit(&Fact::TurnCost {
        nano_usd,
        interrupted: attrs.flag(Attr::TurnInterrupted).unwrap_or(false),
    });
}
