//! What a scrape shows, before it is written in one format or the other.
//!
//! A histogram has two forms. Classic buckets are powers of two of the unit. Native ones have schema 3: the
//! state's 32 buckets for each power of two, four merged into one, exactly. The bucket around 0 (2^-128)
//! holds the zeros. There is no created timestamp, since a result has no process that created it. The text
//! format has the classic form only, and all of it.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// Names and values of labels, in the order of the metric's definition.
pub type Labels = Vec<(Cow<'static, str>, String)>;

/// All samples of one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// The name of the metric, without suffixes such as `_bucket`, `_sum` and `_count`.
    pub name: Cow<'static, str>,
    /// What the metric is, in one sentence; may be empty.
    pub help: Cow<'static, str>,
    /// The type of the metric.
    pub kind: FamilyKind,
    /// The samples, one for each set of labels.
    pub samples: Vec<Sample>,
}

/// The type of a metric in the exposition formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyKind {
    /// A number that never decreases.
    Counter,
    /// A number that increases and decreases.
    Gauge,
    /// A distribution by buckets.
    Histogram,
    /// A distribution by quantiles; only the process's own metrics have this type.
    Summary,
    /// The type is not known.
    Untyped,
}

/// One value or distribution of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The labels, which are different for each sample of a family.
    pub labels: Labels,
    /// The value or distribution.
    pub value: Value,
    /// The timestamp in ms; `None` for the time of the scrape.
    pub at: Option<i64>,
}

/// The value of a sample.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An exact count.
    Integer(i64),
    /// An exact decimal, for money, which is counted in billionths or millionths.
    Decimal(String),
    /// Any other number.
    Float(f64),
    /// A distribution by buckets.
    Histogram(Distribution),
    /// A distribution by quantiles.
    Summary {
        /// Number of values.
        count: u64,
        /// Sum of the values, as a decimal.
        sum: String,
        /// Quantiles, between 0 and 1, and their values.
        quantiles: Vec<(f64, f64)>,
    },
}

/// A distribution by buckets, in both forms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// Number of values.
    pub count: u64,
    /// Sum of the values, as an exact decimal, so that both formats round it in the same way.
    pub sum: String,
    /// The classic form: upper bounds, ascending and without `+Inf`, and the number of values at or below each.
    pub classic: Vec<(f64, u64)>,
    /// The native form; `None` for distributions of the process's own metrics.
    pub native: Option<Native>,
}

/// The native form: exponential buckets `(2^((i-1)/2^schema), 2^(i/2^schema)]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Native {
    /// The exponent of the number of buckets for each power of two: there are 2^schema.
    pub schema: i32,
    /// Number of values that were 0.
    pub zero: u64,
    /// The number of values in each bucket that holds some, by index.
    pub buckets: BTreeMap<i32, u64>,
}
