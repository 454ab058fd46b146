//! The definitions of metrics of prewarms: what a session asks of the model API before its first turn. None of it is in
//! any other metric of requests, responses, tokens or cost.

use super::{add, one};
use crate::fact::{Fact, FactKind};
use crate::metric::{Kind, Label, MetricDef, Unit};

pub(super) const REQUESTS: MetricDef = MetricDef {
    name: "tacho_prewarm_requests_total",
    help: "Requests that sessions sent to warm up, which are no requests of turns.",
    kind: Kind::Counter,
    unit: Unit::One,
    labels: &[Label::Tenant, Label::Team, Label::Model],
    from: "codex.websocket_request",
    of: FactKind::PrewarmRequest,
    observe: |fact, emit| one(matches!(fact, Fact::PrewarmRequest), emit),
};

pub(super) const RESPONSES: MetricDef = MetricDef {
    name: "tacho_prewarm_responses_total",
    help: "Answers to requests of prewarms, by how they ended and by what they are known.",
    kind: Kind::Counter,
    unit: Unit::One,
    labels: &[
        Label::Tenant,
        Label::Team,
        Label::Model,
        Label::Outcome,
        Label::Basis,
    ],
    from: "codex.sse_event with token counts or an error",
    of: FactKind::Prewarm,
    observe: |fact, emit| one(matches!(fact, Fact::Prewarm { .. }), emit),
};

pub(super) const TOKENS: MetricDef = MetricDef {
    name: "tacho_prewarm_tokens_total",
    help: "Tokens of prewarms, in disjoint kinds; they are in no other metric of tokens. Whether OpenAI bills them is not known.",
    kind: Kind::Counter,
    unit: Unit::Tokens,
    labels: &[Label::Tenant, Label::Team, Label::Model, Label::TokenKind],
    from: "codex.sse_event with token counts",
    of: FactKind::Prewarm,
    observe: |fact, emit| {
        if let Fact::Prewarm { tokens, .. } = fact {
            for (kind, count) in tokens.by_kind() {
                add(count, Some(kind), emit);
            }
        }
    },
};

pub(super) const COST: MetricDef = MetricDef {
    name: "tacho_prewarm_cost_usd_total",
    help: "What the tokens of prewarms would cost at list price, if they were billed; never a part of tacho_cost_usd_total. Tokens without a price are left out.",
    kind: Kind::Counter,
    unit: Unit::Usd,
    labels: &[Label::Tenant, Label::Team, Label::Model, Label::BillingBasis],
    from: "codex.sse_event with token counts, prices",
    of: FactKind::PrewarmCost,
    observe: |fact, emit| {
        if let Fact::PrewarmCost { nano_usd, .. } = fact {
            add(*nano_usd, None, emit);
        }
    },
};

pub(super) const WINDOWS: MetricDef = MetricDef {
    name: "tacho_prewarm_windows_total",
    help: "Windows of prewarms that ended, by what ended them; total and resolve are Codex' own ends.",
    kind: Kind::Counter,
    unit: Unit::One,
    labels: &[Label::Tenant, Label::ClosedBy],
    from: "codex.startup_phase, codex.sse_event, codex.conversation_starts, the partition clock",
    of: FactKind::PrewarmWindow,
    observe: |fact, emit| one(matches!(fact, Fact::PrewarmWindow { .. }), emit),
};
