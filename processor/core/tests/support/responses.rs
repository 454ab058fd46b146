//! Responses of the model, with what they must cost.

use super::{Event, event, int, text};

/// A response, and the amounts and unpriced tokens that must follow from it.
#[derive(Clone, Debug, Default)]
pub struct Vector {
    pub model: &'static str,
    /// Attribute `auth_mode`; absent if empty.
    pub auth: &'static str,
    /// Attribute `service_tier`; absent if empty.
    pub tier: &'static str,
    /// Input tokens, those read from the cache, those written to it, output tokens, reasoning tokens.
    pub tokens: [i64; 5],
    /// Cost with basis `api_list`, nano-dollars.
    pub usd: i64,
    /// Cost with basis `subscription_equivalent`, nano-dollars.
    pub equivalent: i64,
    /// Cost in credits, millionths.
    pub credits: i64,
    /// Book, reason and number of unpriced tokens.
    pub unpriced: &'static [(&'static str, &'static str, i64)],
}

/// The completed response of a vector.
pub fn response(time: i64, vector: &Vector) -> Event {
    let [input, cached, cache_write, output, reasoning] = vector.tokens;
    let mut attributes = vec![
        ("event.kind", text("response.completed")),
        ("input_token_count", text(input.to_string())),
        ("output_token_count", text(output.to_string())),
        ("cached_token_count", int(cached)),
        ("cache_write_token_count", int(cache_write)),
        ("reasoning_token_count", int(reasoning)),
        ("tool_token_count", text(input.saturating_add(output).to_string())),
        ("ttft_ms", int(1)),
        ("model", text(vector.model)),
    ];
    if !vector.auth.is_empty() {
        attributes.push(("auth_mode", text(vector.auth)));
    }
    if !vector.tier.is_empty() {
        attributes.push(("service_tier", text(vector.tier)));
    }
    event("c", time, "codex.sse_event", attributes)
}
