//! The label table: every label of a derived metric, whether it is open, and how many values it may have for
//! each tenant; and the value of each label for a fact.
//!
//! Values of an open label come off the wire and are admitted by `tacho.labels`; those of all others are of
//! closed sets in code. Never a label: an e-mail address, a conversation id, a call id, a path, a session.
//! Those are in rows. Histograms carry no team, project, cost centre or department: one has dozens of series
//! already.

use crate::fact::{Dimensions, Fact};
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
    Transport,
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
    Phase,
    Reused,
    Basis,
    ClosedBy,
}

/// The definition of a label: one row of the table.
#[derive(Clone, Copy, Debug)]
pub struct LabelDef {
    /// The label's name.
    pub name: &'static str,
    /// How many values of an open label are admitted for each tenant, unless the seed sets another cap; all
    /// further values are shown as `other`. It is 0 for a closed label, whose values are in [`super::values`].
    pub cap: usize,
    /// Whether values come off the wire, so that `tacho.labels` admits them, first come, first served.
    pub open: bool,
    /// The resource attribute that the label shows, if it is a dimension, which the seed can switch off.
    pub dimension: Option<&'static str>,
}

const fn closed(name: &'static str) -> LabelDef {
    LabelDef {
        name,
        cap: 0,
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
            Self::Tenant => closed("tenant"),
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
            Self::Entrypoint => closed("entrypoint"),
            Self::Agent => closed("agent"),
            Self::Effort => closed("effort"),
            Self::Tier => closed("tier"),
            Self::Transport => closed("transport"),
            Self::Endpoint => closed("endpoint"),
            Self::StatusClass => closed("status_class"),
            Self::StatusCode => closed("status_code"),
            Self::AttemptClass => closed("attempt_class"),
            Self::Layer => closed("layer"),
            Self::ErrorType => closed("error_type"),
            Self::Direction => closed("direction"),
            Self::TokenKind => closed("kind"),
            Self::Tool => closed("tool"),
            Self::Outcome => closed("outcome"),
            Self::Origin => closed("origin"),
            Self::Decision => closed("decision"),
            Self::Source => closed("source"),
            Self::Method => closed("method"),
            Self::Event => closed("event"),
            Self::BillingBasis => closed("billing_basis"),
            Self::Book => closed("book"),
            Self::Reason => closed("reason"),
            Self::Interrupted => closed("interrupted"),
            Self::Phase => closed("phase"),
            Self::Reused => closed("reused"),
            Self::Basis => closed("basis"),
            Self::ClosedBy => closed("closed_by"),
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
        Label::Agent => dimensions.agent.name(),
        Label::Direction | Label::TokenKind => varying.unwrap_or(""),
        Label::Transport
        | Label::Endpoint
        | Label::StatusClass
        | Label::StatusCode
        | Label::AttemptClass
        | Label::Layer
        | Label::ErrorType
        | Label::Phase
        | Label::Reused
        | Label::Basis
        | Label::ClosedBy => request_value(label, fact),
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
        | Fact::Retry { .. }
        | Fact::Answer { .. }
        | Fact::Connect { .. }
        | Fact::Sent { .. }
        | Fact::Fallback
        | Fact::PrewarmRequest
        | Fact::Prewarm { .. }
        | Fact::PrewarmCost { .. }
        | Fact::PrewarmWindow { .. }
        | Fact::Response { .. }
        | Fact::Unpriced { .. }
        | Fact::TurnCost { .. }
        | Fact::StreamFailure { .. }
        | Fact::FirstToken { .. }
        | Fact::ToolCall { .. }
        | Fact::Decision { .. }
        | Fact::Turn
        | Fact::Compaction { .. }
        | Fact::Reclaimed { .. }
        | Fact::SessionStarted
        | Fact::SessionsActive { .. } => dimensions.tier,
    }
}

/// The value of a label that describes a request, a connection, a response or a stream; empty for facts of other kinds.
fn request_value(label: Label, fact: &Fact) -> &'static str {
    match (label, fact) {
        (Label::Transport, Fact::Request { transport, .. } | Fact::Answer { transport, .. }) => {
            transport.name()
        }
        (Label::Endpoint, Fact::Request { endpoint, .. } | Fact::Retry { endpoint, .. }) => endpoint,
        (Label::StatusClass, Fact::Request { status, .. }) => status_class(*status),
        (Label::StatusCode, Fact::Request { status, .. }) => status_code(*status),
        (
            Label::StatusCode,
            Fact::Connect {
                accepted: false,
                status,
                ..
            },
        ) => status_code(*status),
        (Label::AttemptClass, Fact::Request { retry, .. }) => choose(*retry, "retry", "first"),
        (Label::Layer, Fact::Retry { layer, .. }) => layer.name(),
        (Label::Phase, Fact::Connect { phase, .. }) => phase.name(),
        (Label::Reused, Fact::Sent { reused }) => choose(*reused, "true", "false"),
        (Label::Basis, Fact::Prewarm { basis, .. }) => basis.name(),
        (Label::ClosedBy, Fact::PrewarmWindow { end }) => end.name(),
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
        (Label::Outcome, Fact::Answer { end, .. } | Fact::Prewarm { end, .. }) => end.name(),
        (Label::Outcome, Fact::Connect { accepted, .. }) => choose(*accepted, "accepted", "refused"),
        (Label::Origin, Fact::ToolCall { mcp, .. }) => choose(*mcp, "mcp", "builtin"),
        (Label::Decision, Fact::Decision { decision, .. }) => decision.name(),
        (Label::Source, Fact::Decision { source, .. }) => source.name(),
        (Label::Source, Fact::Record { time_source, .. }) => time_source.name(),
        (Label::Method, Fact::Compaction { method, .. }) => method.name(),
        (Label::Event, Fact::Record { event, .. }) => event,
        (Label::BillingBasis, Fact::Cost { basis, .. } | Fact::PrewarmCost { basis, .. }) => basis.name(),
        (Label::Book, Fact::Unpriced { book, .. }) => book.name(),
        (Label::Reason, Fact::Unpriced { reason, .. }) => reason.name(),
        (Label::Interrupted, Fact::TurnCost { interrupted, .. }) => choose(*interrupted, "true", "false"),
        _ => "",
    }
}

const fn choose(holds: bool, yes: &'static str, no: &'static str) -> &'static str {
    if holds { yes } else { no }
}

/// The values of label `status_class`.
pub(super) const STATUS_CLASSES: &[&str] = &["2xx", "3xx", "4xx", "429", "5xx", "none"];
/// The values of label `status_code`.
pub(super) const STATUS_CODES: &[&str] = &[
    "400", "401", "402", "403", "404", "408", "409", "413", "422", "426", "429", "500", "502", "503", "504",
    "529", "none", "other",
];

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
        Some(402) => "402",
        Some(403) => "403",
        Some(404) => "404",
        Some(408) => "408",
        Some(409) => "409",
        Some(413) => "413",
        Some(422) => "422",
        Some(426) => "426",
        Some(429) => "429",
        Some(500) => "500",
        Some(502) => "502",
        Some(503) => "503",
        Some(504) => "504",
        Some(529) => "529",
        Some(_) => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::values;
    use std::collections::BTreeSet;

    #[test]
    fn the_statuses_have_exactly_the_listed_values() {
        let statuses = || (0..1_000).map(Some).chain([None]);
        let found = |of: fn(Option<u16>) -> &'static str| statuses().map(of).collect::<BTreeSet<_>>();
        let listed = |label| {
            let groups = values::groups(label).iter();
            groups
                .flat_map(|group| group.values.iter().copied())
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(found(status_class), listed(Label::StatusClass));
        // A success is no error, and label `status_code` is of errors only.
        assert_eq!(found(status_code), listed(Label::StatusCode));
    }

    #[test]
    fn a_label_is_open_or_its_values_are_listed() {
        for &label in Label::VARIANTS {
            let closed = !values::groups(label).is_empty() || label == Label::Tenant;
            assert_ne!(label.def().open, closed, "{label:?}");
        }
        assert!(values::allows(Label::Tool, "") && values::allows(Label::Team, "anything"));
        assert!(!values::allows(Label::Tool, "anything"));
    }
}
