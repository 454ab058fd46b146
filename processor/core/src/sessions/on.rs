//! What each event means in its session: one handler an event, in a file named after what it is about.
//!
//! A handler changes the session's state, and tells facts or rows to [`Out`]. It never sees who the session is other than
//! through [`Event::identity`], which it can't change.

mod compaction;
mod decision;
mod prompt;
mod request;
mod response;
mod start;
mod tool;
mod turn;

pub use decision::CALLS_MAX;

use super::parse::Parsed;
use crate::out::Out;
use schemas::event::{Attr, EventKind};
use schemas::otlp::scan::Attrs;
use schemas::price::Prices;
use schemas::state::{Identity, SessionState};

/// A record that derives, with what its handler reads.
#[derive(Clone, Copy)]
pub struct Event<'r> {
    /// The record.
    pub record: &'r Parsed<'r>,
    /// Its attributes.
    pub attrs: &'r Attrs<'r>,
    /// Who and what the session is.
    pub identity: &'r Identity,
    /// Prices of the partition's epoch.
    pub prices: &'r Prices,
}

/// Calls the handler of the event.
///
/// `session` lacks its identity for that long: it is the event's.
pub fn handle(event: Event<'_>, session: &mut SessionState, out: &mut Out<'_>) {
    match event.record.event {
        EventKind::ConversationStarts => start::conversation_starts(event.attrs, session),
        EventKind::UserPrompt => prompt::user_prompt(session, out),
        EventKind::ApiRequest => request::api_request(event, session, out),
        EventKind::SseEvent => response::sse_event(event, session, out),
        EventKind::TurnTtft => turn::first_token(event.attrs, session, out),
        EventKind::TurnCost => turn::cost(event.attrs, session, out),
        EventKind::ToolDecision => decision::tool_decision(event.attrs, session, out),
        EventKind::ToolResult => tool::tool_result(event.attrs, session, out),
        // Nothing is derived from these yet beside the count of records.
        EventKind::StartupPhase
        | EventKind::SandboxOutcome
        | EventKind::AgentCommunication
        | EventKind::AgentResponse
        | EventKind::GuardianAssessment
        | EventKind::SkillInvocation
        | EventKind::AuthRecovery
        | EventKind::WebsocketConnect
        | EventKind::WebsocketRequest
        | EventKind::PluginInstallElicitationSent
        | EventKind::PluginInstallSuggestion
        | EventKind::NetworkPolicyDecision
        | EventKind::Unknown => {}
    }
}

/// The duration that an event reports, µs.
fn duration_us(attrs: &Attrs<'_>) -> Option<u64> {
    attrs.micros(Attr::DurationMs)
}

/// Adds to a sum of values from the wire, which may be as large as they like: sums saturate.
const fn add(sum: &mut u64, value: u64) {
    *sum = sum.saturating_add(value);
}
