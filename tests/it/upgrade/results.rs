//! A log gives the same results as in commit 6f5a53d, byte for byte but for what is changed by intent, whatever polls and
//! commits hold and wherever state is restored.

use crate::support::old::{self, OldLog};
use crate::support::replay::{Results, settle, worker};
use processor::runner::Options;
use processor::sink::prometheus::{Format, body};
use processor_log::Log;
use processor_log::embedded::Embedded;
use processor_log::simulated::SimCluster;
use schemas::delta::SEPARATOR;
use schemas::derived::{SessionRow, WindowRow, WindowValue};
use schemas::metric::{Amount, Metric};
use schemas::settings::Seed;
use schemas::topic::Topic;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use strum::VariantArray;

/// How polls and commits divide the log.
struct Cut {
    /// The most records of a poll.
    poll_max: usize,
    /// How many records are folded before a commit.
    commit_records: usize,
    /// After how many polls state is dropped, with what is not committed, and restored.
    restore_polls: usize,
}

/// Derives all that is in the log, and gives the results and the text of `/metrics`.
fn fold(log: impl Log, seed: &Seed, records: usize, cut: &Cut) -> (Results, String) {
    let options = Options {
        commit_interval: Duration::from_secs(3_600),
        behind_interval: Duration::from_secs(3_600),
        records_max: cut.commit_records,
        poll_max: cut.poll_max,
        ticks: false,
        backoff: Duration::ZERO,
        ..Options::default()
    };
    let (mut runner, view) = worker(log, seed, options);
    // Commits come by the number of records only until all raw records are folded; `settle` then commits
    // after every turn.
    for turn in 1..=records / cut.poll_max {
        runner.turn().unwrap();
        if turn % cut.restore_polls == 0 {
            runner.drop_state();
        }
    }
    settle(&mut runner).unwrap();
    let text = String::from_utf8(body(&view, "", Format::Text)).unwrap();
    (Results::of(runner.log(), &view), old::samples(&text))
}

/// The metrics whose results this version changes, each with the reason. All others are byte for byte what they were.
const CHANGED: &[(Metric, &str)] = &[
    (
        Metric::ApiRequests,
        "labels `transport`, `entrypoint` and `department`",
    ),
    (
        Metric::ApiRetries,
        "a retry takes the mark of its failure away, and upgrades are retries too",
    ),
    (Metric::ApiRetryRatio, "polls of /models are left out"),
    (Metric::ApiRequestDurationWindow, "polls of /models are left out"),
    (
        Metric::Compactions,
        "an inferred one is the requested one within a minute, not only by the next response",
    ),
    (
        Metric::CompactionReclaimedTokens,
        "what compactions at the endpoint gave back is known too",
    ),
    (
        Metric::SessionsStarted,
        "records that derive nothing begin no session",
    ),
    (
        Metric::SessionsActive,
        "records that derive nothing begin, prolong and re-open no session",
    ),
];

/// The metrics that the old version did not have.
const NEW: &[Metric] = &[
    Metric::ResponseDuration,
    Metric::FirstToken,
    Metric::WebsocketConnects,
    Metric::WebsocketConnectDuration,
    Metric::WebsocketReused,
    Metric::WebsocketFallbacks,
    Metric::PrewarmRequests,
    Metric::PrewarmResponses,
    Metric::PrewarmTokens,
    Metric::PrewarmCost,
    Metric::PrewarmWindows,
];

/// The event whose records derive, and have marks, since this version.
const DERIVES_NOW: &str = "codex.websocket_connect";

/// Whether results of a metric are those of the old version. `series` begins with the metric's name, which on `/metrics` may
/// have an ending.
fn is_same(series: &str) -> bool {
    let other = CHANGED.iter().map(|(metric, _)| metric).chain(NEW);
    let mut names = other.map(|metric| metric.def().name);
    let ends = |rest: &str| {
        ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| rest.strip_prefix(end))
            .unwrap_or(rest)
            .starts_with(['{', ' ', SEPARATOR])
    };
    !series.contains(DERIVES_NOW) && !names.any(|name| series.strip_prefix(name).is_some_and(ends))
}

/// The labels by which results are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// All of them, byte for byte.
    Labels,
    /// None: results are summed up by metric and window. In made-up logs, records that derive nothing name other agents and
    /// models than the rest of their conversations; they no longer say what a session is.
    Metric,
}

/// The sums of windows by topic, metric and window, and those of totals by metric.
fn by_metric(results: &Results) -> BTreeMap<String, i64> {
    let mut sums = BTreeMap::new();
    for (topic, _, row) in &results.windows {
        let row = WindowRow::decode(row).unwrap();
        let place = format!("{topic} {} {} {:?}", row.metric, row.start_ms, row.arrival_ms);
        *sums.entry(place).or_insert(0) += match row.value {
            WindowValue::Count { count } => count,
            WindowValue::Ratio {
                numerator,
                denominator,
            } => numerator + 1_000_000 * denominator,
            WindowValue::Histogram { count, sum, .. } => sum + 1_000_000_000 * count,
        };
    }
    for (series, total) in &results.totals {
        let metric = series.split(SEPARATOR).next().unwrap();
        *sums.entry(metric.to_owned()).or_insert(0) += match total {
            Amount::Count(count) => *count,
            Amount::Values(values) => i64::try_from(values.sum + 1_000_000_000 * values.count).unwrap(),
            Amount::Ratio { .. } => panic!("a ratio has no total: {series}"),
        };
    }
    sums
}

/// The windows and totals of metrics that are those of the old version; no sessions, whose rows have new fields and keys.
fn same_part(results: &Results) -> Results {
    let windows = results.windows.iter().filter(|(_, key, _)| is_same(key));
    let totals = results.totals.iter().filter(|(series, _)| is_same(series));
    Results {
        windows: windows.cloned().collect(),
        sessions: BTreeMap::new(),
        totals: totals
            .map(|(series, total)| (series.clone(), total.clone()))
            .collect(),
    }
}

fn same_lines(metrics: &str) -> Vec<&str> {
    metrics.lines().filter(|line| is_same(line)).collect()
}

/// What the rows of each conversation hold together that both versions count alike.
fn sums(results: &Results) -> BTreeMap<(String, String), Vec<i64>> {
    let mut sums: BTreeMap<_, Vec<i64>> = BTreeMap::new();
    for row in results.sessions.values() {
        let row = SessionRow::decode(row).unwrap();
        let counts = [
            row.user_prompts,
            row.conversation_starts,
            row.api_requests,
            row.api_errors,
            row.stream_failures,
            row.responses_completed,
            row.tokens.total,
            row.cost_nano_usd,
            row.micro_credits,
            row.unpriced_tokens,
            row.tool_calls,
            row.tool_failures,
            row.decisions.iter().map(|decision| decision.count).sum(),
        ];
        let sum = sums
            .entry((row.tenant, row.conversation_id))
            .or_insert_with(|| vec![0; counts.len()]);
        sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    // A conversation of which nothing derives had a row in the old version.
    sums.retain(|_, counts| counts.iter().any(|count| *count != 0));
    sums
}

fn assert_same_counts<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    found: &BTreeMap<K, V>,
    expected: &BTreeMap<K, V>,
    differs: &str,
) {
    for key in found.keys().chain(expected.keys()) {
        assert_eq!(found.get(key), expected.get(key), "{differs}: {key:?}");
    }
}

fn expect_same(name: &str, by: By) {
    let OldLog {
        inputs,
        seed,
        results,
        metrics,
    } = old::log(name);
    let by_windows = |topic: Topic| {
        results
            .windows
            .iter()
            .filter(|(name, ..)| *name == topic.name())
            .count()
    };
    assert!(
        by_windows(Topic::Windows1m) > 500 && by_windows(Topic::Windows5m) > 100,
        "{name} has too few results for the test"
    );
    assert!(
        results.corrections() > 50 && results.all_ended(),
        "{name} has too few results for the test"
    );
    let compare = |what: &str, (found, text): &(Results, String)| {
        let differs = format!("{name}: {what} and the old results");
        let (same, expected) = (same_part(found), same_part(&results));
        if by == By::Labels {
            same.assert_same(&expected, &differs);
        }
        assert_same_counts(&by_metric(&same), &by_metric(&expected), &differs);
        if by == By::Labels {
            // Made-up logs have records that are too late to be told from repetitions, which are in no row now.
            assert_same_counts(&sums(found), &sums(&results), &differs);
            let (found, expected) = (same_lines(text), same_lines(&metrics));
            let first = found.iter().zip(&expected).find(|(is, was)| is != was);
            assert_eq!(first, None, "{differs} differ on /metrics");
            assert_eq!(found.len(), expected.len(), "{differs}: samples on /metrics");
        }
    };

    let cluster = SimCluster::new(0, &seed);
    cluster.import(inputs.clone()).unwrap();
    let few = Cut {
        poll_max: 40,
        commit_records: 1,
        restore_polls: usize::MAX,
    };
    let with_few = fold(cluster.log("worker"), &seed, inputs.len(), &few);
    compare("a commit every 40 records", &with_few);
    let after = crate::support::replay::inputs(&mut cluster.log("reader"));
    assert!(after == inputs, "{name}: the worker wrote to an input");

    let dir = tempfile::tempdir().unwrap();
    let embedded = Embedded::open(dir.path(), &seed).unwrap();
    let many = Cut {
        poll_max: 100,
        commit_records: 450,
        restore_polls: 7,
    };
    let count = inputs.len();
    embedded.import(inputs).unwrap();
    let with_many = fold(embedded.handle(), &seed, count, &many);
    compare("a commit every 450 records, with restores", &with_many);
    with_many
        .0
        .assert_same(&with_few.0, &format!("{name}: many and few commits"));
    assert!(
        with_many.1 == with_few.1,
        "{name}: /metrics by many and few commits"
    );
}

/// All recordings of Codex, under the shipped settings, in sessions that end, re-open and begin again.
#[test]
fn recordings() {
    expect_same("recordings", By::Labels);
}

/// The traffic of [`crate::law`].
#[test]
fn traffic() {
    expect_same("traffic-1", By::Labels);
    expect_same("traffic-2", By::Labels);
}

/// Traffic with windows of 10 s and short sessions, under settings and prices that change five times.
#[test]
fn short_windows_and_epochs() {
    expect_same("busy-1", By::Metric);
}

/// Hundreds of conversations under the shipped rules of time, which end, re-open and are removed.
#[test]
fn many_conversations() {
    expect_same("busy-2", By::Metric);
}

/// A log with one raw partition and one deltas partition, with large requests and more dedup marks than are
/// kept.
#[test]
fn one_partition() {
    expect_same("busy-3", By::Metric);
}

/// The old logs hold the outcomes and metrics that are hard to get right.
#[test]
fn the_logs_show_enough() {
    let logs = [
        "recordings",
        "traffic-1",
        "traffic-2",
        "busy-1",
        "busy-2",
        "busy-3",
    ]
    .map(old::log);
    for outcome in [
        "applied",
        "duplicate",
        "late",
        "quarantined",
        "unknown",
        "unmarked",
    ] {
        let found = logs
            .iter()
            .any(|log| log.metrics.contains(&format!("outcome=\"{outcome}\"")));
        assert!(found, "no record is {outcome}");
    }
    let old = Metric::VARIANTS.iter().filter(|metric| !NEW.contains(metric));
    for metric in old.map(|metric| metric.def().name) {
        let of_metric = |line: &str| {
            line.strip_prefix(metric)
                .is_some_and(|rest| rest.starts_with(['{', ' ', '_']))
        };
        let found = logs.iter().any(|log| log.metrics.lines().any(of_metric));
        assert!(found, "{metric} has no sample");
    }
    let rows = || logs.iter().flat_map(|log| log.results.sessions.values());
    let rows: Vec<SessionRow> = rows().map(|row| SessionRow::decode(row).unwrap()).collect();
    let tenants: BTreeSet<&str> = rows.iter().map(|row| row.tenant.as_str()).collect();
    assert!(tenants.len() >= 3, "{tenants:?}");
    assert!(
        rows.iter().any(|row| row.epoch > 0) && rows.iter().any(|row| row.agent_name.starts_with("/root/"))
    );
    assert!(rows.iter().any(|row| row.spawned_agents > 0) && rows.iter().any(|row| row.open_calls > 0));
}
