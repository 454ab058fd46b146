//! The definitions of metrics of answers, and of WebSocket connections.

use super::{SECONDS, one};
use crate::fact::{Fact, FactKind};
use crate::metric::{Kind, Label, MetricDef, Sample, Unit};

pub(super) const RESPONSE_DURATION: MetricDef = MetricDef {
    name: "tacho_response_duration_seconds",
    help: "Time from sending a request of a turn to the end of its answer, over HTTP and WebSocket alike.",
    kind: SECONDS,
    unit: Unit::Seconds,
    labels: &[Label::Tenant, Label::Model, Label::Transport, Label::Outcome],
    from: "codex.sse_event with token counts or an error, less codex.api_request or codex.websocket_request",
    of: FactKind::Answer,
    observe: |fact, emit| {
        if let Fact::Answer {
            duration_us: Some(value),
            ..
        } = fact
        {
            emit(Sample::Value(*value), None);
        }
    },
};

pub(super) const FIRST_TOKEN: MetricDef = MetricDef {
    name: "tacho_first_token_seconds",
    help: "Time from sending a request of a turn to the first token of its answer.",
    kind: SECONDS,
    unit: Unit::Seconds,
    labels: &[Label::Tenant, Label::Model, Label::Transport],
    from: "codex.sse_event with token counts",
    of: FactKind::Answer,
    observe: |fact, emit| {
        if let Fact::Answer {
            first_token_us: Some(value),
            ..
        } = fact
        {
            emit(Sample::Value(*value), None);
        }
    },
};

pub(super) const CONNECTS: MetricDef = MetricDef {
    name: "tacho_websocket_connects_total",
    help: "Upgrades to WebSocket connections that were tried, for the prewarm of a session or in a turn.",
    kind: Kind::Counter,
    unit: Unit::One,
    labels: &[
        Label::Tenant,
        Label::Team,
        Label::Outcome,
        Label::StatusCode,
        Label::Phase,
    ],
    from: "codex.websocket_connect",
    of: FactKind::Connect,
    observe: |fact, emit| one(matches!(fact, Fact::Connect { .. }), emit),
};

pub(super) const CONNECT_DURATION: MetricDef = MetricDef {
    name: "tacho_websocket_connect_seconds",
    help: "Time from an upgrade to its answer.",
    kind: SECONDS,
    unit: Unit::Seconds,
    labels: &[Label::Tenant, Label::Outcome],
    from: "codex.websocket_connect",
    of: FactKind::Connect,
    observe: |fact, emit| {
        if let Fact::Connect {
            duration_us: Some(value),
            ..
        } = fact
        {
            emit(Sample::Value(*value), None);
        }
    },
};

pub(super) const REUSED: MetricDef = MetricDef {
    name: "tacho_websocket_reused_total",
    help: "WebSocket requests of turns, by whether their connection had a request before, that of a prewarm included.",
    kind: Kind::Counter,
    unit: Unit::One,
    labels: &[Label::Tenant, Label::Reused],
    from: "codex.websocket_request",
    of: FactKind::Sent,
    observe: |fact, emit| one(matches!(fact, Fact::Sent { .. }), emit),
};

pub(super) const FALLBACKS: MetricDef = MetricDef {
    name: "tacho_websocket_fallbacks_total",
    help: "Conversations that used WebSocket and went back to HTTP, once for each start of a conversation.",
    kind: Kind::Counter,
    unit: Unit::One,
    labels: &[Label::Tenant, Label::Team],
    from: "codex.api_request after a codex.websocket_connect or codex.websocket_request",
    of: FactKind::Fallback,
    observe: |fact, emit| one(matches!(fact, Fact::Fallback), emit),
};
