//! Approval decisions about tool calls.

use super::Event;
use crate::out::Out;
use crate::sessions::classify;
use crate::sessions::identity::TEXT_BYTES_MAX;
use schemas::event::Attr;
use schemas::fact::{Decision, DecisionSource, Fact};
use schemas::state::{Counts, DecisionCount, SessionState};
use xxhash_rust::xxh3::xxh3_64;

/// The most open calls in a session's state, and the most of those that ended before their decision; further ones are not
/// followed.
pub const CALLS_MAX: usize = 16;
/// The most counts by tool, decision and source in a session's state; further decisions go to the last count.
const DECISIONS_MAX: usize = 32;

/// Counts a decision. An approved call is open until its result comes.
pub fn tool_decision(event: Event<'_>, session: &mut SessionState, out: &mut Out<'_>) {
    let attrs = event.attrs;
    let tool = classify::tool(attrs);
    let (decision, source) = (classify::decision(attrs), classify::source(attrs));
    if let Some(call) = attrs.text(Attr::CallId)
        && decision.is_approval()
    {
        open_call(call, session);
    }
    count(session.counts.get_or_insert_default(), tool, decision, source);
    out.emit(&Fact::Decision {
        tool,
        decision,
        source,
    });
}

/// Opens a call that was approved, unless its result came first: records of one batch that have the same time may be in any
/// order, and a batch may overtake another.
fn open_call(call: &str, session: &mut SessionState) {
    let has_ended = session.ended_calls.contains(&xxh3_64(call.as_bytes()));
    let is_followed = call.len() <= TEXT_BYTES_MAX && session.open_calls.len() < CALLS_MAX;
    if is_followed && !has_ended && !session.open_calls.iter().any(|open| open == call) {
        session.open_calls.push(call.to_owned());
    }
}

/// Ends a call by its result. A call that is not open is kept in mind, in case its decision comes later.
pub fn end_call(call: &str, session: &mut SessionState) {
    if let Some(at) = session.open_calls.iter().position(|open| open == call) {
        session.open_calls.remove(at);
        return;
    }
    if session.ended_calls.len() == CALLS_MAX {
        session.ended_calls.remove(0);
    }
    session.ended_calls.push(xxh3_64(call.as_bytes()));
}

/// Adds a decision to its count; counts are ordered by the names of tool, decision and source.
fn count(counts: &mut Counts, tool: &str, decision: Decision, source: DecisionSource) {
    let wanted = (tool, decision.name(), source.name());
    let order = |count: &DecisionCount| {
        let found = (
            count.tool.as_str(),
            count.decision.as_str(),
            count.source.as_str(),
        );
        found.cmp(&wanted)
    };
    match counts.decisions.binary_search_by(order) {
        Ok(at) => counts.decisions[at].count += 1,
        Err(at) if counts.decisions.len() < DECISIONS_MAX => {
            let (tool, decision, source) = wanted;
            let count = DecisionCount {
                tool: tool.to_owned(),
                decision: decision.to_owned(),
                source: source.to_owned(),
                count: 1,
            };
            counts.decisions.insert(at, count);
        }
        // The row stays small, and the sum over all counts stays right.
        Err(_) => {
            if let Some(last) = counts.decisions.last_mut() {
                last.count += 1;
            }
        }
    }
}
