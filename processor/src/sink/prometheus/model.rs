//! What a scrape shows, before it is written in one format or the other.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// Label names and values, in the order of the metric's definition.
pub type Labels = Vec<(Cow<'static, str>, String)>;

/// All samples of one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// The name, for a histogram without `_bucket`, `_sum`, `_count`.
    pub name: Cow<'static, str>,
    /// One sentence; may be empty.
    pub help: Cow<'static, str>,
    /// How the values are to be read.
    pub kind: FamilyKind,
    /// One for each set of labels.
    pub samples: Vec<Sample>,
}

/// The types of the exposition formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyKind {
    /// Never goes down.
    Counter,
    /// Goes both ways.
    Gauge,
    /// A distribution by buckets.
    Histogram,
    /// A distribution by quantiles; only the process's own metrics have these.
    Summary,
    /// Not known.
    Untyped,
}

/// One value, or one distribution.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Sorted by, and different in each sample of a family.
    pub labels: Labels,
    /// What it shows.
    pub value: Value,
    /// Its time in ms; `None`: the scraper's.
    pub at: Option<i64>,
}

/// What a sample shows.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An exact count.
    Integer(i64),
    /// An exact decimal: money, which is counted in billionths or millionths.
    Decimal(String),
    /// Any other number.
    Float(f64),
    /// A distribution by buckets.
    Histogram(Distribution),
    /// A distribution by quantiles: of which `(quantile, value)`.
    Summary {
        /// Number of values.
        count: u64,
        /// Their sum, as a decimal.
        sum: String,
        /// Quantiles between 0 and 1, with their values.
        quantiles: Vec<(f64, f64)>,
    },
}

/// A distribution by buckets, in both forms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// Number of values.
    pub count: u64,
    /// Their sum, as an exact decimal: so both formats round it in the same way.
    pub sum: String,
    /// Classic form: upper bound and number of values at or below it, rising, without `+Inf`.
    pub classic: Vec<(f64, u64)>,
    /// Native form, where there is one.
    pub native: Option<Native>,
}

/// The native form: exponential buckets `(2^((i-1)/2^schema), 2^(i/2^schema)]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Native {
    /// Buckets per power of two, as an exponent of two.
    pub schema: i32,
    /// Number of values that were 0.
    pub zero: u64,
    /// Bucket index → number of values in it.
    pub buckets: BTreeMap<i32, u64>,
}
