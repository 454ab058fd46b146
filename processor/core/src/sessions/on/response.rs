//! Responses: completed ones with their tokens, and answers that broke.

use super::{Event, add, compaction, prewarm, transport};
use crate::out::Out;
use crate::sessions::classify;
use crate::sessions::cost::{self, Terms};
use schemas::event::Attr;
use schemas::fact::{Fact, Tokens};
use schemas::failure;
use schemas::metric::values::MISMATCHES;
use schemas::otlp::scan::Attrs;
use schemas::price::Prices;
use schemas::state::{HeldResponse, SessionState};
use schemas::time::{EventTime, PartitionClock};

/// Handles an event of a response stream: a record with token counts is a completed response, and any other
/// that derives reports an error.
pub fn sse_event(event: Event<'_>, session: &mut SessionState, out: &mut Out<'_>) {
    if event.attrs.get(Attr::InputTokenCount).is_none() {
        return broken(event, session, out);
    }
    let response = Response::of(event);
    if response.ends_prewarm() {
        prewarm::answered(response.time, session, out);
    }
    let version = &event.identity.app_version;
    let turns = prewarm::takes_response(response, version, event.prices, session, out);
    if let Some(response) = turns {
        used(&response, event.prices, session, out);
    }
}

/// Counts an answer that broke. Over HTTP it leaves two records: the error that the reader met, and `response.completed`,
/// which ends the response. The second one is counted. A request that was refused over WebSocket has no stream that broke.
fn broken(event: Event<'_>, session: &mut SessionState, out: &mut Out<'_>) {
    let Some(error) = classify::stream_error(event.attrs) else {
        return;
    };
    let ends = event.attrs.text(Attr::EventKindName) == Some("response.completed");
    if prewarm::takes_error(ends, session, out) {
        return;
    }
    session.failed = true;
    if !ends {
        return;
    }
    let state = session.transport.get_or_insert_default();
    if std::mem::take(&mut state.unsent) && state.open.is_none() {
        return;
    }
    if failure::refusal(error).is_none() {
        session.counts.get_or_insert_default().stream_failures += 1;
        out.emit(&Fact::StreamFailure { error });
    }
    let end = transport::End::of_word(error);
    transport::answered(end, event.record.made_us, None, session, out);
}

/// A completed response, with all that decides what it is and what it costs.
#[derive(Clone, Copy, Debug)]
pub struct Response<'r> {
    pub tokens: Tokens,
    pub mismatch: Option<&'static str>,
    pub model: &'r str,
    pub plan: bool,
    pub tier: &'static str,
    pub time: EventTime,
    pub made_us: i64,
    pub first_token_us: Option<u64>,
    /// Whether the response has none of the marks of an answer to a turn: output, a time to first token, an effort.
    pub may_be_prewarm: bool,
}

impl<'r> Response<'r> {
    /// The response of a record. Tier and sign-in are those of the record: a record without a tier has the default one,
    /// whichever tier the session used before.
    fn of(event: Event<'r>) -> Self {
        let text = |attr| event.attrs.text(attr).unwrap_or("");
        let (tokens, mismatch) = tokens(event.attrs);
        let has_effort = !text(Attr::ModelReasoningEffort).is_empty();
        let first_token_us = event.attrs.micros(Attr::TtftMs);
        Self {
            tokens,
            mismatch,
            model: &event.identity.model,
            plan: classify::is_chatgpt(text(Attr::AuthMode)),
            tier: classify::tier(text(Attr::ServiceTier)),
            time: event.record.time,
            made_us: event.record.made_us,
            first_token_us,
            may_be_prewarm: tokens.output() == 0 && first_token_us.is_none() && !has_effort,
        }
    }

    /// The response that was held.
    pub fn of_held(held: &'r HeldResponse) -> Self {
        let mismatch = usize::try_from(held.mismatch).unwrap_or(0);
        Self {
            tokens: Tokens {
                input_uncached: held.input_uncached,
                input_cached: held.input_cached,
                input_cache_write: held.input_cache_write,
                ..Tokens::default()
            },
            mismatch: mismatch.checked_sub(1).and_then(|at| MISMATCHES.get(at)).copied(),
            model: &held.model,
            plan: held.plan,
            tier: classify::tier(&held.tier),
            time: EventTime(held.time_ms),
            made_us: held.made_us,
            first_token_us: None,
            may_be_prewarm: true,
        }
    }

    /// The response, to be held in the state of the session. It has no output, since only such responses are held.
    pub fn held(&self, clock: PartitionClock) -> HeldResponse {
        let mismatch = self
            .mismatch
            .and_then(|found| MISMATCHES.iter().position(|known| *known == found));
        HeldResponse {
            time_ms: self.time.0,
            made_us: self.made_us,
            clock_ms: clock.0,
            input_uncached: self.tokens.input_uncached,
            input_cached: self.tokens.input_cached,
            input_cache_write: self.tokens.input_cache_write,
            mismatch: mismatch.and_then(|at| u32::try_from(at + 1).ok()).unwrap_or(0),
            model: self.model.to_owned(),
            plan: self.plan,
            tier: self.tier.to_owned(),
        }
    }

    /// The terms of the response's price.
    pub const fn terms<'t>(&self, prices: &'t Prices) -> Terms<'t>
    where
        'r: 't,
    {
        Terms {
            prices,
            model: self.model,
            plan: self.plan,
            tier: self.tier,
            time: self.time,
        }
    }

    /// Whether the response shows that a turn goes on: the prewarm is over.
    const fn ends_prewarm(&self) -> bool {
        self.tokens.output() > 0 && self.first_token_us.is_some()
    }
}

/// Counts a completed response of a turn, its tokens and their cost.
pub fn used(response: &Response<'_>, prices: &Prices, session: &mut SessionState, out: &mut Out<'_>) {
    let tokens = response.tokens;
    transport::settle(session);
    transport::answered(
        transport::End::COMPLETED,
        response.made_us,
        response.first_token_us,
        session,
        out,
    );
    let before = session.last_input_tokens.replace(tokens.input());
    let counts = session.counts.get_or_insert_default();
    counts.responses_completed += 1;
    add(&mut counts.input_uncached, tokens.input_uncached);
    add(&mut counts.input_cached, tokens.input_cached);
    add(&mut counts.input_cache_write, tokens.input_cache_write);
    add(&mut counts.output_visible, tokens.output_visible);
    add(&mut counts.output_reasoning, tokens.output_reasoning);
    out.emit(&Fact::Response {
        tokens,
        mismatch: response.mismatch,
    });
    cost::of_response(&tokens, &response.terms(prices), counts, out);
    compaction::infer(response.time, before, tokens.input(), session, out);
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
