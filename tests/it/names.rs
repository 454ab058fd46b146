//! A static member that is told that another member has its name: it joins again if that member died, and ends if another
//! process has the name. (`.ci/interop/outage.py` tests the case that no member has it, after a long outage.)

use crate::support::broker::Broker;
use crate::support::processes::{self, Launch, Process, processor, tacho};
use crate::support::{eventually, now_ms, otlp};
use nix::sys::signal::Signal;
use std::time::Duration;

/// The shortest session timeout that brokers allow by default.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// How many prompts are sent in one step.
const PROMPTS: i64 = 20;

fn apply(bootstrap: &str, prefix: &str) {
    let args = [
        "topics",
        "apply",
        "--kafka",
        bootstrap,
        "--prefix",
        prefix,
        "--raw-partitions",
        "3",
        "--allow-single-broker",
    ];
    let output = tacho().args(&args).run();
    assert!(output.status.success(), "{output:?}");
}

fn named_one(bootstrap: &str, prefix: &str) -> Launch {
    processor(bootstrap, prefix, "one").set(
        "group.session_timeout",
        &format!("{}s", SESSION_TIMEOUT.as_secs()),
    )
}

/// Sends [`PROMPTS`] prompts, each of a new conversation, and gives how many were sent in all.
fn send(door: &Process, sent: &mut i64) -> i64 {
    for number in *sent..*sent + PROMPTS {
        door.logs(&otlp::encode(vec![otlp::prompt(
            &format!("named-{number}"),
            now_ms(),
        )]));
    }
    *sent += PROMPTS;
    *sent
}

fn wait_to_hear(process: &Process, text: &str) {
    eventually(text, || {
        if process.said().contains(text) {
            Ok(())
        } else {
            Err(process.said())
        }
    });
}

fn expect_turns(worker: &Process, sent: i64) {
    worker.wait_for_count("tacho_turns_total", &[], sent);
}

#[test]
fn a_name_that_another_process_takes_is_its_own_until_that_dies() {
    let bootstrap = Broker::shared().bootstrap();
    apply(&bootstrap, "taken.");
    let door = processes::ingest(&bootstrap, "taken.")
        .set("inbox.enabled", "false")
        .ready();
    let mut sent = 0;
    let first = named_one(&bootstrap, "taken.").ready();
    expect_turns(&first, send(&door, &mut sent));

    // The process that took the name dies, and the first one joins again.
    let brief = named_one(&bootstrap, "taken.").start();
    wait_to_hear(&first, "somebody has our name in the group");
    brief.kill();
    wait_to_hear(&first, "nobody has our name in the group: joining again");
    expect_turns(&first, send(&door, &mut sent));

    // The process that took the name lives, so the first one ends, and has not fenced it.
    let second = named_one(&bootstrap, "taken.").start();
    let (status, said) = first.ended();
    assert!(
        status.code() != Some(0) && said.contains("fenced"),
        "{status}: {said}"
    );
    expect_turns(&second, send(&door, &mut sent));
    assert!(
        !second.said().contains("somebody has our name"),
        "{}",
        second.said()
    );
    second.signal(Signal::SIGTERM);
    let (status, said) = second.ended();
    assert_eq!(status.code(), Some(0), "{said}");
}
