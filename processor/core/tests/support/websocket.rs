//! Records of sessions over WebSocket, as Codex 0.171.0 sends them.

use super::{Event, event, int, text};
use opentelemetry_proto::tonic::common::v1::any_value::Value;

/// Input tokens of every prewarm.
pub const PREWARM_INPUT: i64 = 9_000;

pub fn start(conversation: &'static str, time: i64) -> Event {
    event(conversation, time, "codex.conversation_starts", Vec::new())
}

pub fn phase(conversation: &'static str, time: i64, phase: &'static str) -> Event {
    let attributes = vec![("startup.phase", text(phase)), ("duration_ms", text("1"))];
    event(conversation, time, "codex.startup_phase", attributes)
}

/// An upgrade that was accepted, or refused with a status.
pub fn connect(conversation: &'static str, time: i64, refused: Option<i64>) -> Event {
    let mut attributes = vec![
        ("duration_ms", text("16")),
        ("success", text(refused.is_none().to_string())),
    ];
    if let Some(status) = refused {
        attributes.push(("http.response.status_code", int(status)));
        attributes.push(("error.message", text(format!("http {status}"))));
    }
    event(conversation, time, "codex.websocket_connect", attributes)
}

/// A request that was sent.
pub fn sent(conversation: &'static str, time: i64, reused: bool) -> Event {
    sent_or_not(conversation, time, reused, true)
}

pub fn sent_or_not(conversation: &'static str, time: i64, reused: bool, success: bool) -> Event {
    let attributes = vec![
        ("duration_ms", text("0")),
        ("success", text(success.to_string())),
        ("auth.connection_reused", Value::BoolValue(reused)),
    ];
    event(conversation, time, "codex.websocket_request", attributes)
}

/// The completed response of a request of a turn.
pub fn answer(conversation: &'static str, time: i64, input: i64, output: i64) -> Event {
    let mut answer = super::tokens(conversation, time, input, 0, output, 0);
    answer.attributes.push(("ttft_ms", int(300)));
    answer.attributes.push(("model_reasoning_effort", text("medium")));
    answer
}

/// The completed response of a prewarm, or of a turn that said nothing, by a model without efforts.
pub fn empty_answer(conversation: &'static str, time: i64, input: i64) -> Event {
    super::tokens(conversation, time, input, 0, 0, 0)
}

/// The error that ends an answer.
pub fn broken(conversation: &'static str, time: i64, message: &str) -> Event {
    let attributes = vec![
        ("event.kind", text("response.completed")),
        ("error.message", text(message)),
    ];
    event(conversation, time, "codex.sse_event", attributes)
}

/// The prewarm of a process that starts at `time`, from its first phase to its last one, which is 60 ms later.
pub fn prewarm(conversation: &'static str, time: i64) -> Vec<Event> {
    vec![
        phase(conversation, time, "startup_prewarm_create_turn_context"),
        phase(conversation, time + 2, "startup_prewarm_build_tools"),
        connect(conversation, time + 19, None),
        phase(conversation, time + 20, "startup_prewarm_build_prompt"),
        sent(conversation, time + 21, true),
        empty_answer(conversation, time + 24, PREWARM_INPUT),
        phase(conversation, time + 25, "startup_prewarm_websocket_warmup"),
        phase(conversation, time + 26, "startup_prewarm_total"),
        phase(conversation, time + 60, "startup_prewarm_resolve"),
    ]
}

/// A turn of two requests: 1,200 and 1,500 input tokens, 60 and 25 output tokens.
pub fn turn(conversation: &'static str, time: i64) -> Vec<Event> {
    vec![
        super::prompt(conversation, time),
        sent(conversation, time + 10, true),
        answer(conversation, time + 500, 1_200, 60),
        sent(conversation, time + 600, true),
        answer(conversation, time + 900, 1_500, 25),
    ]
}
