use super::protobuf::{BucketSpan, MetricFamily, MetricType};
use super::*;
use proptest::prelude::*;
use prost::Message;
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

/// A sample as both formats have it: name, labels with `le` or `quantile`, value, timestamp.
type Flat = BTreeMap<(String, Vec<(String, String)>), (f64, Option<i64>)>;

/// The samples of a text, by an independent reading of the format.
fn flat_text(text: &str) -> Flat {
    let mut flat = Flat::new();
    for line in text
        .split('\n')
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let name = line[..line.find(['{', ' ']).unwrap()].to_owned();
        let (mut labels, value, at) = parse(line);
        labels.sort_unstable();
        assert_eq!(flat.insert((name, labels), (value, at)), None, "twice: {line}");
    }
    flat
}

/// The messages of a body, by their lengths.
fn decode(mut bytes: &[u8]) -> Vec<MetricFamily> {
    let mut families = Vec::new();
    while !bytes.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut bytes).unwrap());
    }
    families
}

/// The samples of protobuf messages, histograms in their classic form.
fn flat_protobuf(families: &[MetricFamily]) -> Flat {
    let mut flat = Flat::new();
    for family in families {
        let name = family.name.as_deref().unwrap();
        for metric in &family.metric {
            let labels = metric
                .label
                .iter()
                .map(|pair| (pair.name.clone().unwrap(), pair.value.clone().unwrap()));
            let labels: Vec<(String, String)> = labels.collect();
            let mut add = |suffix: &str, extra: Option<(&str, f64)>, value: f64| {
                let mut labels = labels.clone();
                labels.extend(extra.map(|(name, bound)| {
                    (
                        name.to_owned(),
                        if bound.is_finite() {
                            bound.to_string()
                        } else {
                            "+Inf".into()
                        },
                    )
                }));
                labels.sort_unstable();
                let key = (format!("{name}{suffix}"), labels);
                assert_eq!(
                    flat.insert(key, (value, metric.timestamp_ms)),
                    None,
                    "twice: {name}"
                );
            };
            let kind = MetricType::try_from(family.r#type.unwrap()).unwrap();
            match kind {
                MetricType::Counter => add("", None, metric.counter.as_ref().unwrap().value.unwrap()),
                MetricType::Gauge => add("", None, metric.gauge.as_ref().unwrap().value.unwrap()),
                MetricType::Untyped => add("", None, metric.untyped.as_ref().unwrap().value.unwrap()),
                MetricType::Summary => {
                    let summary = metric.summary.as_ref().unwrap();
                    summary
                        .quantile
                        .iter()
                        .for_each(|q| add("", Some(("quantile", q.quantile.unwrap())), q.value.unwrap()));
                    add("_sum", None, summary.sample_sum.unwrap());
                    add("_count", None, summary.sample_count.unwrap() as f64);
                }
                MetricType::Histogram => {
                    let shown = metric.histogram.as_ref().unwrap();
                    for bucket in &shown.bucket {
                        add(
                            "_bucket",
                            Some(("le", bucket.upper_bound.unwrap())),
                            bucket.cumulative_count.unwrap() as f64,
                        );
                    }
                    add("_sum", None, shown.sample_sum.unwrap());
                    add("_count", None, shown.sample_count.unwrap() as f64);
                }
            }
        }
    }
    flat
}

/// Native buckets out of spans and deltas: index → count.
fn native(shown: &protobuf::Histogram) -> BTreeMap<i32, u64> {
    let (mut buckets, mut index, mut count) = (BTreeMap::new(), 0, 0);
    let mut deltas = shown.positive_delta.iter();
    for span in &shown.positive_span {
        index += span.offset.unwrap();
        for _ in 0..span.length.unwrap() {
            count += deltas.next().unwrap();
            buckets.insert(index, u64::try_from(count).unwrap());
            index += 1;
        }
    }
    assert_eq!(deltas.next(), None);
    buckets
}

const OWN: &str = "# HELP tacho_ticks_total Ticks.\n# TYPE tacho_ticks_total counter\ntacho_ticks_total 4\n\n\
                   # TYPE tacho_size summary\ntacho_size{signal=\"logs\",quantile=\"0.5\"} 2.5\ntacho_size_sum{signal=\"logs\"} 5\ntacho_size_count{signal=\"logs\"} 2\n\n";

#[test]
fn protobuf_holds_what_the_text_holds_and_native_buckets() {
    let ratio = Shown {
        total: None,
        last_final: BTreeMap::from([(
            1,
            (
                EventTime(60_000),
                Amount::Ratio {
                    numerator: 1,
                    denominator: 3,
                },
            ),
        )]),
    };
    let view = view(
        vec![
            (
                key(Metric::Turns, &["default", "b\"\\\n", "gpt", "", "", "", "", ""]),
                total(Amount::Count(2)),
            ),
            (
                key(Metric::SessionsActive, &["default", "", ""]),
                total(Amount::Count(-1)),
            ),
            (key(Metric::PolicyAutoRatio, &["default", "t"]), ratio),
            (
                key(Metric::Ttft, &["default", "m", "", ""]),
                total(durations(&[0, 0, 250_000, 260_000, 2_000_001])),
            ),
            (
                key(Metric::Ttft, &["default", "n", "", ""]),
                total(durations(&[])),
            ),
        ],
        vec![None, Some(60_000)],
    );
    let families = decode(&body(&view, OWN, Format::Protobuf));
    let text = String::from_utf8(body(&view, OWN, Format::Text)).unwrap();
    assert_eq!(flat_protobuf(&families), flat_text(&text));
    let names: Vec<&str> = families
        .iter()
        .map(|family| family.name.as_deref().unwrap())
        .collect();
    let shown = [
        "tacho_ttft_seconds",
        "tacho_policy_auto_window_ratio",
        "tacho_sessions_active",
        "tacho_turns_total",
        "tacho_ticks_total",
        "tacho_size",
    ];
    assert_eq!(names, shown);
    for (family, def) in families.iter().zip(
        [
            Metric::Ttft,
            Metric::PolicyAutoRatio,
            Metric::SessionsActive,
            Metric::Turns,
        ]
        .map(Metric::def),
    ) {
        assert_eq!(family.help.as_deref(), Some(def.help));
        assert!(
            family
                .metric
                .iter()
                .all(|metric| metric.timestamp_ms == Some(1_700_000_000_123)),
            "{}",
            def.name
        );
    }
    assert!(
        families[4..]
            .iter()
            .flat_map(|family| &family.metric)
            .all(|metric| metric.timestamp_ms.is_none()),
        "own metrics have none"
    );
    let ttft: Vec<&protobuf::Histogram> = families[0]
        .metric
        .iter()
        .map(|metric| metric.histogram.as_ref().unwrap())
        .collect();
    let span = |offset, length| BucketSpan {
        offset: Some(offset),
        length: Some(length),
    };
    // 0.25 s is 2^(-16/8); 0.26 s is in the next bucket; 2.000001 s is just above 2^(8/8).
    assert_eq!(ttft[0].positive_span, [span(-16, 2), span(23, 1)]);
    assert_eq!(ttft[0].positive_delta, [1, 0, 0]);
    assert_eq!(
        (ttft[0].schema, ttft[0].zero_count, ttft[0].sample_count),
        (Some(3), Some(2), Some(5))
    );
    assert_eq!(ttft[0].zero_threshold, Some(2f64.powi(-128)));
    assert_eq!(
        (ttft[1].schema, ttft[1].zero_count, ttft[1].sample_count),
        (Some(3), Some(0), Some(0))
    );
    assert!(
        ttft[1].positive_span.is_empty() && ttft[1].zero_threshold.unwrap() > 0.0,
        "empty, and native all the same"
    );
}

#[test]
fn the_bytes_are_those_of_the_published_schema() {
    let view = view(
        vec![(
            key(Metric::Ttft, &["d", "", "", ""]),
            total(durations(&[1_000_000])),
        )],
        vec![],
    );
    let bytes = body(&view, "", Format::Protobuf);
    // By hand from metrics.proto, the histogram's end: schema 5, zero_threshold 6, zero_count 7, positive_span 12
    // {offset 0, length 1}, positive_delta 13; then field 7 ends and the metric's timestamp_ms, field 6, stands before it.
    let threshold = 2f64.powi(-128).to_le_bytes();
    let tail = [
        &[0x28, 6, 0x31][..],
        &threshold,
        &[0x38, 0, 0x62, 4, 0x08, 0, 0x10, 1, 0x68, 2],
    ]
    .concat();
    assert!(bytes.ends_with(&tail), "{bytes:x?}");
}

/// Reads one sample line back: the label values, by an independent reading of the format.
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
        // Only \n separates lines: a value may hold any other character, \r too.
        let lines: Vec<&str> = text.split('\n').collect();
        prop_assert_eq!(lines.len(), 4);
        let (labels, value, at) = parse(lines[2]);
        prop_assert_eq!(&labels[1], &("team".to_owned(), team));
        prop_assert_eq!(value, count as f64);
        prop_assert_eq!(at, Some(1_700_000_000_123));
    }

    #[test]
    fn any_view_is_the_same_in_both_formats(keys in proptest::collection::vec((0..Metric::COUNT, any::<i64>(), 0u64..1 << 40), 0..30)) {
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
            (key(metric, &values), Shown { total: Some(amount.clone()), last_final: BTreeMap::from([(0, (EventTime(0), amount))]) })
        });
        let view = view(series.collect(), vec![Some(0)]);
        let text = render(&view);
        prop_assert!(text.is_empty() || text.ends_with('\n'));
        prop_assert_eq!(flat_protobuf(&decode(&body(&view, "", Format::Protobuf))), flat_text(&text));
    }

    #[test]
    fn native_buckets_are_those_of_the_state_merged_down(values in proptest::collection::vec(0u64..1 << 45, 0..200), zeros in 0usize..3) {
        let values: Vec<u64> = values.into_iter().chain(std::iter::repeat_n(0, zeros)).collect();
        let amount = durations(&values);
        let Amount::Values(state) = &amount else { unreachable!("durations are values") };
        let mut merged: BTreeMap<i32, u64> = BTreeMap::new();
        for (index, count) in &state.buckets {
            // Four buckets of scale 5 make one of scale 3: the smallest i3 with 4 i3 >= i5.
            let coarse = -(-index).div_euclid(4);
            *merged.entry(coarse).or_default() += count;
        }
        let view = view(vec![(key(Metric::Ttft, &["default", "", "", ""]), total(amount.clone()))], vec![]);
        let families = decode(&body(&view, "", Format::Protobuf));
        let shown = families[0].metric[0].histogram.as_ref().unwrap();
        let buckets = native(shown);
        prop_assert_eq!(&buckets, &merged);
        prop_assert_eq!(shown.zero_count.unwrap() + buckets.values().sum::<u64>(), values.len() as u64);
        prop_assert_eq!(shown.sample_count, Some(values.len() as u64));
        // Each classic bucket is the sum of the native ones up to its bound.
        for bucket in shown.bucket.iter().filter(|bucket| bucket.upper_bound.unwrap().is_finite()) {
            let octave = bucket.upper_bound.unwrap().log2().round() as i32;
            let below = shown.zero_count.unwrap() + buckets.range(..=octave * 8).map(|(_, count)| count).sum::<u64>();
            prop_assert_eq!(bucket.cumulative_count, Some(below));
        }
    }
}
