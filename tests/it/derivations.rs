//! Two derivations of one log, side by side, have equal results, each under a name of its own.

use crate::support::broker::Broker;
use crate::support::old::{self, OldLog};
use crate::support::processes::{self, Process};
use crate::support::replay::{Results, replay, replay_into_view};
use crate::support::samples::Samples;
use crate::support::{eventually, now_ms, otlp};
use processor::view::View;
use processor_log::ReadLog;
use processor_log::embedded::{Embedded, Limits, Retention};
use schemas::id::TopicPartition;
use schemas::topic::Topic;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The prefix of the log on Kafka, which is also the derived prefix of the first derivation.
const PREFIX: &str = "beside.";
/// The derived prefix of the second derivation.
const SECOND: &str = "beside-again.";
/// How many conversations are sent, each with a prompt and a response.
const CONVERSATIONS: i64 = 40;

/// Opens a directory that keeps raw records for that time, and for longer if a derivation has not committed
/// them.
fn open(dir: &Path, old: &OldLog, derived_prefix: &str, raw_age_ms: i64) -> Arc<Embedded> {
    let retention = Retention {
        raw_age_ms,
        ..Retention::default()
    };
    let limits = Limits {
        retention,
        ..Limits::default()
    };
    Embedded::open_with(dir, &old.seed, derived_prefix, limits).unwrap()
}

/// The first offsets that are still in the raw partitions.
fn raw_starts(log: &Arc<Embedded>) -> Vec<i64> {
    let mut handle = log.handle();
    let raw = |partition| TopicPartition {
        topic: Topic::RawLogs,
        partition,
    };
    let partitions = log.partitions(Topic::RawLogs);
    (0..partitions)
        .map(|partition| handle.extent(raw(partition)).unwrap().start.0)
        .collect()
}

#[test]
fn a_directory_holds_two_and_deletes_raw_records_below_the_slower_one() {
    let old = old::log("traffic-1");
    let dir = tempfile::tempdir().unwrap();
    // The records are as old as the data file.
    let first = open(dir.path(), &old, "", now_ms());
    first.import(old.inputs.clone()).unwrap();
    let results = replay(first.handle(), &old.seed, 1_000).unwrap();
    assert!(results.windows.len() > 500 && results.all_ended());
    drop(first);

    let second = open(dir.path(), &old, "again.", 0);
    second.retain(now_ms()).unwrap();
    assert!(
        raw_starts(&second).iter().all(|start| *start == 0),
        "the second derivation has read nothing yet"
    );
    let (again, view) = replay_into_view(second.handle(), &old.seed, 1_000).unwrap();
    again.assert_same(&results, "the second derivation and the first");
    assert!(!view.partitions.is_empty());
    second.retain(now_ms()).unwrap();
    assert!(
        raw_starts(&second).iter().all(|start| *start > 0),
        "both have read all"
    );
    drop(second);

    let first = open(dir.path(), &old, "", 0);
    let mut kept = Results::of(&mut first.handle(), &View::default());
    kept.totals.clone_from(&results.totals);
    kept.assert_same(&results, "rows of the first derivation, as they were");
    drop(first);
    let unknown = Embedded::open_for_commands(dir.path(), &old.seed, "other.")
        .err()
        .unwrap();
    assert!(unknown.to_string().contains("other."), "{unknown}");
}

/// The samples of totals, by name and labels without `log`.
fn cumulative(samples: &Samples, log: &str) -> BTreeMap<(String, BTreeMap<String, String>), String> {
    let ends = ["_total", "_sum", "_count", "_bucket"];
    let of_log = samples.0.iter().filter(|((name, labels), _)| {
        labels.get("log").is_some_and(|found| found == log) && ends.iter().any(|end| name.ends_with(end))
    });
    of_log
        .map(|((name, labels), value)| {
            let mut labels = labels.clone();
            labels.remove("log");
            ((name.clone(), labels), value.to_string())
        })
        .collect()
}

/// The totals that a process shows once all that was sent is derived.
fn shown(process: &Process, log: &str) -> Samples {
    process.metrics_when("all turns", |samples| {
        match samples.count("tacho_turns_total", &[("log", log)]) {
            CONVERSATIONS => Ok(samples.clone()),
            other => Err(format!("{other} turns of {log}")),
        }
    })
}

#[test]
fn a_second_derivation_on_kafka_equals_the_first_under_a_name_of_its_own() {
    let bootstrap = Broker::shared().bootstrap();
    let apply = |more: &[&str]| {
        let mut args = vec![
            "topics",
            "apply",
            "--allow-single-broker",
            "--kafka",
            &bootstrap,
            "--prefix",
            PREFIX,
        ];
        args.extend(["--raw-partitions", "3"]);
        args.extend(more);
        let output = processes::tacho().args(&args).run();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    apply(&[]);
    let ingest = processes::ingest(&bootstrap, PREFIX).ready();
    let first = processes::processor(&bootstrap, PREFIX, "first").ready();
    for number in 0..CONVERSATIONS {
        let (conversation, now) = (format!("conversation-{number}"), now_ms());
        ingest.logs(&otlp::encode(vec![
            otlp::prompt(&conversation, now),
            otlp::tokens(&conversation, now, 90 + number, 10),
        ]));
    }
    let of_first = shown(&first, PREFIX);

    let made = apply(&["--derived-prefix", SECOND]);
    let shared = format!("created {PREFIX}");
    assert!(
        !made.contains(&shared) && made.contains(&format!("created {SECOND}tacho.deltas")),
        "{made}"
    );
    let second = processes::processor(&bootstrap, PREFIX, "second")
        .set("kafka.derived_prefix", SECOND)
        .set("derivation.ticks", "false")
        .ready();
    let of_second = shown(&second, SECOND);
    // The results of the deltas partitions are shown by several commits.
    eventually("equal results", || {
        let scrape = |process: &Process| Samples::parse(&process.get("/metrics").unwrap().1);
        let (of_first, of_second) = (scrape(&first), scrape(&second));
        let (one, other) = (cumulative(&of_first, PREFIX), cumulative(&of_second, SECOND));
        assert!(cumulative(&of_first, SECOND).is_empty() && cumulative(&of_second, PREFIX).is_empty());
        if one.len() > 20 && one == other {
            return Ok(());
        }
        let differs = one
            .iter()
            .find(|(series, value)| other.get(*series) != Some(value));
        Err(format!("{} and {} series; {differs:?}", one.len(), other.len()))
    });

    let id = |samples: &Samples, log: &str| -> String {
        let mut infos = samples.0.keys().filter(|(name, _)| name == "tacho_log_info");
        let (_, labels) = infos.next().unwrap();
        assert_eq!((labels["log"].as_str(), infos.next()), (log, None));
        labels["id"].clone()
    };
    assert_ne!(
        id(&of_first, PREFIX),
        id(&of_second, SECOND),
        "one log, two derivations"
    );
}
