//! The committed view in the Prometheus text format 0.0.4, with an explicit timestamp on every sample.
//!
//! A sample's timestamp is that of its deltas partition in the committed state, so a sample is a function of its
//! timestamp: two processes that show one series during a hand-over agree, or Prometheus refuses the older.
//! Written by hand because no exposition library sets timestamps.

use crate::view::{PartitionView, Shown, View};
use schemas::delta::Series;
use schemas::histogram::Histogram;
use schemas::metric::{Amount, Kind, Metric, Unit};
use std::fmt::Write;
use strum::{EnumCount, VariantArray};

/// The value of `Content-Type` for what [`render`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Names of the window sizes, smallest first: the values of the label `window`.
pub const WINDOW_NAMES: [&str; 3] = ["1m", "5m", "1h"];

/// The quantiles shown of a window, in thousandths, and the values of the label `quantile`.
pub const QUANTILES: [(u64, &str); 4] = [(500, "0.5"), (900, "0.9"), (950, "0.95"), (990, "0.99")];

/// One series' samples: what it sorts by, and its lines.
type Rendered = (String, String);

/// Everything that the view holds, as text: families in the order of the metric table, series sorted by their labels.
///
/// Families without a sample are left out, and partitions whose worker had no success lately. A series that this build can't read is left out too.
#[must_use]
pub fn render(view: &View) -> String {
    let mut families: Vec<Vec<Rendered>> = vec![Vec::new(); Metric::COUNT];
    for entry in &view.partitions {
        if entry.is_shown() {
            collect(entry.value(), &mut families);
        }
    }
    let mut text = String::new();
    for (&metric, mut series) in Metric::VARIANTS.iter().zip(families) {
        if series.is_empty() {
            continue;
        }
        series.sort_unstable();
        head(&mut text, metric);
        for (_, lines) in series {
            text.push_str(&lines);
        }
    }
    text
}

fn collect(partition: &PartitionView, families: &mut [Vec<Rendered>]) {
    for (key, shown) in &partition.series {
        let Some(series) = Series::parse(key) else { continue };
        let labels = labels_of(&series);
        let mut lines = String::new();
        samples(&mut lines, series.metric, &labels, shown, partition);
        if !lines.is_empty() {
            families[series.metric as usize].push((labels, lines));
        }
    }
}

fn head(text: &mut String, metric: Metric) {
    let def = metric.def();
    let kind = match def.kind {
        Kind::Counter => "counter",
        Kind::Histogram { .. } => "histogram",
        Kind::UpDown | Kind::WindowRatio | Kind::WindowQuantiles => "gauge",
    };
    let help = def.help.replace('\\', r"\\").replace('\n', r"\n");
    line(text, format_args!("# HELP {} {help}", def.name));
    line(text, format_args!("# TYPE {} {kind}", def.name));
}

fn samples(text: &mut String, metric: Metric, labels: &str, shown: &Shown, partition: &PartitionView) {
    let def = metric.def();
    let (name, at) = (def.name, partition.timestamp.0);
    match (def.kind, &shown.total) {
        (Kind::Counter | Kind::UpDown, Some(Amount::Count(value))) => {
            line(text, format_args!("{name}{} {value} {at}", braced(labels, "")));
        }
        (Kind::Histogram { first, last }, Some(Amount::Values(values))) => {
            classic(text, name, labels, values, (first, last), def.unit, at);
        }
        (Kind::WindowRatio | Kind::WindowQuantiles, _) => {
            for (size, window) in WINDOW_NAMES.iter().enumerate() {
                if let Some(amount) = last_final(shown, partition, size) {
                    gauge(text, name, labels, window, amount, at);
                }
            }
        }
        _ => {}
    }
}

/// The series' value in the last final window of a size; `None` if it has no row for that window.
#[must_use]
pub fn last_final<'s>(shown: &'s Shown, partition: &PartitionView, size: usize) -> Option<&'s Amount> {
    let latest = (*partition.latest_final.get(size)?)?;
    let (start, amount) = shown.last_final.get(&size)?;
    (*start == latest).then_some(amount)
}

fn gauge(text: &mut String, name: &str, labels: &str, window: &str, amount: &Amount, at: i64) {
    match amount {
        Amount::Ratio { numerator, denominator } if *denominator > 0 => {
            let labels = braced(labels, &format!("window=\"{window}\""));
            line(text, format_args!("{name}{labels} {} {at}", ratio(*numerator, *denominator)));
        }
        Amount::Values(values) => {
            for (thousandths, quantile) in QUANTILES {
                if let Some(value) = values.quantile(thousandths) {
                    let labels = braced(labels, &format!("window=\"{window}\",quantile=\"{quantile}\""));
                    line(text, format_args!("{name}{labels} {value} {at}"));
                }
            }
        }
        Amount::Ratio { .. } | Amount::Count(_) => {}
    }
}

fn classic(text: &mut String, name: &str, labels: &str, values: &Histogram, (first, last): (i32, i32), unit: Unit, at: i64) {
    for (exponent, count) in values.cumulative_by_octave(first, last) {
        let bound = f64::from(exponent).exp2();
        line(text, format_args!("{name}_bucket{} {count} {at}", braced(labels, &format!("le=\"{bound}\""))));
    }
    line(text, format_args!("{name}_bucket{} {} {at}", braced(labels, "le=\"+Inf\""), values.count));
    line(text, format_args!("{name}_sum{} {} {at}", braced(labels, ""), exact(values.sum, unit.per())));
    line(text, format_args!("{name}_count{} {} {at}", braced(labels, ""), values.count));
}

/// `part / whole` for display; `whole` must not be 0.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "for display: beyond 2^53 the relative error of the cast is 1e-16")]
pub fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// `sub_units / per` as an exact decimal; `per` must be a power of ten.
#[must_use]
pub fn exact(sub_units: u64, per: u64) -> String {
    let (whole, rest) = (sub_units / per, sub_units % per);
    if rest == 0 {
        return whole.to_string();
    }
    let digits = usize::try_from(per.ilog10()).unwrap_or_default();
    let fraction = format!("{rest:0digits$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

/// The labels of a series that have a value, as `name="value",…` without braces.
fn labels_of(series: &Series<'_>) -> String {
    let mut text = String::new();
    for (label, value) in series.labels() {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(label.def().name);
        text.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => text.push_str(r"\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str(r"\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    text
}

fn braced(labels: &str, extra: &str) -> String {
    match (labels.is_empty(), extra.is_empty()) {
        (true, true) => String::new(),
        (false, false) => format!("{{{labels},{extra}}}"),
        _ => format!("{{{labels}{extra}}}"),
    }
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    text.write_fmt(content).expect("writing to a string can't fail");
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use schemas::delta::SEPARATOR;
    use schemas::time::AppendTime;
    use std::collections::BTreeMap;

    fn key(metric: Metric, values: &[&str]) -> String {
        let mut key = metric.def().name.to_owned();
        for value in values {
            key.push(SEPARATOR);
            key.push_str(value);
        }
        key
    }

    fn total(amount: Amount) -> Shown {
        Shown { total: Some(amount), last_final: BTreeMap::new() }
    }

    fn view(series: Vec<(String, Shown)>, latest_final: Vec<Option<i64>>) -> View {
        let view = View::default();
        view.partitions.insert(
            3,
            PartitionView { timestamp: AppendTime(1_700_000_000_123), series: series.into_iter().collect(), latest_final, worker: None },
        );
        view
    }

    fn durations(values: &[u64]) -> Amount {
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.record(*value, Unit::Seconds.per()));
        Amount::Values(histogram)
    }

    #[test]
    fn counters_come_in_table_order_sorted_escaped_and_without_empty_labels() {
        let view = view(
            vec![
                (key(Metric::Turns, &["default", "b\"\\\n", "gpt", "", "", "", "", ""]), total(Amount::Count(2))),
                (key(Metric::Turns, &["default", "a", "gpt", "", "", "", "", ""]), total(Amount::Count(1))),
                (key(Metric::SessionsActive, &["default", "", ""]), total(Amount::Count(-1))),
                ("tacho_of_a_newer_build\u{1f}x".to_owned(), total(Amount::Count(9))),
            ],
            vec![],
        );
        let other = key(Metric::Turns, &["default", "aa", "", "", "", "", "", ""]);
        view.partitions.insert(
            0,
            PartitionView {
                timestamp: AppendTime(5),
                series: BTreeMap::from([(other, total(Amount::Count(7)))]),
                ..PartitionView::default()
            },
        );
        assert_eq!(
            render(&view),
            "# HELP tacho_sessions_active Sessions that are open: not yet silent for the session gap.\n\
             # TYPE tacho_sessions_active gauge\n\
             tacho_sessions_active{tenant=\"default\"} -1 1700000000123\n\
             # HELP tacho_turns_total Turns that began: prompts of people, and of reviewers and sub-agents that log their own.\n\
             # TYPE tacho_turns_total counter\n\
             tacho_turns_total{tenant=\"default\",team=\"a\",model=\"gpt\"} 1 1700000000123\n\
             tacho_turns_total{tenant=\"default\",team=\"aa\"} 7 5\n\
             tacho_turns_total{tenant=\"default\",team=\"b\\\"\\\\\\n\",model=\"gpt\"} 2 1700000000123\n"
        );
    }

    #[test]
    fn histograms_have_cumulative_powers_of_two_and_an_exact_sum() {
        let view = view(vec![(key(Metric::Ttft, &["default", "m", "", ""]), total(durations(&[0, 250_000, 2_000_001])))], vec![]);
        let text = render(&view);
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let labels = "tenant=\"default\",model=\"m\"";
        assert_eq!(lines.len(), 17 + 3);
        assert_eq!(lines[0], format!("tacho_ttft_seconds_bucket{{{labels},le=\"0.015625\"}} 1 1700000000123"));
        assert_eq!(lines[4], format!("tacho_ttft_seconds_bucket{{{labels},le=\"0.25\"}} 2 1700000000123"));
        assert_eq!(lines[7], format!("tacho_ttft_seconds_bucket{{{labels},le=\"2\"}} 2 1700000000123"));
        assert_eq!(lines[8], format!("tacho_ttft_seconds_bucket{{{labels},le=\"4\"}} 3 1700000000123"));
        assert_eq!(lines[16], format!("tacho_ttft_seconds_bucket{{{labels},le=\"1024\"}} 3 1700000000123"));
        assert_eq!(lines[17], format!("tacho_ttft_seconds_bucket{{{labels},le=\"+Inf\"}} 3 1700000000123"));
        assert_eq!(lines[18], format!("tacho_ttft_seconds_sum{{{labels}}} 2.250001 1700000000123"));
        assert_eq!(lines[19], format!("tacho_ttft_seconds_count{{{labels}}} 3 1700000000123"));
    }

    #[test]
    fn window_gauges_show_the_last_final_window_only() {
        let ratio = |numerator, denominator| Amount::Ratio { numerator, denominator };
        let shown = Shown {
            total: Some(ratio(9, 9)),
            last_final: BTreeMap::from([(0, (60_000, ratio(1, 4))), (1, (0, ratio(1, 2))), (2, (0, ratio(0, 0)))]),
        };
        let quantiles = Shown { total: None, last_final: BTreeMap::from([(0, (60_000, durations(&[1_000_000])))]) };
        let view = view(
            vec![(key(Metric::PolicyAutoRatio, &["default", "t"]), shown), (key(Metric::TtftWindow, &["default", "m"]), quantiles)],
            vec![Some(60_000), Some(300_000), Some(0)],
        );
        let shown = Histogram { count: 1, sum: 1_000_000, zero: 0, buckets: BTreeMap::from([(0, 1)]) }.quantile(500).unwrap();
        let mut expected = String::from(
            "# HELP tacho_ttft_window_seconds Quantiles of the time to first token in the last final window, within 1.1 %.\n\
             # TYPE tacho_ttft_window_seconds gauge\n",
        );
        for quantile in ["0.5", "0.9", "0.95", "0.99"] {
            let labels = format!("tenant=\"default\",model=\"m\",window=\"1m\",quantile=\"{quantile}\"");
            writeln!(expected, "tacho_ttft_window_seconds{{{labels}}} {shown} 1700000000123").unwrap();
        }
        expected.push_str(
            "# HELP tacho_policy_auto_window_ratio Decisions made by policy among all decisions of the last final window.\n\
             # TYPE tacho_policy_auto_window_ratio gauge\n\
             tacho_policy_auto_window_ratio{tenant=\"default\",team=\"t\",window=\"1m\"} 0.25 1700000000123\n",
        );
        assert_eq!(render(&view), expected);
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(exact(0, 1_000_000), "0");
        assert_eq!(exact(1, 1_000_000), "0.000001");
        assert_eq!(exact(2_500_000, 1_000_000), "2.5");
        assert_eq!(exact(u64::MAX, 1_000_000), "18446744073709.551615");
        assert_eq!(exact(42, 1), "42");
    }

    /// Reads one sample line back: the label values, by an independent reading of the format.
    fn parse(line: &str) -> (Vec<(String, String)>, f64, i64) {
        let (name_end, mut rest) = line.find('{').map_or_else(|| (line.find(' ').unwrap(), None), |at| (at, Some(at + 1)));
        let mut labels = Vec::new();
        let mut tail = name_end;
        while let Some(at) = rest {
            let equals = at + line[at..].find("=\"").unwrap();
            let mut value = String::new();
            let mut chars = line[equals + 2..].char_indices();
            let end = loop {
                match chars.next().unwrap() {
                    (_, '\\') => match chars.next().unwrap().1 {
                        'n' => value.push('\n'),
                        c @ ('\\' | '"') => value.push(c),
                        c => panic!("escape {c} in {line}"),
                    },
                    (offset, '"') => break equals + 2 + offset + 1,
                    (_, c) => value.push(c),
                }
            };
            labels.push((line[at..equals].to_owned(), value));
            rest = line[end..].starts_with(',').then_some(end + 1);
            tail = end + 1;
        }
        let mut numbers = line[tail..].split_whitespace();
        let sample = (labels, numbers.next().unwrap().parse().unwrap(), numbers.next().unwrap().parse().unwrap());
        assert_eq!(numbers.next(), None, "{line}");
        sample
    }

    proptest! {
        #[test]
        fn any_label_value_is_read_back(team in "[^\u{1f}]{1,20}", count in any::<i64>()) {
            let key = key(Metric::SessionsActive, &["default", &team, "cli"]);
            let text = render(&view(vec![(key, total(Amount::Count(count)))], vec![]));
            // Only \n separates lines: a value may hold any other character, \r too.
            let lines: Vec<&str> = text.split('\n').collect();
            prop_assert_eq!(lines.len(), 4);
            let (labels, value, at) = parse(lines[2]);
            prop_assert_eq!(&labels[1], &("team".to_owned(), team));
            prop_assert_eq!(value, count as f64);
            prop_assert_eq!(at, 1_700_000_000_123);
        }

        #[test]
        fn any_view_is_a_total_parse(keys in proptest::collection::vec((0..Metric::COUNT, any::<i64>(), 0u64..1 << 40), 0..30)) {
            let series = keys.iter().map(|(metric, count, value)| {
                let metric = Metric::VARIANTS[*metric];
                let def = metric.def();
                let amount = match def.kind {
                    Kind::Counter | Kind::UpDown => Amount::Count(*count),
                    Kind::WindowRatio => Amount::Ratio { numerator: *value, denominator: *value },
                    Kind::Histogram { .. } | Kind::WindowQuantiles => durations(&[*value]),
                };
                let values: Vec<String> = def.labels.iter().map(|label| format!("{label:?}{value}")).collect();
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                (key(metric, &values), Shown { total: Some(amount.clone()), last_final: BTreeMap::from([(0, (0, amount))]) })
            });
            let text = render(&view(series.collect(), vec![Some(0)]));
            prop_assert!(text.is_empty() || text.ends_with('\n'));
            for line in text.lines().filter(|line| !line.starts_with("# ")) {
                parse(line);
            }
        }
    }
}
