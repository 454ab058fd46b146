//! A data directory whose `tacho` of commit 6f5a53d was killed is upgraded as `deploy/UPGRADING.md` says.

use super::page::{self, PageCommand};
use super::{COUNTED, LARGEST_WINDOW_MS, NEW_CONVERSATIONS, TOKENS};
use crate::support::old::{self, OldLog};
use crate::support::replay::{Results, inputs, settle, worker};
use crate::support::tacho::{FREE_PORTS, Start, Tacho, read, run};
use crate::support::{eventually, now_ms};
use processor::runner::Options;
use processor::sink::prometheus::{Format, body};
use processor_log::embedded::{self, Embedded, EmbeddedLog, Retention};
use schemas::topic::Topic;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

/// Opens a derivation of the log without deleting raw records by age, since they are as old as the data file.
fn open(dir: &Path, old: &OldLog, derived_prefix: &str) -> Arc<Embedded> {
    let retention = Retention {
        raw_age_ms: now_ms(),
        ..Retention::default()
    };
    let limits = embedded::Limits {
        retention,
        ..embedded::Limits::default()
    };
    Embedded::open_with(dir, &old.seed, derived_prefix, limits).unwrap()
}

/// Derives what is not committed yet, and gives the results and the samples on `/metrics`.
fn catch_up(log: EmbeddedLog, old: &OldLog) -> (Results, String) {
    let options = Options {
        ticks: false,
        ..Options::default()
    };
    let (mut runner, view) = worker(log, &old.seed, options);
    settle(&mut runner).unwrap();
    let text = String::from_utf8(body(&view, "", Format::Text)).unwrap();
    (Results::of(runner.log(), &view), old::samples(&text))
}

/// Sends requests for all conversations, and one that the old version got already, and waits for totals, rows
/// and windows.
fn go_on(tacho: &Tacho, dir: &Path, old: &OldLog) {
    let before = super::counts_of_one_pass(old);
    for (metric, count) in COUNTED.iter().zip(before) {
        tacho.wait_for_count(metric, &[], count);
    }
    let duplicates = |tacho: &Tacho| {
        tacho
            .metrics()
            .count("tacho_log_records_total", &[("outcome", "duplicate")])
    };
    let duplicates_before = duplicates(tacho);
    let conversations = super::conversations(old);
    let sent_ms = now_ms();
    for conversation in &conversations {
        tacho.logs(&super::request(conversation));
    }
    let sent = i64::try_from(conversations.len()).unwrap();
    let new = i64::try_from(NEW_CONVERSATIONS).unwrap();
    let added = [sent, TOKENS * sent, 2 * sent, new];
    for ((metric, count), added) in COUNTED.iter().zip(before).zip(added) {
        tacho.wait_for_count(metric, &[], count + added);
    }
    tacho.logs(&super::repeated(old));
    eventually("duplicates of an old request", || {
        let records = tacho.metrics().count("tacho_log_records_total", &[]) - (before[2] + added[2]);
        let repeated = duplicates(tacho) - duplicates_before;
        (repeated > 0 && records >= repeated)
            .then_some(())
            .ok_or_else(|| format!("{repeated} of {records}"))
    });
    let place = ["--data".as_ref(), dir.as_os_str()];
    eventually("the last final window of what was sent", || {
        let rows = read(Topic::Windows1h.name(), &place);
        let last = rows
            .iter()
            .filter_map(|row| row["value"]["start_ms"].as_i64())
            .max();
        let is_final = last.is_some_and(|start| start + LARGEST_WINDOW_MS > sent_ms);
        is_final
            .then_some(())
            .ok_or_else(|| format!("{last:?}, sent at {sent_ms}"))
    });
}

fn words(command: &PageCommand) -> Vec<&OsStr> {
    assert_eq!(command.program, "tacho");
    command.args.iter().map(OsStr::new).collect()
}

/// Runs a command of the page to its end, and gives what it printed.
fn printed(command: &PageCommand) -> String {
    let output = run(&words(command));
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out.into_owned()
}

/// Starts `tacho` on a directory that it must refuse, and checks what it says.
fn expect_refusal(args: &[&OsStr], said: &[&str]) {
    let ports = FREE_PORTS.map(OsStr::new);
    let output = run(&[args, &ports].concat());
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(!output.status.success(), "{text}");
    for said in said {
        assert!(text.contains(said), "{said:?} is not in {text}");
    }
}

#[test]
fn a_directory_is_derived_anew_beside_what_is_there() {
    let old = old::log("directory");
    let work = tempfile::tempdir().unwrap();
    let dir = work.path().join("data");
    old::unpack("directory.files", &dir);
    let [start, retire, old_rows]: [PageCommand; 3] =
        page::commands("A data directory", &[("DIR", dir.to_str().unwrap())])
            .try_into()
            .unwrap();

    let place = ["--data".as_ref(), dir.as_os_str()];
    expect_refusal(&place, &["semantics 1", "deploy/UPGRADING.md"]);
    let [given @ .., flag, prefix] = &words(&start)[..] else {
        panic!("{start:?}");
    };
    assert_eq!(given, place);
    let tacho = Start::data(&dir).arg(flag).arg(prefix).ready();
    go_on(&tacho, &dir, &old);
    let (status, said) = tacho.end();
    assert!(status.success(), "{said}");

    let prefix = prefix.to_str().unwrap();
    let embedded = open(&dir, &old, prefix);
    let (found, metrics) = catch_up(embedded.handle(), &old);
    let everything = super::all_inputs(&old, inputs(&mut embedded.handle()));
    drop(embedded);
    let (expected, expected_metrics) = super::one_pass(&old, everything);
    assert_eq!(metrics, expected_metrics);
    super::without_positions(found)
        .assert_same(&super::without_positions(expected), "the directory and one pass");

    // The old rows are as they were, also once nothing is kept for them any more.
    let rows_before = printed(&old_rows);
    assert_eq!(rows_before.lines().count(), super::rows_committed(&old));
    assert!(printed(&retire).contains("\"\" retired"));
    assert_eq!(printed(&old_rows), rows_before);
    expect_refusal(&place, &["retired", "--derived-prefix"]);
    Start::data(&dir).arg(flag).arg(prefix).ready();
}
