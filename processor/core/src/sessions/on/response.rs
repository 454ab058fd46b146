//! Response streams: completed responses with their tokens, and streams that broke.

use super::{Event, add, compaction};
use crate::out::Out;
use crate::sessions::classify;
use crate::sessions::cost::{self, Terms};
use schemas::event::Attr;
use schemas::fact::{Fact, Tokens};
use schemas::otlp::scan::Attrs;
use schemas::state::SessionState;

/// Handles an event of a response stream: a record with token counts is a completed response, and any other
/// that derives reports an error.
pub fn sse_event(event: Event<'_>, session: &mut SessionState, out: &mut Out<'_>) {
    if event.attrs.get(Attr::InputTokenCount).is_some() {
        completed(event, session, out);
    } else {
        broken(event.attrs, session, out);
    }
}

/// Counts a broken stream. It leaves two records: the error that the reader met, and `response.completed`,
/// which ends the response. The second one is counted.
fn broken(attrs: &Attrs<'_>, session: &mut SessionState, out: &mut Out<'_>) {
    let Some(error) = classify::stream_error(attrs) else {
        return;
    };
    session.failed = true;
    if attrs.text(Attr::EventKindName) == Some("response.completed") {
        session.counts.get_or_insert_default().stream_failures += 1;
        out.emit(&Fact::StreamFailure { error });
    }
}

fn completed(event: Event<'_>, session: &mut SessionState, out: &mut Out<'_>) {
    let (tokens, mismatch) = tokens(event.attrs);
    session.failed = false;
    let before = session.last_input_tokens.replace(tokens.input());
    let counts = session.counts.get_or_insert_default();
    counts.responses_completed += 1;
    add(&mut counts.input_uncached, tokens.input_uncached);
    add(&mut counts.input_cached, tokens.input_cached);
    add(&mut counts.input_cache_write, tokens.input_cache_write);
    add(&mut counts.output_visible, tokens.output_visible);
    add(&mut counts.output_reasoning, tokens.output_reasoning);
    out.emit(&Fact::Response { tokens, mismatch });
    cost::of_response(&tokens, &terms(event), counts, out);
    compaction::infer(event.record.time, before, tokens.input(), session, out);
}

/// Divides the token counts of a completed response into disjoint kinds. Counts that contradict each other
/// are clamped, and the contradiction is given too.
///
/// Cached and cache-write tokens are part of the input tokens, reasoning tokens are part of the output
/// tokens, and `tool_token_count` is the sum of input and output, which makes it a checksum.
fn tokens(attrs: &Attrs<'_>) -> (Tokens, Option<&'static str>) {
    let count = |attr| attrs.count(attr).unwrap_or(0);
    let (input, output) = (count(Attr::InputTokenCount), count(Attr::OutputTokenCount));
    let cached = count(Attr::CachedTokenCount).min(input);
    let cache_write = count(Attr::CacheWriteTokenCount).min(input - cached);
    let reasoning = count(Attr::ReasoningTokenCount).min(output);
    let claimed = count(Attr::CachedTokenCount).saturating_add(count(Attr::CacheWriteTokenCount));
    let differs = |total| total != input.saturating_add(output);
    let mismatch = if claimed > input {
        Some("cached_gt_input")
    } else if count(Attr::ReasoningTokenCount) > output {
        Some("reasoning_gt_output")
    } else if attrs.count(Attr::ToolTokenCount).is_some_and(differs) {
        Some("total_ne_sum")
    } else {
        None
    };
    let tokens = Tokens {
        input_uncached: input - cached - cache_write,
        input_cached: cached,
        input_cache_write: cache_write,
        output_visible: output - reasoning,
        output_reasoning: reasoning,
    };
    (tokens, mismatch)
}

/// The terms of a response's price. Tier and sign-in are those of the record: a record without a tier has the
/// default one, whichever tier the session used before.
fn terms(event: Event<'_>) -> Terms<'_> {
    let text = |attr| event.attrs.text(attr).unwrap_or("");
    Terms {
        prices: event.prices,
        model: &event.identity.model,
        plan: classify::is_chatgpt(text(Attr::AuthMode)),
        tier: classify::tier(text(Attr::ServiceTier)),
        time: event.record.time,
    }
}
