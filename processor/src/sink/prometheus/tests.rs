//! Tests of the text format, and support for those of both formats.

mod formats;

use super::*;
use proptest::prelude::*;
use schemas::delta::SEPARATOR;
use schemas::time::{AppendTime, EventTime};
use std::collections::BTreeMap;
use std::fmt::Write;

fn render(view: &View) -> String {
    String::from_utf8(body(view, "", Format::Text)).unwrap()
}

fn key(metric: Metric, values: &[&str]) -> String {
    let mut key = metric.def().name.to_owned();
    for value in values {
        key.push(SEPARATOR);
        key.push_str(value);
    }
    key
}

fn total(amount: Amount) -> Shown {
    Shown {
        total: Some(amount),
        last_final: BTreeMap::new(),
    }
}

fn view(series: Vec<(String, Shown)>, latest_final: Vec<Option<i64>>) -> View {
    let view = View::default();
    view.partitions.insert(
        3,
        PartitionView {
            timestamp: AppendTime(1_700_000_000_123),
            series: series.into_iter().collect(),
            latest_final: latest_final
                .into_iter()
                .map(|start| start.map(EventTime))
                .collect(),
            worker: None,
        },
    );
    view
}

fn durations(values: &[u64]) -> Amount {
    let mut histogram = Histogram::default();
    values
        .iter()
        .for_each(|value| histogram.record(*value, Unit::Seconds.per()));
    Amount::Values(histogram)
}

#[test]
fn counters_come_in_table_order_sorted_escaped_and_without_empty_labels() {
    let view = view(
        vec![
            (
                key(Metric::Turns, &["default", "b\"\\\n", "gpt", "", "", "", "", ""]),
                total(Amount::Count(2)),
            ),
            (
                key(Metric::Turns, &["default", "a", "gpt", "", "", "", "", ""]),
                total(Amount::Count(1)),
            ),
            (
                key(Metric::SessionsActive, &["default", "", ""]),
                total(Amount::Count(-1)),
            ),
            (
                "tacho_of_a_newer_build\u{1f}x".to_owned(),
                total(Amount::Count(9)),
            ),
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
         tacho_sessions_active{tenant=\"default\",log=\"main\"} -1 1700000000123\n\
         # HELP tacho_turns_total Turns that began: prompts of people, and of reviewers and sub-agents that log their own.\n\
         # TYPE tacho_turns_total counter\n\
         tacho_turns_total{tenant=\"default\",team=\"a\",model=\"gpt\",log=\"main\"} 1 1700000000123\n\
         tacho_turns_total{tenant=\"default\",team=\"aa\",log=\"main\"} 7 5\n\
         tacho_turns_total{tenant=\"default\",team=\"b\\\"\\\\\\n\",model=\"gpt\",log=\"main\"} 2 1700000000123\n"
    );
}

#[test]
fn histograms_have_cumulative_powers_of_two_and_an_exact_sum() {
    let view = view(
        vec![(
            key(Metric::Ttft, &["default", "m", "", ""]),
            total(durations(&[0, 250_000, 2_000_001])),
        )],
        vec![],
    );
    let text = render(&view);
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let labels = "tenant=\"default\",model=\"m\",log=\"main\"";
    assert_eq!(lines.len(), 17 + 3);
    assert_eq!(
        lines[0],
        format!("tacho_ttft_seconds_bucket{{{labels},le=\"0.015625\"}} 1 1700000000123")
    );
    assert_eq!(
        lines[4],
        format!("tacho_ttft_seconds_bucket{{{labels},le=\"0.25\"}} 2 1700000000123")
    );
    assert_eq!(
        lines[7],
        format!("tacho_ttft_seconds_bucket{{{labels},le=\"2\"}} 2 1700000000123")
    );
    assert_eq!(
        lines[8],
        format!("tacho_ttft_seconds_bucket{{{labels},le=\"4\"}} 3 1700000000123")
    );
    assert_eq!(
        lines[16],
        format!("tacho_ttft_seconds_bucket{{{labels},le=\"1024\"}} 3 1700000000123")
    );
    assert_eq!(
        lines[17],
        format!("tacho_ttft_seconds_bucket{{{labels},le=\"+Inf\"}} 3 1700000000123")
    );
    assert_eq!(
        lines[18],
        format!("tacho_ttft_seconds_sum{{{labels}}} 2.250001 1700000000123")
    );
    assert_eq!(
        lines[19],
        format!("tacho_ttft_seconds_count{{{labels}}} 3 1700000000123")
    );
}

#[test]
fn window_gauges_show_the_last_final_window_only() {
    let ratio = |numerator, denominator| Amount::Ratio {
        numerator,
        denominator,
    };
    let shown = Shown {
        total: Some(ratio(9, 9)),
        last_final: BTreeMap::from([
            (0, (EventTime(60_000), ratio(1, 4))),
            (1, (EventTime(0), ratio(1, 2))),
            (2, (EventTime(0), ratio(0, 0))),
        ]),
    };
    let quantiles = Shown {
        total: None,
        last_final: BTreeMap::from([(0, (EventTime(60_000), durations(&[1_000_000])))]),
    };
    let view = view(
        vec![
            (key(Metric::PolicyAutoRatio, &["default", "t"]), shown),
            (key(Metric::TtftWindow, &["default", "m"]), quantiles),
        ],
        vec![Some(60_000), Some(300_000), Some(0)],
    );
    let shown = Histogram {
        count: 1,
        sum: 1_000_000,
        zero: 0,
        buckets: BTreeMap::from([(0, 1)]),
    }
    .quantile(500)
    .unwrap();
    let mut expected = String::from(
        "# HELP tacho_ttft_window_seconds Quantiles of the time to first token in the last final window, within 1.1 %.\n\
         # TYPE tacho_ttft_window_seconds gauge\n",
    );
    for quantile in ["0.5", "0.9", "0.95", "0.99"] {
        let labels =
            format!("tenant=\"default\",model=\"m\",window=\"1m\",quantile=\"{quantile}\",log=\"main\"");
        writeln!(
            expected,
            "tacho_ttft_window_seconds{{{labels}}} {shown} 1700000000123"
        )
        .unwrap();
    }
    expected.push_str(
        "# HELP tacho_policy_auto_window_ratio Decisions made by policy among all decisions of the last final window.\n\
         # TYPE tacho_policy_auto_window_ratio gauge\n\
         tacho_policy_auto_window_ratio{tenant=\"default\",team=\"t\",window=\"1m\",log=\"main\"} 0.25 1700000000123\n",
    );
    assert_eq!(render(&view), expected);
}

#[test]
fn money_is_shown_in_its_unit_to_the_last_digit() {
    let usd = |values: &[&str], amount| (key(Metric::Cost, values), total(Amount::Count(amount)));
    let all = |basis: &'static str| ["default", "", "gpt", "", "", "", "", "", "", basis];
    let credits = (
        key(
            Metric::Credits,
            &["default", "", "gpt", "", "", "", "", "", "default"],
        ),
        total(Amount::Count(12_500_001)),
    );
    let view = view(
        vec![
            usd(&all("api_list"), 1_230_000_001),
            usd(&all("subscription_equivalent"), i64::MAX),
            credits,
        ],
        vec![],
    );
    let text = render(&view);
    for line in [
        "tacho_cost_usd_total{tenant=\"default\",model=\"gpt\",billing_basis=\"api_list\",log=\"main\"} 1.230000001 1700000000123",
        "tacho_cost_usd_total{tenant=\"default\",model=\"gpt\",billing_basis=\"subscription_equivalent\",log=\"main\"} 9223372036.854775807 1700000000123",
        "tacho_credits_total{tenant=\"default\",model=\"gpt\",tier=\"default\",log=\"main\"} 12.500001 1700000000123",
    ] {
        assert!(
            text.lines().any(|shown| shown == line),
            "{line} is not in:\n{text}"
        );
    }
}

#[test]
fn decimals_are_exact() {
    assert_eq!(exact(0, 1_000_000), "0");
    assert_eq!(exact(1, 1_000_000), "0.000001");
    assert_eq!(exact(2_500_000, 1_000_000), "2.5");
    assert_eq!(exact(u64::MAX, 1_000_000), "18446744073709.551615");
    assert_eq!(exact(42, 1), "42");
}

/// Reads a line with a sample: labels, value and timestamp. It is an implementation of the format of its own.
fn parse(line: &str) -> (Vec<(String, String)>, f64, Option<i64>) {
    let (name_end, mut rest) = line
        .find('{')
        .map_or_else(|| (line.find(' ').unwrap(), None), |at| (at, Some(at + 1)));
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
    let sample = (
        labels,
        numbers.next().unwrap().parse().unwrap(),
        numbers.next().map(|at| at.parse().unwrap()),
    );
    assert_eq!(numbers.next(), None, "{line}");
    sample
}

proptest! {
    #[test]
    fn any_label_value_is_read_back(team in "[^\u{1f}]{1,20}", count in any::<i64>()) {
        let key = key(Metric::SessionsActive, &["default", &team, "cli"]);
        let text = render(&view(vec![(key, total(Amount::Count(count)))], vec![]));
        // Lines are separated by \n only, since a label value may hold any other character, \r included.
        let lines: Vec<&str> = text.split('\n').collect();
        prop_assert_eq!(lines.len(), 4);
        let (labels, value, at) = parse(lines[2]);
        prop_assert_eq!(&labels[1], &("team".to_owned(), team));
        prop_assert_eq!(value, count as f64);
        prop_assert_eq!(at, Some(1_700_000_000_123));
    }
}
