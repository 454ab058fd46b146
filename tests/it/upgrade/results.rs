//! A log gives the same results as in commit 6f5a53d, byte for byte, whatever polls and commits hold and wherever state is
//! restored.

use crate::support::old::{self, OldLog};
use crate::support::replay::{Results, settle, worker};
use processor::runner::Options;
use processor::sink::prometheus::{Format, body};
use processor_log::Log;
use processor_log::embedded::Embedded;
use processor_log::simulated::SimCluster;
use schemas::derived::SessionRow;
use schemas::metric::Metric;
use schemas::settings::Seed;
use schemas::topic::Topic;
use std::collections::BTreeSet;
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
    // Commits come by the number of records only until all raw records are folded; `settle` then commits after every turn.
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

fn expect_same(name: &str) {
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
    let compare = |what: &str, (found, text): (Results, String)| {
        found.assert_same(&results, &format!("{name}: {what} and the old results"));
        let first = text.lines().zip(metrics.lines()).find(|(is, was)| is != was);
        assert_eq!(
            first, None,
            "{name}: {what} and the old results differ on /metrics"
        );
        assert_eq!(
            text.lines().count(),
            metrics.lines().count(),
            "{name}: {what}: the samples on /metrics differ"
        );
    };

    let cluster = SimCluster::new(0, &seed);
    cluster.import(inputs.clone()).unwrap();
    let few = Cut {
        poll_max: 40,
        commit_records: 1,
        restore_polls: usize::MAX,
    };
    compare(
        "a commit every 40 records",
        fold(cluster.log("worker"), &seed, inputs.len(), &few),
    );
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
    compare(
        "a commit every 450 records, with restores",
        fold(embedded.handle(), &seed, count, &many),
    );
}

/// All recordings of Codex, under the shipped settings, in sessions that end, re-open and begin again.
#[test]
fn recordings() {
    expect_same("recordings");
}

/// The traffic of [`crate::law`].
#[test]
fn traffic() {
    expect_same("traffic-1");
    expect_same("traffic-2");
}

/// Traffic with windows of 10 s and short sessions, under settings and prices that change five times.
#[test]
fn short_windows_and_epochs() {
    expect_same("busy-1");
}

/// Hundreds of conversations under the shipped rules of time, which end, re-open and are removed.
#[test]
fn many_conversations() {
    expect_same("busy-2");
}

/// A log with one raw partition and one deltas partition, with large requests and more dedup marks than are kept.
#[test]
fn one_partition() {
    expect_same("busy-3");
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
    for metric in Metric::VARIANTS.iter().map(|metric| metric.def().name) {
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
