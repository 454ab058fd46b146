//! The label table: every label of a derived metric, whether it is open, and how many values it may have for
//! each tenant; and the value of each label for a fact.
//!
//! Values of an open label come off the wire and are admitted by `tacho.labels`; those of all others are of
//! closed sets in code. Never a label: an e-mail address, a conversation id, a call id, a path, a session.
//! Those are in rows. Histograms carry no team, project, cost centre or department: one has dozens of series
//! already.

use crate::fact::{Agent, CompactionMethod, Dimensions, Fact, RetryLayer};
use strum::VariantArray;

/// A label of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray)]
#[expect(missing_docs, reason = "each is explained by its name, in `Label::def`")]
pub enum Label {
    Tenant,
    Team,
    Project,
    CostCentre,
    Department,
    Env,
    Model,
    Entrypoint,
    Agent,
    Effort,
    Tier,
    Endpoint,
    StatusClass,
    StatusCode,
    AttemptClass,
    Layer,
    ErrorType,
    Direction,
    TokenKind,
    Tool,
    Outcome,
    Origin,
    Decision,
    Source,
    Method,
    Event,
    BillingBasis,
    Book,
    Reason,
    Interrupted,
}

/// The definition of a label: one row of the table.
#[derive(Clone, Copy, Debug)]
pub struct LabelDef {
    /// The label's name.
    pub name: &'static str,
    /// How many values the label can have. For an open label: how many are admitted for each tenant, unless
    /// the seed sets another cap; all further values are shown as `other`.
    pub cap: usize,
    /// Whether values come off the wire, so that `tacho.labels` admits them, first come, first served.
    pub open: bool,
    /// The resource attribute that the label shows, if it is a dimension, which the seed can switch off.
    pub dimension: Option<&'static str>,
}

const fn closed(name: &'static str, cap: usize) -> LabelDef {
    LabelDef {
        name,
        cap,
        open: false,
        dimension: None,
    }
}

const fn dimension(name: &'static str, cap: usize, attribute: &'static str) -> LabelDef {
    LabelDef {
        name,
        cap,
        open: true,
        dimension: Some(attribute),
    }
}

impl Label {
    /// The label's definition.
    #[must_use]
    pub const fn def(self) -> LabelDef {
        match self {
            Self::Tenant => closed("tenant", 200),
            Self::Team => dimension("team", 500, "team.id"),
            Self::Project => dimension("project", 200, "project"),
            Self::CostCentre => dimension("cost_centre", 200, "cost_centre"),
            Self::Department => dimension("department", 50, "department"),
            Self::Env => dimension("env", 10, "env"),
            Self::Model => LabelDef {
                name: "model",
                cap: 50,
                open: true,
                dimension: None,
            },
            Self::Entrypoint => closed("entrypoint", 8),
            Self::Agent => closed("agent", 2),
            Self::Effort => closed("effort", 8),
            Self::Tier => closed("tier", 5),
            Self::Endpoint => closed("endpoint", 12),
            Self::StatusClass => closed("status_class", 6),
            Self::StatusCode => closed("status_code", 16),
            Self::AttemptClass => closed("attempt_class", 2),
            Self::Layer => closed("layer", 2),
            Self::ErrorType => closed("error_type", 20),
            Self::Direction => closed("direction", 2),
            Self::TokenKind => closed("kind", 5),
            Self::Tool => closed("tool", 40),
            Self::Outcome => closed("outcome", 8),
            Self::Origin => closed("origin", 2),
            Self::Decision => closed("decision", 9),
            Self::Source => closed("source", 4),
            Self::Method => closed("method", 2),
            Self::Event => closed("event", 24),
            Self::BillingBasis => closed("billing_basis", 2),
            Self::Book => closed("book", 2),
            Self::Reason => closed("reason", 4),
            Self::Interrupted => closed("interrupted", 2),
        }
    }
}

/// The value of a label for a fact; `varying` is the value that the metric gave for the label that differs
/// between samples of one fact.
///
/// The value is empty, and not shown, if the fact does not determine it.
#[must_use]
pub fn label_value<'a>(
    label: Label,
    dimensions: &Dimensions<'a>,
    fact: &Fact,
    varying: Option<&'static str>,
) -> &'a str {
    match label {
        Label::Tenant => dimensions.tenant,
        Label::Team => dimensions.team,
        Label::Project => dimensions.project,
        Label::CostCentre => dimensions.cost_centre,
        Label::Department => dimensions.department,
        Label::Env => dimensions.env,
        Label::Model => dimensions.model,
        Label::Entrypoint => dimensions.entrypoint,
        Label::Effort => dimensions.effort,
        Label::Tier => tier(dimensions, fact),
        Label::Agent => match dimensions.agent {
            Agent::Root => "root",
            Agent::Subagent => "subagent",
        },
        Label::Direction | Label::TokenKind => varying.unwrap_or(""),
        Label::Endpoint
        | Label::StatusClass
        | Label::StatusCode
        | Label::AttemptClass
        | Label::Layer
        | Label::ErrorType => request_value(label, fact),
        Label::Tool
        | Label::Outcome
        | Label::Origin
        | Label::Decision
        | Label::Source
        | Label::Method
        | Label::Event
        | Label::BillingBasis
        | Label::Book
        | Label::Reason
        | Label::Interrupted => fact_value(label, fact),
    }
}

/// The value of label `tier`. A cost has the tier of its own response; every other fact has the one that its
/// session used last.
const fn tier(dimensions: &Dimensions<'_>, fact: &Fact) -> &'static str {
    match fact {
        Fact::Cost { tier, .. } | Fact::Credits { tier, .. } => tier,
        Fact::Record { .. }
        | Fact::Request { .. }
        | Fact::Response { .. }
        | Fact::Unpriced { .. }
        | Fact::TurnCost { .. }
        | Fact::StreamFailure { .. }
        | Fact::FirstToken { .. }
        | Fact::ToolCall { .. }
        | Fact::Decision { .. }
        | Fact::Turn
        | Fact::Compaction { .. }
        | Fact::SessionStarted
        | Fact::SessionsActive { .. } => dimensions.tier,
    }
}

/// The value of a label that describes a request, a response or a stream; empty for facts of other kinds.
fn request_value(label: Label, fact: &Fact) -> &'static str {
    match (label, fact) {
        (Label::Endpoint, Fact::Request { endpoint, .. }) => endpoint,
        (Label::StatusClass, Fact::Request { status, .. }) => status_class(*status),
        (Label::StatusCode, Fact::Request { status, .. }) => status_code(*status),
        (Label::AttemptClass, Fact::Request { retry, .. }) => match retry {
            Some(_) => "retry",
            None => "first",
        },
        (Label::Layer, Fact::Request { retry, .. }) => match retry {
            Some(RetryLayer::Http) => "http",
            Some(RetryLayer::Stream) => "stream",
            None => "",
        },
        (Label::ErrorType, Fact::Request { error, .. }) => error.unwrap_or(""),
        (Label::ErrorType, Fact::StreamFailure { error }) => error,
        (Label::ErrorType, Fact::Response { mismatch, .. }) => mismatch.unwrap_or(""),
        _ => "",
    }
}

/// The value of a label that describes what a fact itself holds; empty for facts that do not hold it.
fn fact_value(label: Label, fact: &Fact) -> &'static str {
    match (label, fact) {
        (Label::Tool, Fact::ToolCall { tool, .. } | Fact::Decision { tool, .. }) => tool,
        (Label::Outcome, Fact::ToolCall { success, .. }) => choose(*success, "success", "failure"),
        (Label::Outcome, Fact::Record { outcome, .. }) => outcome.name(),
        (Label::Origin, Fact::ToolCall { mcp, .. }) => choose(*mcp, "mcp", "builtin"),
        (Label::Decision, Fact::Decision { decision, .. }) => decision.name(),
        (Label::Source, Fact::Decision { source, .. }) => source.name(),
        (Label::Source, Fact::Record { time_source, .. }) => time_source.name(),
        (Label::Method, Fact::Compaction { method, .. }) => match method {
            CompactionMethod::Endpoint => "endpoint",
            CompactionMethod::Inferred => "inferred",
        },
        (Label::Event, Fact::Record { event, .. }) => event,
        (Label::BillingBasis, Fact::Cost { basis, .. }) => basis.name(),
        (Label::Book, Fact::Unpriced { book, .. }) => book.name(),
        (Label::Reason, Fact::Unpriced { reason, .. }) => reason.name(),
        (Label::Interrupted, Fact::TurnCost { interrupted, .. }) => choose(*interrupted, "true", "false"),
        _ => "",
    }
}

const fn choose(holds: bool, yes: &'static str, no: &'static str) -> &'static str {
    if holds { yes } else { no }
}

const fn status_class(status: Option<u16>) -> &'static str {
    match status {
        Some(429) => "429",
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(500..=599) => "5xx",
        _ => "none",
    }
}

const fn status_code(status: Option<u16>) -> &'static str {
    match status {
        None => "none",
        Some(400) => "400",
        Some(401) => "401",
        Some(403) => "403",
        Some(404) => "404",
        Some(408) => "408",
        Some(409) => "409",
        Some(413) => "413",
        Some(422) => "422",
        Some(429) => "429",
        Some(500) => "500",
        Some(502) => "502",
        Some(503) => "503",
        Some(504) => "504",
        Some(529) => "529",
        Some(_) => "other",
    }
}
