//! Prewarms: what a process asks the model API before the first turn of a conversation that it starts or resumes. It is no
//! use, and counted apart.
//!
//! **Window.** The phases `startup_prewarm_create_turn_context`, `_build_tools` and `_build_prompt` begin it. It ends with
//! `startup_prewarm_total`, unless another process shares it, or `_resolve`, with the answer to a request of a turn (output
//! tokens and a time to first token), with another start of the conversation, or [`WINDOW_MS`] after it began by the
//! partition clock.
//!
//! **Debts.** Each prewarm has one request and at most one response, so a window takes one of each, and everything else in
//! it is of a turn: nothing is lost where two processes resume one conversation at once. A response that has output, a time
//! to first token or an effort is never a prewarm's. One that has none of them is a prewarm's where a window within
//! [`NEAR_MS`] of its event time lacks a response; prewarms are over WebSocket only, so the answer to an HTTP request is
//! none. Where no window was seen since the conversation last started, it is held for [`HOLD_MS`], in case records came out
//! of order. A window that takes a request too many, or an answer to a turn without any sign where the prewarm's own never
//! came, is what is left of doubt: logs can't tell it.
//!
//! **Sign.** Versions of Codex before [`PHASES_SINCE`] log no phases. There such a response of a conversation that uses
//! WebSocket is a prewarm's, once for each start.

use super::response::{Response, used};
use crate::out::Out;
use crate::sessions::cost;
use schemas::event::{Attr, PREWARM_PHASES};
use schemas::fact::{AnswerEnd, Fact, PrewarmBasis, Tokens, WindowEnd};
use schemas::price::Prices;
use schemas::state::{PrewarmState, SessionState};
use schemas::time::EventTime;

/// How long a window is at most, by the partition clock, ms.
pub const WINDOW_MS: i64 = 60_000;
/// How far the event time of a response may be from a window that lacks one, ms.
const NEAR_MS: i64 = 30_000;
/// How long a response is held that may be a prewarm's, by the partition clock, ms: less than the grace of windows, so that
/// it is in time wherever it goes.
pub const HOLD_MS: i64 = 20_000;
/// The most responses that a conversation holds; of more, the oldest is decided about at once.
const HELD_MAX: usize = 4;
/// The most prewarms that a conversation waits for.
const DUE_MAX: u32 = 8;
/// The first version of Codex, as major and minor, that is known to log the phases of prewarms.
const PHASES_SINCE: (u32, u32) = (0, 142);

/// Whether a window is open.
pub fn is_open(session: &SessionState) -> bool {
    let prewarm = session.prewarm.as_ref();
    prewarm.is_some_and(|prewarm| prewarm.open_clock_ms.is_some())
}

/// Begins or ends the window by a phase of the prewarm.
pub fn startup_phase(event: super::Event<'_>, session: &mut SessionState, out: &mut Out<'_>) {
    let phase = event.attrs.text(Attr::StartupPhase).unwrap_or("");
    match phase.strip_prefix(PREWARM_PHASES) {
        Some("create_turn_context") => begin(event, true, session, out),
        Some("build_tools" | "build_prompt") => begin(event, false, session, out),
        Some("total") => total(event, session, out),
        Some("resolve") => resolve(event.record.time, session, out),
        Some(_) | None => {}
    }
}

/// Begins a window, or goes on with the one that is open. `is_first` is whether the phase is the first one of a prewarm: two
/// of them are two prewarms.
fn begin(event: super::Event<'_>, is_first: bool, session: &mut SessionState, out: &mut Out<'_>) {
    let time = event.record.time;
    let prewarm = session.prewarm.get_or_insert_default();
    prewarm.has_phases = true;
    let goes_on = prewarm.open_clock_ms.is_some();
    let is_known = if is_first {
        std::mem::take(&mut prewarm.lacks_first) && (goes_on || is_near(prewarm, time))
    } else {
        prewarm.seen && (goes_on || is_near(prewarm, time))
    };
    if is_known {
        prewarm.until_ms = prewarm.until_ms.max(time.0);
        return;
    }
    prewarm.lacks_first = !is_first;
    if !is_near(prewarm, time) {
        prewarm.resolves_due = 0;
    }
    prewarm.requests_due = (prewarm.requests_due + 1).min(DUE_MAX);
    prewarm.tokens_due = (prewarm.tokens_due + 1).min(DUE_MAX);
    prewarm.seen = true;
    prewarm.is_shared = goes_on || (prewarm.ended_by_start && is_near(prewarm, time));
    prewarm.open_clock_ms = Some(out.clock().0);
    if goes_on {
        prewarm.from_ms = prewarm.from_ms.min(time.0);
        prewarm.until_ms = prewarm.until_ms.max(time.0);
    } else {
        (prewarm.from_ms, prewarm.until_ms) = (time.0, time.0);
    }
    claim_held(event.prices, session, out);
}

/// Ends the window by the last phase of its prewarm. One that failed asked for nothing more. Where two prewarms share the
/// window and a request is still due, the other process may be about to send it: the window stays open for its phases.
fn total(event: super::Event<'_>, session: &mut SessionState, out: &mut Out<'_>) {
    let Some(prewarm) = &mut session.prewarm else {
        return;
    };
    if event.attrs.text(Attr::StartupStatus) == Some("failed") && prewarm.unanswered == 0 {
        prewarm.requests_due = prewarm.requests_due.saturating_sub(1);
        prewarm.tokens_due = prewarm.tokens_due.saturating_sub(1);
    }
    if !std::mem::take(&mut prewarm.is_shared) || prewarm.requests_due == 0 {
        prewarm.resolves_due = (prewarm.resolves_due + 1).min(DUE_MAX);
        end(WindowEnd::Total, event.record.time, session, out);
    }
}

/// Ends the window by the use of its result, unless that is the result of a prewarm whose last phase was seen.
fn resolve(time: EventTime, session: &mut SessionState, out: &mut Out<'_>) {
    let Some(prewarm) = &mut session.prewarm else {
        return;
    };
    if prewarm.resolves_due > 0 {
        prewarm.resolves_due -= 1;
    } else {
        end(WindowEnd::Resolve, time, session, out);
    }
}

/// Ends the window, if it is open.
pub(super) fn end(by: WindowEnd, time: EventTime, session: &mut SessionState, out: &mut Out<'_>) {
    let Some(prewarm) = &mut session.prewarm else {
        return;
    };
    if prewarm.open_clock_ms.take().is_some() {
        prewarm.until_ms = prewarm.until_ms.max(time.0);
        prewarm.ended_by_start = by == WindowEnd::Start;
        out.emit(&Fact::PrewarmWindow { end: by });
    }
}

/// Ends the window by an answer to a request of a turn: the prewarm is over. An answer to a request that was sent before the
/// window began is that of another process, and tells nothing.
pub fn answered(time: EventTime, session: &mut SessionState, out: &mut Out<'_>) {
    let open = session.transport.as_ref().and_then(|state| state.open);
    let from_us = session
        .prewarm
        .as_ref()
        .map(|state| state.from_ms.saturating_mul(1_000));
    let is_elsewhere = open
        .zip(from_us)
        .is_some_and(|(open, from_us)| open.sent_us < from_us);
    if !is_elsewhere {
        end(WindowEnd::Answer, time, session, out);
    }
}

/// Another start of the conversation: a prewarm of its own may follow.
pub fn restart(time: EventTime, session: &mut SessionState, out: &mut Out<'_>) {
    end(WindowEnd::Start, time, session, out);
    if let Some(prewarm) = &mut session.prewarm {
        prewarm.seen = false;
    }
}

/// Takes a request for that of a prewarm, if one is due. A request that was not sent is no request.
pub fn takes_request(time: EventTime, is_sent: bool, session: &mut SessionState, out: &mut Out<'_>) -> bool {
    let Some(prewarm) = &mut session.prewarm else {
        return false;
    };
    // The start of a second process ends the window of the first one, whose request may yet come.
    let lasts = prewarm.open_clock_ms.is_some() || (prewarm.ended_by_start && is_near(prewarm, time));
    if !lasts || prewarm.requests_due == 0 {
        return false;
    }
    if is_sent {
        prewarm.requests_due -= 1;
        prewarm.unanswered += 1;
        let counts = session.counts.get_or_insert_default();
        counts.prewarm.get_or_insert_default().requests += 1;
        out.emit(&Fact::PrewarmRequest);
    }
    true
}

/// Takes an error for that of a prewarm, if one waits for its answer. `ends` is whether the record ends the answer: a broken
/// answer may leave another one before.
pub fn takes_error(ends: bool, session: &mut SessionState, out: &mut Out<'_>) -> bool {
    let has_open_request = session
        .transport
        .as_ref()
        .is_some_and(|state| state.open.is_some());
    let Some(prewarm) = &mut session.prewarm else {
        return false;
    };
    if prewarm.open_clock_ms.is_none() || (prewarm.unanswered == 0 && has_open_request) {
        return false;
    }
    if ends {
        prewarm.unanswered = prewarm.unanswered.saturating_sub(1);
        prewarm.tokens_due = prewarm.tokens_due.saturating_sub(1);
        let counts = session.counts.get_or_insert_default();
        counts.prewarm.get_or_insert_default().failed += 1;
        out.emit(&Fact::Prewarm {
            end: AnswerEnd::Failed,
            basis: PrewarmBasis::Window,
            tokens: Tokens::default(),
        });
    }
    true
}

/// Takes a response for that of a prewarm, or holds it. Gives it back if it is an answer to a turn.
pub fn takes_response<'r>(
    response: Response<'r>,
    version: &str,
    prices: &Prices,
    session: &mut SessionState,
    out: &mut Out<'_>,
) -> Option<Response<'r>> {
    let transport = session.transport.as_ref();
    let is_asked_by_http = transport
        .and_then(|transport| transport.open)
        .is_some_and(|open| !open.websocket);
    if !response.may_be_prewarm || is_asked_by_http {
        return Some(response);
    }
    let is_by_sign = is_due_by_sign(version, session);
    let prewarm = session.prewarm.get_or_insert_default();
    if owes(prewarm, response.time) {
        count(&response, PrewarmBasis::Window, prices, session, out);
        return None;
    }
    if prewarm.seen {
        return Some(response);
    }
    if is_by_sign {
        by_sign(&response, prices, session, out);
        return None;
    }
    prewarm.held.push(response.held(out.clock()));
    if prewarm.held.len() > HELD_MAX {
        decide_oldest(prices, session, out);
    }
    None
}

/// Whether the next response that shows no sign of a turn is a prewarm's: of a version without phases, over WebSocket, once
/// for each start.
pub fn is_due_by_sign(version: &str, session: &SessionState) -> bool {
    let is_seen = session.prewarm.as_ref().is_some_and(|prewarm| prewarm.seen);
    let transport = session.transport.as_ref();
    !is_seen && lacks_phases(version) && transport.is_some_and(|transport| transport.had_websocket)
}

/// Decides about the response that was held longest: no window came that it could belong to.
pub fn decide_oldest(prices: &Prices, session: &mut SessionState, out: &mut Out<'_>) {
    let Some(prewarm) = session.prewarm.as_mut().filter(|state| !state.held.is_empty()) else {
        return;
    };
    let held = prewarm.held.remove(0);
    let is_known = prewarm.has_phases || prewarm.seen;
    let uses_websocket = session
        .transport
        .as_ref()
        .is_some_and(|transport| transport.had_websocket);
    let response = Response::of_held(&held);
    out.move_to(response.time);
    if uses_websocket && !is_known {
        by_sign(&response, prices, session, out);
    } else {
        used(&response, prices, session, out);
    }
}

/// Gives the windows that lack a response those that were held for them.
fn claim_held(prices: &Prices, session: &mut SessionState, out: &mut Out<'_>) {
    let Some(prewarm) = &mut session.prewarm else {
        return;
    };
    for held in std::mem::take(&mut prewarm.held) {
        let response = Response::of_held(&held);
        match &mut session.prewarm {
            Some(prewarm) if !owes(prewarm, response.time) => prewarm.held.push(held),
            _ => {
                out.move_to(response.time);
                count(&response, PrewarmBasis::Window, prices, session, out);
            }
        }
    }
}

/// Counts a response of a version without phases as a prewarm's, and with it the request that it answers.
fn by_sign(response: &Response<'_>, prices: &Prices, session: &mut SessionState, out: &mut Out<'_>) {
    session.prewarm.get_or_insert_default().seen = true;
    let open = session.transport.as_mut().and_then(|state| state.open.take());
    if open.is_some_and(|open| open.websocket) {
        let counts = session.counts.get_or_insert_default();
        counts.api_requests = counts.api_requests.saturating_sub(1);
        let websocket = counts.websocket.get_or_insert_default();
        websocket.requests = websocket.requests.saturating_sub(1);
        counts.prewarm.get_or_insert_default().requests += 1;
        out.emit(&Fact::PrewarmRequest);
    }
    count(response, PrewarmBasis::Sign, prices, session, out);
}

/// Counts the completed response of a prewarm.
fn count(
    response: &Response<'_>,
    basis: PrewarmBasis,
    prices: &Prices,
    session: &mut SessionState,
    out: &mut Out<'_>,
) {
    if let Some(prewarm) = &mut session.prewarm {
        prewarm.tokens_due = prewarm.tokens_due.saturating_sub(1);
        prewarm.unanswered = prewarm.unanswered.saturating_sub(1);
    }
    let tokens = response.tokens;
    out.emit(&Fact::Prewarm {
        end: AnswerEnd::Completed,
        basis,
        tokens,
    });
    let nano_usd = cost::of_prewarm(&tokens, &response.terms(prices), out);
    let counts = session.counts.get_or_insert_default();
    let counts = counts.prewarm.get_or_insert_default();
    counts.completed += 1;
    super::add(&mut counts.input_uncached, tokens.input_uncached);
    super::add(&mut counts.input_cached, tokens.input_cached);
    super::add(&mut counts.input_cache_write, tokens.input_cache_write);
    super::add(&mut counts.output, tokens.output());
    super::add(&mut counts.cost_nano_usd, nano_usd);
}

/// Whether a window lacks a response, and is open or near an event time.
fn owes(prewarm: &PrewarmState, time: EventTime) -> bool {
    prewarm.tokens_due > 0 && (prewarm.open_clock_ms.is_some() || is_near(prewarm, time))
}

/// Whether an event time is within [`NEAR_MS`] of the last windows.
const fn is_near(prewarm: &PrewarmState, time: EventTime) -> bool {
    let (from, until) = (
        prewarm.from_ms.saturating_sub(NEAR_MS),
        prewarm.until_ms.saturating_add(NEAR_MS),
    );
    from <= time.0 && time.0 <= until
}

/// Whether a version of Codex, as it names itself, logs no phases of prewarms. One that can't be read does.
fn lacks_phases(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < PHASES_SINCE,
        _ => false,
    }
}
