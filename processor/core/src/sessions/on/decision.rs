//! The outcome of an approval.

use crate::out::Out;
use crate::sessions::classify;
use crate::sessions::identity::TEXT_BYTES_MAX;
use schemas::event::Attr;
use schemas::fact::{Decision, DecisionSource, Fact};
use schemas::otlp::scan::Attrs;
use schemas::state::{Counts, DecisionCount, SessionState};

/// Calls of a session that may be open at once in its state; more are not followed.
pub const CALLS_MAX: usize = 16;
/// Distinct counts by tool, decision and source that a session keeps; the last one stands for all beyond these.
const DECISIONS_MAX: usize = 32;

/// Counts the decision; a call that is approved is open until its result comes.
pub fn tool_decision(attrs: &Attrs<'_>, session: &mut SessionState, out: &mut Out<'_>) {
    let tool = classify::tool(attrs);
    let (decision, source) = (classify::decision(attrs), classify::source(attrs));
    let short = |call: &&str| call.len() <= TEXT_BYTES_MAX;
    if let Some(call) = attrs.text(Attr::CallId).filter(short)
        && decision.is_approval()
        && session.open_calls.len() < CALLS_MAX
    {
        session.open_calls.push(call.to_owned());
    }
    count(session.counts.get_or_insert_default(), tool, decision, source);
    out.tell(&Fact::Decision {
        tool,
        decision,
        source,
    });
}

/// Counts in order of tool, decision and source, by their names.
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
        // Rows stay small, and the sum over all decisions stays right.
        Err(_) => {
            if let Some(last) = counts.decisions.last_mut() {
                last.count += 1;
            }
        }
    }
}
