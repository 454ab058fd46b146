//! The metric table: every derived metric, one arm each. `/metrics`, `deploy/METRICS.md`, the window rows and the tests
//! follow from it.
//!
//! To add a metric: one variant and its arm in [`Metric::def`]. Nothing else has to be touched.

mod label;
mod table;

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

/// How a metric adds up and how it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A total that never goes down; window rows hold the window's part.
    Counter,
    /// A total that goes both ways.
    UpDown,
    /// A distribution; the total has classic buckets `2^first ..= 2^last` of the unit.
    Histogram {
        /// Exponent of the lowest bound.
        first: i32,
        /// Exponent of the highest bound.
        last: i32,
    },
    /// Numerator and denominator, shown as the ratio of the last final window.
    WindowRatio,
    /// A distribution, shown as quantiles of the last final window.
    WindowQuantiles,
}

/// The unit of the values shown; state holds sub-units as integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
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
    /// How many sub-units of state make one unit.
    #[must_use]
    pub const fn per(self) -> u64 {
        match self {
            Self::Seconds | Self::Credits => 1_000_000,
            Self::Usd => 1_000_000_000,
            Self::One | Self::Tokens | Self::Ratio => 1,
        }
    }

    /// The word in documents.
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

/// What one fact adds to one series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Amount {
    /// To a counter or an up-down counter.
    Count(i64),
    /// To a ratio.
    Ratio {
        /// Of those…
        numerator: u64,
        /// …among these.
        denominator: u64,
    },
    /// To a distribution, in sub-units.
    Values(Histogram),
}

impl Amount {
    /// Adds `other`; amounts of one metric always have one form, and another form is ignored. Sums saturate.
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

/// What a fact contributes: one of these per series that it touches.
#[derive(Clone, Copy, Debug)]
pub enum Sample {
    /// Adds to a counter.
    Add(i64),
    /// Adds to a ratio: in the numerator too, or in the denominator only.
    Share(bool),
    /// Adds many to a ratio.
    Shares(u64, u64),
    /// Adds a value, in sub-units, to a distribution.
    Value(u64),
}

/// Takes the samples of a fact: the sample, and the value of a label that differs between samples of one fact.
pub type Emit<'e> = dyn FnMut(Sample, Option<&'static str>) + 'e;

/// Everything there is to know about a metric.
#[derive(Clone, Copy)]
pub struct MetricDef {
    /// Its name on `/metrics` and in window rows.
    pub name: &'static str,
    /// One sentence for `# HELP`.
    pub help: &'static str,
    /// How it adds up.
    pub kind: Kind,
    /// The unit shown.
    pub unit: Unit,
    /// Its labels, in the order in which series keys hold them.
    pub labels: &'static [Label],
    /// The event it comes from, for documents.
    pub from: &'static str,
    /// The kind of facts that it is made of; [`MetricDef::observe`] need not be shown any other.
    pub of: FactKind,
    /// What a fact adds; nothing, for facts that are not its own.
    pub observe: fn(&Fact, &mut Emit<'_>),
}

impl Metric {
    /// The metric of that name.
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
        BillingBasis, CompactionMethod, Decision, DecisionSource, Outcome, RetryLayer, TimeSource, Tokens,
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
                "{}: _total is for counters and only for them",
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
    /// Facts that make every metric of their kind count something.
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
            endpoint: "/responses",
            status: Some(429),
            error: Some("rate_limited"),
            retry: Some(RetryLayer::Http),
            duration_us: Some(5),
        };
        vec![
            Fact::Record {
                event: "unknown",
                outcome: Outcome::Applied,
                time_source: TimeSource::Time,
                clamped: true,
            },
            request,
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
            Fact::Compaction {
                method,
                reclaimed: Some(5),
            },
            Fact::SessionStarted,
            Fact::SessionsActive { change: 1 },
        ]
    }

    #[test]
    fn every_metric_is_made_of_the_kind_of_facts_that_it_names() {
        let facts = facts();
        assert_eq!(
            facts.iter().map(Fact::kind).collect::<Vec<_>>(),
            FactKind::VARIANTS,
            "a fact of every kind"
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
