//! Event handlers: what each event means in its session. There is one handler for each event, in a file named
//! after what the event is about.
//!
//! A handler changes the state of the session, and emits facts and rows to [`Out`]. It can read who the
//! session is, in [`Event::identity`], and can't change it.

mod compaction;
mod decision;
mod prewarm;
mod prompt;
mod request;
mod response;
mod start;
mod tool;
mod transport;
mod turn;
pub mod waits;
mod websocket;

pub use decision::CALLS_MAX;

use super::parse::Parsed;
use crate::out::Out;
use schemas::event::{Attr, EventKind};
use schemas::otlp::scan::Attrs;
use schemas::price::Prices;
use schemas::state::{Identity, SessionState};

/// A record that derives, with all that its handler reads.
#[derive(Clone, Copy)]
pub struct Event<'r> {
    /// The record.
    pub record: &'r Parsed<'r>,
    /// The record's attributes.
    pub attrs: &'r Attrs<'r>,
    /// Who and what the session is.
    pub identity: &'r Identity,
    /// The prices of the partition's epoch.
    pub prices: &'r Prices,
}

/// Calls the handler of the event. The identity of `session` is absent meanwhile: it is in `event`.
pub fn handle(event: Event<'_>, session: &mut SessionState, out: &mut Out<'_>) {
    match event.record.event {
        EventKind::ConversationStarts => start::conversation_starts(event, session, out),
        EventKind::UserPrompt => prompt::user_prompt(event, session, out),
        EventKind::ApiRequest => request::api_request(event, session, out),
        EventKind::SseEvent => response::sse_event(event, session, out),
        EventKind::TurnTtft => turn::first_token(event, session, out),
        EventKind::TurnCost => turn::cost(event, session, out),
        EventKind::ToolDecision => decision::tool_decision(event, session, out),
        EventKind::ToolResult => tool::tool_result(event, session, out),
        EventKind::StartupPhase => prewarm::startup_phase(event, session, out),
        EventKind::WebsocketConnect => websocket::connect(event, session, out),
        EventKind::WebsocketRequest => websocket::request(event, session, out),
        // Nothing is derived from these events beside counts of records.
        EventKind::SandboxOutcome
        | EventKind::AgentCommunication
        | EventKind::AgentResponse
        | EventKind::GuardianAssessment
        | EventKind::SkillInvocation
        | EventKind::AuthRecovery
        | EventKind::PluginInstallElicitationSent
        | EventKind::PluginInstallSuggestion
        | EventKind::NetworkPolicyDecision
        | EventKind::Unknown => {}
    }
}

/// The duration that a record reports, µs.
fn duration_us(attrs: &Attrs<'_>) -> Option<u64> {
    attrs.micros(Attr::DurationMs)
}

/// Adds a value from the wire, which may have any size, to a sum, which saturates.
const fn add(sum: &mut u64, value: u64) {
    *sum = sum.saturating_add(value);
}
