//! The metric table: every derived metric, one arm each. `/metrics`, `deploy/METRICS.md`, window rows, state
//! and tests follow from it.
//!
//! To add a metric: a variant of [`Metric`] and its arm in [`Metric::def`].

mod label;
mod table;
pub mod values;

pub use label::{Label, LabelDef, label_value};

use crate::fact::{Fact, FactKind};
use crate::histogram::Histogram;
use strum::{EnumCount, VariantArray};

/// A derived metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray, EnumCount)]
#[expect(
    missing_docs,
    reason = "each is explained by its help text, in its definition"
)]
pub enum Metric {
    LogRecords,
    EventTimeSource,
    EventTimeClamped,
    ApiRequests,
    ApiErrors,
    ApiRetries,
    ApiRateLimited,
    ApiRetryRatio,
    ApiRequestDuration,
    ApiRequestDurationWindow,
    ResponseDuration,
    FirstToken,
    WebsocketConnects,
    WebsocketConnectDuration,
    WebsocketReused,
    WebsocketFallbacks,
    PrewarmRequests,
    PrewarmResponses,
    PrewarmTokens,
    PrewarmCost,
    PrewarmWindows,
    StreamFailures,
    Ttft,
    TtftWindow,
    Tokens,
    ResponseTokens,
    TokenChecksumMismatch,
    CacheHitRatio,
    Cost,
    CostByKind,
    CacheSavings,
    Credits,
    UnpricedTokens,
    NativeTurnCost,
    ToolCalls,
    ToolDuration,
    ToolNonzeroExit,
    ApprovalDecisions,
    HumanApprovalRatio,
    PolicyAutoRatio,
    Compactions,
    CompactionReclaimedTokens,
    SessionsStarted,
    SessionsActive,
    Turns,
}

/// The kind of a metric: the form of its amounts, and how they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A total that never decreases; a window row holds what the window added.
    Counter,
    /// A total that increases and decreases; a window row holds what the window added.
    UpDown,
    /// A distribution; its total is shown with classic buckets from `2^first` to `2^last` of the unit.
    Histogram {
        /// Exponent of the lowest bucket's upper bound.
        first: i32,
        /// Exponent of the highest finite upper bound.
        last: i32,
    },
    /// Numerator and denominator, shown as the ratio of the last final window.
    WindowRatio,
    /// A distribution, shown as quantiles of the last final window.
    WindowQuantiles,
}

/// The unit of the values that are shown; state holds integers of sub-units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// No unit: a number of things.
    One,
    /// Tokens.
    Tokens,
    /// Seconds; state holds microseconds.
    Seconds,
    /// A share between 0 and 1.
    Ratio,
    /// Dollars; state holds nano-dollars.
    Usd,
    /// Credits of ChatGPT plans; state holds millionths.
    Credits,
}

impl Unit {
    /// How many sub-units, as state holds them, make one unit.
    #[must_use]
    pub const fn per(self) -> u64 {
        match self {
            Self::Seconds | Self::Credits => 1_000_000,
            Self::Usd => 1_000_000_000,
            Self::One | Self::Tokens | Self::Ratio => 1,
        }
    }

    /// The unit's name in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::One => "1",
            Self::Tokens => "token",
            Self::Seconds => "s",
            Self::Ratio => "ratio",
            Self::Usd => "USD",
            Self::Credits => "credit",
        }
    }
}

/// What was added to a series: a delta, a total, or a window. The form follows from the metric's [`Kind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Amount {
    /// The amount of a counter or an up-down counter, in sub-units.
    Count(i64),
    /// The amount of a ratio, as two sums.
    Ratio {
        /// How many of the things counted in `denominator` have the property.
        numerator: u64,
        /// How many things there are.
        denominator: u64,
    },
    /// The amount of a distribution, in sub-units.
    Values(Histogram),
}

impl Amount {
    /// Adds `other`; sums saturate. All amounts of one metric have the same form, and an `other` of a
    /// different form adds nothing.
    pub fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Count(a), Self::Count(b)) => *a = a.saturating_add(*b),
            (
                Self::Ratio {
                    numerator,
                    denominator,
                },
                Self::Ratio {
                    numerator: n,
                    denominator: d,
                },
            ) => {
                *numerator = numerator.saturating_add(*n);
                *denominator = denominator.saturating_add(*d);
            }
            (Self::Values(a), Self::Values(b)) => a.merge(b),
            _ => debug_assert!(false, "amounts of two forms under one series"),
        }
    }
}

/// What a fact adds to one series.
#[derive(Clone, Copy, Debug)]
pub enum Sample {
    /// An amount, in sub-units, for a counter or an up-down counter.
    Add(i64),
    /// One thing for a ratio's denominator, and for its numerator too if `true`.
    Share(bool),
    /// Many things for a ratio: what goes to the numerator, then what goes to the denominator.
    Shares(u64, u64),
    /// A value, in sub-units, for a distribution.
    Value(u64),
}

/// Receives the samples of a fact: each with the value of the label that differs between samples of one fact,
/// if one does.
pub type Emit<'e> = dyn FnMut(Sample, Option<&'static str>) + 'e;

/// The definition of a metric: one row of the table.
#[derive(Clone, Copy)]
pub struct MetricDef {
    /// The metric's name on `/metrics` and in window rows.
    pub name: &'static str,
    /// What the metric is, in one sentence: the text of `# HELP`.
    pub help: &'static str,
    /// The form of the metric's amounts, and how they are shown.
    pub kind: Kind,
    /// The unit of the values that are shown.
    pub unit: Unit,
    /// The metric's labels, in the order in which series keys hold their values.
    pub labels: &'static [Label],
    /// The event that the facts come from, for documents.
    pub from: &'static str,
    /// The kind of facts that the metric is made of; [`MetricDef::observe`] is called with facts of this kind
    /// only.
    pub of: FactKind,
    /// Emits what a fact adds to the metric's series; nothing for facts of other kinds.
    pub observe: fn(&Fact, &mut Emit<'_>),
}

impl Metric {
    /// The metric with that name; `None` for a name that this version does not know.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::VARIANTS
            .iter()
            .copied()
            .find(|metric| metric.def().name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::{
        AnswerEnd, BillingBasis, CompactionMethod, ConnectPhase, Decision, DecisionSource, Outcome,
        PrewarmBasis, RetryLayer, TimeSource, Tokens, Transport, WindowEnd,
    };
    use crate::price::{Book, Unpriced};

    #[test]
    fn names_say_kind_and_unit() {
        for &metric in Metric::VARIANTS {
            let def = metric.def();
            assert_eq!(Metric::by_name(def.name), Some(metric));
            assert!(def.name.starts_with("tacho_"), "{}", def.name);
            assert!(def.help.ends_with('.'), "{}: the help is a sentence", def.name);
            let counts = def.kind == Kind::Counter;
            assert_eq!(
                def.name.ends_with("_total"),
                counts,
                "{}: counters end in _total, and no other metric does",
                def.name
            );
            match def.unit {
                Unit::Seconds => assert!(def.name.ends_with("_seconds"), "{}", def.name),
                Unit::Ratio => assert!(def.name.ends_with("_window_ratio"), "{}", def.name),
                Unit::Usd => assert!(def.name.ends_with("_usd_total"), "{}", def.name),
                Unit::Credits => assert!(def.name.ends_with("_credits_total"), "{}", def.name),
                Unit::One | Unit::Tokens => {}
            }
            if matches!(def.kind, Kind::Histogram { .. } | Kind::WindowQuantiles) {
                for label in [Label::Team, Label::Project, Label::CostCentre, Label::Department] {
                    assert!(
                        !def.labels.contains(&label),
                        "{}: distributions never carry {}",
                        def.name,
                        label.def().name
                    );
                }
            }
        }
    }

    /// One fact of each kind, such that every metric made of that kind counts something.
    fn facts() -> Vec<Fact> {
        let tokens = Tokens {
            input_cached: 3,
            output_visible: 2,
            ..Tokens::default()
        };
        let method = CompactionMethod::Inferred;
        let tool_call = Fact::ToolCall {
            tool: "exec",
            success: false,
            mcp: false,
            exit_code: Some(1),
            duration_us: Some(5),
        };
        let request = Fact::Request {
            transport: Transport::Http,
            endpoint: "/responses",
            status: Some(429),
            error: Some("rate_limited"),
            retry: true,
            duration_us: Some(5),
        };
        let mut facts = vec![
            Fact::Record {
                event: "unknown",
                outcome: Outcome::Applied,
                time_source: TimeSource::Time,
                clamped: true,
            },
            request,
        ];
        facts.extend(transport_facts(tokens));
        facts.extend([
            Fact::Response {
                tokens,
                mismatch: Some("total_ne_sum"),
            },
            Fact::Cost {
                basis: BillingBasis::ApiList,
                tier: "default",
                nano_usd: tokens,
                cache_savings_nano_usd: 3,
            },
            Fact::Credits {
                tier: "default",
                micro_credits: 3,
            },
            Fact::Unpriced {
                book: Book::ApiUsd,
                reason: Unpriced::Model,
                tokens: 3,
            },
            Fact::TurnCost {
                nano_usd: 3,
                interrupted: true,
            },
            Fact::StreamFailure { error: "cut" },
            Fact::FirstToken { duration_us: 5 },
            tool_call,
            Fact::Decision {
                tool: "exec",
                decision: Decision::Approved,
                source: DecisionSource::Human,
            },
            Fact::Turn,
            Fact::Compaction { method },
            Fact::Reclaimed { tokens: 5 },
            Fact::SessionStarted,
            Fact::SessionsActive { change: 1 },
        ]);
        facts
    }

    fn transport_facts(tokens: Tokens) -> Vec<Fact> {
        vec![
            Fact::Retry {
                endpoint: "/responses",
                layer: RetryLayer::Http,
            },
            Fact::Answer {
                transport: Transport::Websocket,
                end: AnswerEnd::Completed,
                duration_us: Some(5),
                first_token_us: Some(3),
            },
            Fact::Connect {
                accepted: false,
                status: Some(503),
                phase: ConnectPhase::Turn,
                duration_us: Some(5),
            },
            Fact::Sent { reused: true },
            Fact::Fallback,
            Fact::PrewarmRequest,
            Fact::Prewarm {
                end: AnswerEnd::Completed,
                basis: PrewarmBasis::Window,
                tokens,
            },
            Fact::PrewarmCost {
                basis: BillingBasis::ApiList,
                nano_usd: 3,
            },
            Fact::PrewarmWindow {
                end: WindowEnd::Total,
            },
        ]
    }

    #[test]
    fn every_metric_is_made_of_the_kind_of_facts_that_it_names() {
        let facts = facts();
        assert_eq!(
            facts.iter().map(Fact::kind).collect::<Vec<_>>(),
            FactKind::VARIANTS,
            "there is one fact of every kind, in order"
        );
        for metric in Metric::VARIANTS {
            let def = metric.def();
            for fact in &facts {
                let mut samples = 0;
                (def.observe)(fact, &mut |_, _| samples += 1);
                assert_eq!(
                    samples > 0,
                    def.of == fact.kind(),
                    "{} is made of {:?}, and {fact:?} is offered",
                    def.name,
                    def.of
                );
            }
        }
    }
}
