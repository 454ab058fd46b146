//! Tests that both formats hold the same, and that protobuf holds native histograms.

use super::super::protobuf::{self, BucketSpan, MetricFamily, MetricType};
use super::*;
use prost::Message;

/// Samples in a form common to both formats: value and timestamp by name and labels, `le` and `quantile` included.
type Flat = BTreeMap<(String, Vec<(String, String)>), (f64, Option<i64>)>;

/// The samples of a text.
fn flat_text(text: &str) -> Flat {
    let mut flat = Flat::new();
    for line in text
        .split('\n')
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let name = line[..line.find(['{', ' ']).unwrap()].to_owned();
        let (mut labels, value, at) = parse(line);
        labels.sort_unstable();
        assert_eq!(
            flat.insert((name, labels), (value, at)),
            None,
            "a sample is there twice: {line}"
        );
    }
    flat
}

/// The messages of a body, each of which comes after its length.
fn decode(mut bytes: &[u8]) -> Vec<MetricFamily> {
    let mut families = Vec::new();
    while !bytes.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut bytes).unwrap());
    }
    families
}

/// The samples of protobuf messages, with the classic form of histograms.
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
                    "a sample of {name} is there twice"
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

/// The native buckets of a histogram by index, from its spans and deltas.
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

/// Metrics of the process itself.
const OWN: &str = "# HELP tacho_ticks_total Ticks.\n# TYPE tacho_ticks_total counter\ntacho_ticks_total 4\n\n\
                   # TYPE tacho_size summary\ntacho_size{signal=\"logs\",quantile=\"0.5\"} 2.5\ntacho_size_sum{signal=\"logs\"} 5\ntacho_size_count{signal=\"logs\"} 2\n\n";

/// A view with a series of each kind of metric, and two histograms, one of them without values.
fn view_of_every_kind() -> View {
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
    view(
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
    )
}

#[test]
fn protobuf_holds_what_the_text_holds() {
    let view = view_of_every_kind();
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
        "a metric of the process has a timestamp"
    );
}

#[test]
fn histograms_in_protobuf_have_native_buckets_too() {
    let families = decode(&body(&view_of_every_kind(), OWN, Format::Protobuf));
    let ttft: Vec<&protobuf::Histogram> = families[0]
        .metric
        .iter()
        .map(|metric| metric.histogram.as_ref().unwrap())
        .collect();
    let span = |offset, length| BucketSpan {
        offset: Some(offset),
        length: Some(length),
    };
    // 0.25 s is 2^(-16/8), 0.26 s is in the next bucket, and 2.000001 s is just above 2^(8/8).
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
        "a histogram without values is not native"
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
    // The end of the histogram, encoded by hand from metrics.proto: schema is field 5, zero_threshold 6, zero_count 7,
    // positive_span (offset 0, length 1) 12, positive_delta 13. The metric's timestamp_ms, field 6, comes before the histogram.
    let threshold = 2f64.powi(-128).to_le_bytes();
    let tail = [
        &[0x28, 6, 0x31][..],
        &threshold,
        &[0x38, 0, 0x62, 4, 0x08, 0, 0x10, 1, 0x68, 2],
    ]
    .concat();
    assert!(bytes.ends_with(&tail), "{bytes:x?}");
}

proptest! {
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
            // Four buckets of scale 5 make one of scale 3, whose index is the smallest i3 with 4 i3 >= i5.
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
        // A classic bucket is the sum of the native buckets up to its bound.
        for bucket in shown.bucket.iter().filter(|bucket| bucket.upper_bound.unwrap().is_finite()) {
            let octave = bucket.upper_bound.unwrap().log2().round() as i32;
            let below = shown.zero_count.unwrap() + buckets.range(..=octave * 8).map(|(_, count)| count).sum::<u64>();
            prop_assert_eq!(bucket.cumulative_count, Some(below));
        }
    }
}
