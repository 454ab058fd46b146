//! One histogram for every distribution: base-2 exponential buckets, as in Prometheus native histograms and
//! OTLP.
//!
//! Bucket `i` of scale 5 holds the values in `(2^((i-1)/32), 2^(i/32)]` of the unit, so that the harmonic
//! middle of a bucket is within 1.1 % of every value in it. Merging adds integers: associative, exact, the
//! same on replay.
//!
//! Source: OpenTelemetry metrics data model, "ExponentialHistogram"; Prometheus "Native Histograms"
//! specification.

use std::collections::BTreeMap;

/// The scale of histograms in state and topics: 32 buckets for each power of two, relative error 1.1 %.
pub const SCALE: i32 = 5;
/// Buckets for each power of two at [`SCALE`].
const PER_OCTAVE: i32 = 1 << SCALE;

/// `2^(j/32 - 1)`, correctly rounded: written out because `powf` may differ between machines, and state may
/// not.
#[expect(clippy::approx_constant, reason = "one of a row: the name would hide that")]
const BOUNDS: [f64; PER_OCTAVE as usize] = [
    0.5,
    0.5109485743270583,
    0.5221368912137069,
    0.5335702003384118,
    0.5452538663326288,
    0.5571933712979462,
    0.5693943173783458,
    0.5818624293887887,
    0.5946035575013605,
    0.6076236799902345,
    0.620928906036742,
    0.6345254785958666,
    0.6484197773255048,
    0.6626183215798707,
    0.6771277734684463,
    0.691954940981916,
    0.7071067811865476,
    0.7225904034885233,
    0.7384130729697497,
    0.7545822137967114,
    0.7711054127039704,
    0.7879904225539432,
    0.8052451659746271,
    0.8228777390769825,
    0.8408964152537145,
    0.859309649061239,
    0.8781260801866497,
    0.8973545375015536,
    0.9170040432046712,
    0.93708381705515,
    0.9576032806985737,
    0.9785720620877001,
];

/// A distribution of values: their number and sum, exact, and how many are in each exponential bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Number of values.
    pub count: u64,
    /// Sum of the values in sub-units (microseconds for a unit of seconds); it saturates.
    pub sum: u64,
    /// Number of values that were 0.
    pub zero: u64,
    /// Number of values above 0 by bucket index at scale 5.
    pub buckets: BTreeMap<i32, u64>,
}

/// The index at scale 5 of `value / per_unit`, which must be above 0.
///
/// Source: `findBucket` of Prometheus' `histogram.go`: exponent by bits, fraction by binary search.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    reason = "beyond 2^53 µs the relative error of the cast is 1e-16"
)]
fn bucket_index(value: u64, per_unit: u64) -> i32 {
    let scaled = value as f64 / per_unit as f64;
    let bits = scaled.to_bits();
    let exponent = i32::try_from((bits >> 52) & 0x7ff).unwrap_or(0) - 1022;
    let fraction = f64::from_bits((bits & !(0x7ff << 52)) | (1022 << 52));
    let within = BOUNDS.partition_point(|bound| *bound < fraction);
    i32::try_from(within).unwrap_or(PER_OCTAVE) + (exponent - 1) * PER_OCTAVE
}

/// The upper bound of bucket `index` at scale 5, in units. It is a float, so it is shown and never kept in
/// state.
#[must_use]
pub fn upper_bound(index: i32) -> f64 {
    (f64::from(index) / f64::from(PER_OCTAVE)).exp2()
}

impl Histogram {
    /// Adds one value, given in sub-units of which `per_unit` make one unit (1,000,000 for µs in seconds; 1
    /// for counts).
    pub fn record(&mut self, value: u64, per_unit: u64) {
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
        if value == 0 {
            self.zero += 1;
        } else {
            *self.buckets.entry(bucket_index(value, per_unit)).or_default() += 1;
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
        self.zero += other.zero;
        for (index, count) in &other.buckets {
            *self.buckets.entry(*index).or_default() += count;
        }
    }

    /// The quantile `thousandths / 1000` in units: the value of rank `ceil(q n)`, shown as the harmonic
    /// middle of its bucket.
    ///
    /// `None` when empty. Relative error at most 1.1 %.
    #[must_use]
    pub fn quantile(&self, thousandths: u64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let rank = (self.count * thousandths).div_ceil(1000).max(1);
        let mut seen = self.zero;
        if rank <= seen {
            return Some(0.0);
        }
        for (&index, &count) in &self.buckets {
            seen += count;
            if rank <= seen {
                let (a, b) = (upper_bound(index - 1), upper_bound(index));
                return Some(2.0 * a * b / (a + b));
            }
        }
        None
    }

    /// Counts by powers of two of the unit: `(upper bound exponent, cumulative count)` for `2^first ..=
    /// 2^last`.
    ///
    /// Exact: 32 buckets of scale 5 make one of scale 0.
    #[must_use]
    pub fn cumulative_by_octave(&self, first: i32, last: i32) -> Vec<(i32, u64)> {
        (first..=last)
            .map(|exponent| {
                let below: u64 = self
                    .buckets
                    .range(..=exponent * PER_OCTAVE)
                    .map(|(_, count)| count)
                    .sum();
                (exponent, self.zero + below)
            })
            .collect()
    }

    /// The same distribution at a coarser scale, exactly: bucket `i` goes to `ceil(i / 2^(5 - scale))`.
    #[must_use]
    pub fn buckets_at(&self, scale: i32) -> BTreeMap<i32, u64> {
        let shift = SCALE - scale.min(SCALE);
        let mut coarse = BTreeMap::new();
        for (&index, &count) in &self.buckets {
            *coarse.entry((index + (1 << shift) - 1) >> shift).or_default() += count;
        }
        coarse
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECONDS: u64 = 1_000_000;

    #[test]
    fn bounds_belong_to_the_lower_bucket() {
        assert_eq!(bucket_index(SECONDS, SECONDS), 0);
        assert_eq!(bucket_index(2 * SECONDS, SECONDS), 32);
        assert_eq!(bucket_index(SECONDS / 2, SECONDS), -32);
        assert_eq!(bucket_index(SECONDS + 1, SECONDS), 1);
    }

    #[test]
    fn empty_has_no_quantile_and_zero_is_a_value() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(500), None);
        histogram.record(0, SECONDS);
        assert_eq!(histogram.quantile(990), Some(0.0));
    }

    fn check_quantiles(mut values: Vec<u64>) {
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.record(*value, SECONDS));
        values.sort_unstable();
        for thousandths in [500, 900, 950, 990] {
            let rank = (values.len() as u64 * thousandths).div_ceil(1000).max(1);
            let exact = values[usize::try_from(rank).unwrap() - 1] as f64 / SECONDS as f64;
            let shown = histogram.quantile(thousandths).unwrap();
            assert!(
                (shown - exact).abs() <= exact * 0.011,
                "q{thousandths}: {shown} is not within 1.1 % of {exact}"
            );
        }
    }

    proptest! {
        #[test]
        fn quantiles_of_few(values in proptest::collection::vec(0u64..10_000_000_000, 3)) {
            check_quantiles(values);
        }

        #[test]
        fn quantiles_of_many(values in proptest::collection::vec(0u64..600_000_000, 10_000)) {
            check_quantiles(values);
        }

        #[test]
        fn merge_is_the_histogram_of_both(a in proptest::collection::vec(0u64..1 << 50, 0..50), b in proptest::collection::vec(0u64..1 << 50, 0..50)) {
            let of = |values: &[u64]| {
                let mut histogram = Histogram::default();
                values.iter().for_each(|value| histogram.record(*value, SECONDS));
                histogram
            };
            let (mut ab, mut ba) = (of(&a), of(&b));
            ab.merge(&of(&b));
            ba.merge(&of(&a));
            prop_assert_eq!(&ab, &ba);
            prop_assert_eq!(ab, of(&[a, b].concat()));
        }

        #[test]
        fn coarser_buckets_hold_the_same_values(values in proptest::collection::vec(1u64..1 << 40, 1..50)) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.record(*value, 1));
            for (exponent, cumulative) in histogram.cumulative_by_octave(0, 41) {
                let exact = values.iter().filter(|value| **value <= 1 << exponent).count() as u64;
                prop_assert_eq!(cumulative, exact);
            }
            let coarse: u64 = histogram.buckets_at(3).values().sum();
            prop_assert_eq!(coarse, histogram.count);
        }
    }
}
