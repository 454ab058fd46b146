//! `tacho` processes that are killed, stopped, or do not start.

use crate::support::samples::Samples;
use crate::support::tacho::{Start, Tacho, read, run};
use crate::support::{eventually, now_ms, otlp};
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};

const ROUNDS: usize = 3;
const CLIENTS: usize = 4;
/// How many answers a round waits for before the process is killed.
const ANSWERS: usize = 60;

/// The conversations that were sent, and those that were answered with 200.
#[derive(Default)]
struct Ledger {
    sent: BTreeSet<String>,
    acked: BTreeSet<String>,
}

#[test]
fn killed_under_load_it_goes_on_with_all_that_was_answered() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    for round in 0..ROUNDS {
        let tacho = Start::data(dir.path()).ready();
        let before = ledger.lock().unwrap().acked.len();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| client_thread(&tacho, round, client, &ledger))
            .collect();
        eventually("answers", || match ledger.lock().unwrap().acked.len() - before {
            count if count >= ANSWERS => Ok(()),
            count => Err(format!("{count} of {ANSWERS}; {}", tacho.said())),
        });
        tacho.kill();
        clients.into_iter().for_each(|client| client.join().unwrap());
    }

    let tacho = Start::data(dir.path()).ready();
    let place = ["--data".as_ref(), dir.path().as_os_str()];
    let kept = conversations_in_raw(&place);
    {
        let ledger = ledger.lock().unwrap();
        let lost: Vec<_> = ledger.acked.difference(&kept).collect();
        assert!(
            lost.is_empty(),
            "conversations answered with 200 were lost: {lost:?}"
        );
        let made_up: Vec<_> = kept.difference(&ledger.sent).collect();
        assert!(
            made_up.is_empty(),
            "there are conversations that were never sent: {made_up:?}"
        );
    }
    expect_totals(&tacho, kept.len());

    // A process that is started again continues with the state.
    for number in 0..20 {
        tacho.logs(&conversation(&format!("after-{number}")));
    }
    expect_totals(&tacho, kept.len() + 20);
    let rows = eventually("a row of each conversation", || {
        let rows = rows(&place);
        if rows.len() == kept.len() + 20 && rows.values().all(|row| *row == [1, 1, 110]) {
            Ok(rows)
        } else {
            Err(format!("{rows:?}"))
        }
    });
    assert!(kept.iter().all(|conversation| rows.contains_key(conversation)));
    tacho.kill();

    // A process that is killed at rest does not change results either.
    let tacho = Start::data(dir.path()).ready();
    expect_totals(&tacho, kept.len() + 20);
}

/// Prompts, responses and tokens in the row of each conversation.
fn rows(place: &[&OsStr]) -> BTreeMap<String, [i64; 3]> {
    let row = |record: serde_json::Value| {
        let row = &record["value"];
        let of = |value: &serde_json::Value| value.as_i64().unwrap();
        let counts = [
            of(&row["user_prompts"]),
            of(&row["responses_completed"]),
            of(&row["tokens"]["total"]),
        ];
        (row["conversation_id"].as_str().unwrap().to_owned(), counts)
    };
    read("codex.sessions.v1", place).into_iter().map(row).collect()
}

fn conversation(id: &str) -> Vec<u8> {
    let now = now_ms();
    otlp::encode(vec![otlp::prompt(id, now), otlp::tokens(id, now, 100, 10)])
}

/// Sends one conversation after another until the process has ended.
fn client_thread(
    tacho: &Tacho,
    round: usize,
    client: usize,
    ledger: &Arc<Mutex<Ledger>>,
) -> std::thread::JoinHandle<()> {
    let (post, ledger) = (tacho.poster(), Arc::clone(ledger));
    std::thread::spawn(move || {
        for number in 0.. {
            let id = format!("r{round}-{client}-{number}");
            ledger.lock().unwrap().sent.insert(id.clone());
            match post("/v1/logs", &conversation(&id)) {
                Ok(200) => ledger.lock().unwrap().acked.insert(id),
                _ => return,
            };
        }
    })
}

fn conversations_in_raw(place: &[&OsStr]) -> BTreeSet<String> {
    let mut args = place.to_vec();
    args.push("--from-start".as_ref());
    let keys = read("codex.raw.logs.v1", &args)
        .into_iter()
        .map(|record| record["key"].as_str().unwrap().to_owned());
    keys.filter_map(|key| key.strip_prefix("default/").map(str::to_owned))
        .collect()
}

fn expect_totals(tacho: &Tacho, conversations: usize) {
    let count = i64::try_from(conversations).unwrap();
    let found = |samples: &Samples| {
        [
            samples.count("tacho_turns_total", &[]),
            samples.count("tacho_sessions_started_total", &[]),
            samples.count("tacho_log_records_total", &[("outcome", "applied")]),
            samples.count("tacho_tokens_total", &[]),
        ]
    };
    let wanted = [count, count, 2 * count, 110 * count];
    tacho.metrics_when("totals of all that is kept", |samples| match found(samples) {
        is if is == wanted => Ok(()),
        is => Err(format!("{is:?}, not {wanted:?}")),
    });
}

#[test]
fn ctrl_c_ends_it_and_all_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let tacho = Start::data(dir.path()).ready();
    tacho.logs(&conversation("kept"));
    tacho.wait_for_count("tacho_turns_total", &[], 1);
    let (status, said) = tacho.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!(
        conversations_in_raw(&["--data".as_ref(), dir.path().as_os_str()]),
        BTreeSet::from(["kept".to_owned()])
    );
    let tacho = Start::data(dir.path()).ready();
    tacho.wait_for_count("tacho_turns_total", &[], 1);
    tacho.signal(Signal::SIGTERM);
    let (status, said) = tacho.end();
    assert_eq!(status.code(), Some(0), "{said}");
}

/// Checks that a start is refused with one line that names `about`.
fn assert_refused(output: &Output, about: &str) {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    assert!(said.contains(about), "{about} is not in: {said}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

fn start_args<'a>(dir: &'a Path, http: &'a str) -> Vec<&'a OsStr> {
    let mut args: Vec<&OsStr> = [
        "--admin",
        "127.0.0.1:0",
        "--grpc",
        "127.0.0.1:0",
        "--http",
        http,
        "--data",
    ]
    .map(OsStr::new)
    .to_vec();
    args.push(dir.as_os_str());
    args
}

#[test]
fn a_directory_has_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let tacho = Start::data(dir.path()).ready();
    assert_refused(
        &run(&start_args(dir.path(), "127.0.0.1:0")),
        dir.path().to_str().unwrap(),
    );
    tacho.logs(&conversation("one"));
    tacho.wait_for_count("tacho_turns_total", &[], 1);
}

#[test]
fn a_busy_port_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert_refused(&run(&start_args(dir.path(), &address)), &address);
}

#[test]
fn a_foreign_directory_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("letter.txt"), "not ours").unwrap();
    assert_refused(
        &run(&start_args(dir.path(), "127.0.0.1:0")),
        dir.path().to_str().unwrap(),
    );
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "a refused start wrote into the directory"
    );
}
