//! The labels of series, and the value of each for a fact.

use crate::fact::{Agent, CompactionMethod, Dimensions, Fact, RetryLayer};
use strum::VariantArray;

/// A label of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray)]
#[expect(missing_docs, reason = "each is explained in its definition, below")]
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

/// What is known of a label.
#[derive(Clone, Copy, Debug)]
pub struct LabelDef {
    /// Its name.
    pub name: &'static str,
    /// How many values it can have; for an open label, per tenant, before `other`.
    pub cap: usize,
    /// Whether its values come off the wire, so that `tacho.labels` admits them first come, first served.
    pub open: bool,
    /// The resource attribute that it shows, if it is a dimension that the seed can switch off.
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
    /// Everything there is to know about a label. Caps of open labels are defaults: the seed can set others.
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
/// The value of a label for a fact; `varying` is what the metric gave for the label that differs between samples.
///
/// A label that the fact says nothing about is empty, and not shown.
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

/// A response says its own tier; what comes between two responses is counted under the session's last one.
const fn tier(dimensions: &Dimensions<'_>, fact: &Fact) -> &'static str {
    match fact {
        Fact::Cost { tier, .. } | Fact::Credits { tier, .. } => tier,
        _ => dimensions.tier,
    }
}

/// The value of a label that tells how a request went.
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

/// The value of a label that tells what else a fact holds.
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
