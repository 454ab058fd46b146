//! Final windows: they are published, and their percentiles are right.

use crate::support::tacho::{Start, read};
use crate::support::{eventually, now_ms, otlp};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use serde_json::Value;
use std::collections::BTreeMap;

/// A seed with windows of 2, 4 and 20 s. A window of the largest size is shown for 20 s, so no scrape misses it.
const SEED: &str = r#"
raw_partitions = 2
delta_partitions = 2
dimensions = ["team.id"]
[time]
slot_ms = 2_000
window_sizes_ms = [2_000, 4_000, 20_000]
grace_ms = 10_000
mark_ms = 1_000
max_skew_ms = 5_000
max_age_ms = 604_800_000
max_step_ms = 600_000
mark_age_ms = 3_600_000
marks_max = 16_384
[settings]
semantics = 1
session_gap_ms = 3_000
reopen_horizon_ms = 60_000
row_interval_ms = 500
"#;
const SIZES: [(&str, i64, &str); 3] = [
    ("1m", 2_000, "codex.windows.1m.v1"),
    ("5m", 4_000, "codex.windows.5m.v1"),
    ("1h", 20_000, "codex.windows.1h.v1"),
];
const METRIC: &str = "tacho_api_request_duration_window_seconds";
const QUANTILES: [(&str, &str, usize); 4] = [
    ("p50", "0.5", 500),
    ("p90", "0.9", 900),
    ("p95", "0.95", 950),
    ("p99", "0.99", 990),
];
const MANY: u64 = 10_000;

/// Durations in ms, from a fraction of a second to minutes, most of them short.
fn durations(count: u64) -> Vec<u64> {
    let mut random = crate::support::traffic::Random(count);
    let one = |_| {
        let magnitude = 4 + random.below(15);
        1 + random.below(1 << magnitude)
    };
    (0..count).map(one).collect()
}

fn requests(model: &str, time: i64, durations: &[u64]) -> Vec<LogRecord> {
    let number = |(number, duration): (u64, &u64)| {
        let mut record = otlp::request(model, time, model, 200, &duration.to_string());
        // Each record has an event time of its own, since equal records count once.
        record.observed_time_unix_nano += number;
        record
    };
    (0..).zip(durations).map(number).collect()
}

/// The value of rank `ceil(q n)` of n durations, in seconds.
fn exact(durations: &[u64], thousandths: usize) -> f64 {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * thousandths).div_ceil(1000).max(1) - 1] as f64 / 1000.0
}

fn assert_near(shown: f64, exact: f64, what: &str) {
    assert!(
        (shown - exact).abs() <= exact * 0.011,
        "{what}: {shown} is not within 1.1 % of {exact}"
    );
}

#[test]
fn percentiles_are_within_their_bound() {
    let dir = tempfile::tempdir().unwrap();
    let seed = dir.path().join("seed.toml");
    std::fs::write(&seed, SEED).unwrap();
    let data = dir.path().join("data");
    let tacho = Start::data(&data).arg("--seed").arg(&seed).ready();

    // The records are sent in a window of the largest size shortly before its end, with grace left to send all of them.
    let longest = SIZES[2].1;
    let now = now_ms();
    let (start, into) = (now - now % longest, now % longest);
    let time = if into < 4_000 { start - 1 } else { now };
    let values = BTreeMap::from([("few", durations(3)), ("many", durations(MANY))]);
    for (model, durations) in &values {
        tacho.logs(&otlp::encode(requests(model, time, durations)));
    }
    tacho.wait_for_count("tacho_api_requests_total", &[], 3 + i64::try_from(MANY).unwrap());

    let shown = tacho.metrics_when("quantiles of the longest window", |samples| {
        let gauge = |model, quantile| {
            samples.one(
                METRIC,
                &[("model", model), ("window", "1h"), ("quantile", quantile)],
            )
        };
        let found: Option<Vec<_>> = values
            .keys()
            .flat_map(|model| {
                QUANTILES
                    .map(|(_, quantile, _)| gauge(model, quantile).map(|value| (*model, quantile, value)))
            })
            .collect();
        found.ok_or_else(|| "not yet".to_owned())
    });
    for (model, quantile, value) in shown {
        let thousandths = QUANTILES.iter().find(|(_, name, _)| *name == quantile).unwrap().2;
        assert_near(
            value,
            exact(&values[model], thousandths),
            &format!("/metrics, {model}, {quantile}"),
        );
    }

    for (_, size, topic) in SIZES {
        for (model, durations) in &values {
            let row = final_row(topic, &data, model);
            assert_eq!(row["start_ms"].as_i64().unwrap(), time - time % size, "{topic}");
            assert_eq!(
                (&row["arrival_ms"], row["size_ms"].as_i64()),
                (&Value::Null, Some(size)),
                "{topic}: the count of records in time differs"
            );
            assert_eq!(
                row["value"]["count"].as_u64().unwrap(),
                durations.len() as u64,
                "{topic}"
            );
            assert_eq!(
                row["value"]["sum"].as_u64().unwrap(),
                durations.iter().sum::<u64>() * 1000,
                "{topic}: the sum differs"
            );
            for (name, _, thousandths) in QUANTILES {
                assert_near(
                    row["quantiles"][name].as_f64().unwrap(),
                    exact(durations, thousandths),
                    &format!("{topic}, {model}, {name}"),
                );
            }
        }
    }
}

/// The only window row of the durations of a model.
fn final_row(topic: &str, data: &std::path::Path, model: &str) -> Value {
    let label = serde_json::json!({"name": "model", "value": model});
    eventually(&format!("a row of {model} in {topic}"), || {
        let records = read(
            topic,
            &["--data".as_ref(), data.as_os_str(), "--from-start".as_ref()],
        );
        let rows = records.into_iter().map(|record| record["value"].clone());
        let is_ours =
            |row: &Value| row["metric"] == METRIC && row["labels"].as_array().unwrap().contains(&label);
        let mut rows: Vec<Value> = rows.filter(is_ours).collect();
        assert!(rows.len() < 2, "a window was published more than once: {rows:?}");
        rows.pop().ok_or_else(|| "no row yet".to_owned())
    })
}

#[test]
fn late_records_are_corrections_and_totals_have_them_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let seed = dir.path().join("seed.toml");
    std::fs::write(&seed, SEED.replace("grace_ms = 10_000", "grace_ms = 500")).unwrap();
    let data = dir.path().join("data");
    let tacho = Start::data(&data).arg("--seed").arg(&seed).ready();
    tacho.logs(&otlp::encode(vec![otlp::request("a", now_ms(), "m", 200, "100")]));
    // The first record sets the clock of its partition, and only after that a record can be late. All records are of one conversation,
    // and so in one partition.
    let late = now_ms() - 120_000;
    tacho.logs(&otlp::encode(vec![otlp::request("a", late, "m", 200, "200")]));
    tacho.wait_for_count("tacho_api_requests_total", &[("model", "m")], 2);
    tacho.wait_for_count("tacho_log_records_total", &[("outcome", "late")], 1);
    for (_, size, topic) in SIZES {
        let row = eventually(&format!("a correction in {topic}"), || {
            let records = read(
                topic,
                &["--data".as_ref(), data.as_os_str(), "--from-start".as_ref()],
            );
            let mut rows = records.into_iter().map(|record| record["value"].clone());
            let is_ours = |row: &Value| {
                row["metric"] == "tacho_api_requests_total" && row["start_ms"] == late - late % size
            };
            rows.rfind(is_ours).ok_or_else(|| "no row yet".to_owned())
        });
        assert!(
            row["arrival_ms"].as_i64().is_some_and(|arrival| arrival > late),
            "{row}"
        );
        assert_eq!(row["value"]["count"], 1);
    }
}
