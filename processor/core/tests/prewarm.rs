//! Prewarms: what a session asks for before its first turn is never billed, and no use is ever taken for it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use proptest::prelude::*;
use schemas::derived::{Prewarm, SessionRow};
use schemas::settings::Seed;
use support::websocket::{
    PREWARM_INPUT, answer, broken, connect, empty_answer, phase, prewarm, sent, start, turn,
};
use support::{Committed, Driven, Event, NOON, labelled, prompt, text, tokens};

/// Dollars for a million tokens of a prewarm: 9,000 at 5 dollars.
const PREWARM_NANO_USD: i64 = PREWARM_INPUT * 5_000;
/// Tokens of [`turn`].
const TURN_TOKENS: i64 = 1_200 + 60 + 1_500 + 25;
/// Dollars of [`turn`]: input at 5 and output at 30 dollars for a million.
const TURN_NANO_USD: i64 = 2_700 * 5_000 + 85 * 30_000;

/// Folds raw records, each of events of one conversation, half a second apart, and lets every wait pass.
fn fold(records: &[Vec<Event>]) -> (Committed, SessionRow) {
    let mut driven = Driven::new(Seed::shipped());
    let mut clock = NOON + 30_000;
    driven.tick(clock);
    for events in records {
        clock += 500;
        driven.send(clock, events);
        driven.restart_after_commit();
    }
    driven.tick(clock + 300_000);
    let row = driven.last_row();
    (driven.all(), row)
}

fn count(committed: &Committed, metric: &str, with: &[(&str, &str)]) -> i64 {
    labelled(&committed.deltas, metric, with)
}

fn prewarms(row: &SessionRow) -> (i64, i64, i64, i64) {
    let Prewarm {
        requests,
        completed,
        failed,
        input_uncached,
        ..
    } = row.prewarm.clone().unwrap_or_default();
    (requests, completed, failed, input_uncached)
}

/// One process: its start, its prewarm and one turn.
fn session(time: i64) -> Vec<Event> {
    let mut events = vec![start("c", time)];
    events.extend(prewarm("c", time + 10));
    events.extend(turn("c", time + 100));
    events
}

/// The events in the order of their times.
fn in_order(events: &[Event]) -> Vec<Event> {
    let mut events = events.to_vec();
    events.sort_by_key(|event| event.time);
    events
}

fn is_right(committed: &Committed, row: &SessionRow, processes: i64) {
    assert_eq!(row.tokens.total, processes * TURN_TOKENS);
    assert_eq!(row.cost_nano_usd, processes * TURN_NANO_USD);
    assert_eq!(row.responses_completed, processes * 2);
    let (_, completed, failed, input) = prewarms(row);
    assert_eq!(
        (completed, failed, input),
        (processes, 0, processes * PREWARM_INPUT)
    );
    assert_eq!(
        row.prewarm.as_ref().unwrap().cost_nano_usd,
        processes * PREWARM_NANO_USD
    );
    for (metric, value) in [
        ("tacho_tokens_total", processes * TURN_TOKENS),
        ("tacho_cost_usd_total", processes * TURN_NANO_USD),
        ("tacho_prewarm_tokens_total", processes * PREWARM_INPUT),
        ("tacho_prewarm_cost_usd_total", processes * PREWARM_NANO_USD),
        ("tacho_prewarm_responses_total", processes),
    ] {
        assert_eq!(count(committed, metric, &[]), value, "{metric}");
    }
}

#[test]
fn a_prewarm_is_counted_apart() {
    let (committed, row) = fold(&[session(NOON)]);
    is_right(&committed, &row, 1);
    assert_eq!(prewarms(&row).0, 1);
    assert_eq!(
        (row.api_requests, row.requests_failed, row.api_retries),
        (2, 0, 0)
    );
    assert_eq!(count(&committed, "tacho_api_requests_total", &[]), 2);
    let labels = [("phase", "prewarm"), ("outcome", "accepted")];
    assert_eq!(count(&committed, "tacho_websocket_connects_total", &labels), 1);
    let labels = [("basis", "window"), ("outcome", "completed")];
    assert_eq!(count(&committed, "tacho_prewarm_responses_total", &labels), 1);
    assert_eq!(
        count(
            &committed,
            "tacho_prewarm_windows_total",
            &[("closed_by", "total")]
        ),
        1
    );
    assert_eq!(count(&committed, "tacho_prewarm_windows_total", &[]), 1);
    // The first token of a prewarm is none of a turn, and its 9,000 tokens are no context that a compaction cut.
    assert_eq!(row.compactions, 0);
}

#[test]
fn every_way_that_a_window_ends_is_counted() {
    let opening = |time| {
        vec![
            start("c", time),
            phase("c", time + 10, "startup_prewarm_create_turn_context"),
        ]
    };
    let closed_by = |rest: Vec<Event>| {
        let mut events = opening(NOON);
        events.extend(rest);
        let (committed, row) = fold(&[events]);
        let ways = ["total", "resolve", "answer", "start", "timeout"];
        let counted = ways.map(|way| count(&committed, "tacho_prewarm_windows_total", &[("closed_by", way)]));
        (counted, row)
    };
    let total = closed_by(vec![phase("c", NOON + 20, "startup_prewarm_total")]).0;
    assert_eq!(total, [1, 0, 0, 0, 0]);
    let resolve = closed_by(vec![phase("c", NOON + 20, "startup_prewarm_resolve")]).0;
    assert_eq!(resolve, [0, 1, 0, 0, 0]);
    let (answered, row) = closed_by(vec![answer("c", NOON + 20, 100, 5)]);
    assert_eq!(answered, [0, 0, 1, 0, 0]);
    assert_eq!(row.tokens.total, 105);
    assert_eq!(closed_by(vec![start("c", NOON + 20)]).0, [0, 0, 0, 1, 0]);
    assert_eq!(closed_by(Vec::new()).0, [0, 0, 0, 0, 1]);
}

#[test]
fn a_window_lasts_a_minute_by_the_clock() {
    let mut driven = Driven::new(Seed::shipped());
    driven.send(
        NOON,
        &[
            start("c", NOON),
            phase("c", NOON, "startup_prewarm_create_turn_context"),
        ],
    );
    driven.tick(NOON + 59_999);
    driven.send(NOON + 59_999, &[connect("c", NOON + 59_999, None)]);
    driven.tick(NOON + 60_000);
    driven.send(NOON + 60_000, &[connect("c", NOON + 60_000, None)]);
    let committed = driven.commit();
    let phases = ["prewarm", "turn"]
        .map(|phase| count(&committed, "tacho_websocket_connects_total", &[("phase", phase)]));
    assert_eq!(phases, [1, 1]);
}

#[test]
fn a_process_that_is_killed_in_its_window_swallows_nothing() {
    // The first process is killed before its prewarm is answered; the second one resumes the conversation.
    let mut killed = vec![start("c", NOON)];
    killed.extend(prewarm("c", NOON + 10).into_iter().take(5));
    let (committed, row) = fold(&[killed.clone(), session(NOON + 5_000)]);
    is_right(&committed, &row, 1);
    assert_eq!(prewarms(&row).0, 2, "both prewarms were sent");
    assert_eq!(row.api_requests, 2);
    // A log that holds nothing of the second process but its turn swallows nothing either.
    let (committed, row) = fold(&[killed, turn("c", NOON + 5_000)]);
    assert_eq!(row.tokens.total, TURN_TOKENS);
    assert_eq!(count(&committed, "tacho_cost_usd_total", &[]), TURN_NANO_USD);
    assert_eq!(prewarms(&row), (1, 0, 0, 0));
}

#[test]
fn a_batch_that_is_sent_twice_counts_once() {
    let mut events = session(NOON);
    let rest = events.split_off(6);
    for records in [
        vec![session(NOON), session(NOON)],
        vec![events.clone(), events.clone(), rest.clone(), rest.clone()],
        vec![events.clone(), rest, events],
    ] {
        let (committed, row) = fold(&records);
        is_right(&committed, &row, 1);
        assert_eq!((prewarms(&row).0, row.api_requests), (1, 2));
    }
}

#[test]
fn two_processes_resume_one_conversation() {
    let (one, two) = (session(NOON), session(NOON + 13));
    // Batch by batch, in turns, and in one batch.
    let mut together = one.clone();
    together.extend(two.clone());
    let in_turns: Vec<Vec<Event>> = one
        .iter()
        .zip(&two)
        .flat_map(|(one, two)| [vec![one.clone()], vec![two.clone()]])
        .collect();
    for records in [vec![one, two], vec![together], in_turns] {
        let (committed, row) = fold(&records);
        is_right(&committed, &row, 2);
        assert_eq!((prewarms(&row).0, row.api_requests), (2, 4));
        assert_eq!(row.requests_failed, 0);
    }
}

/// Two processes that resume one conversation, at any distance, in one batch and record by record.
#[test]
fn two_processes_at_any_distance() {
    for distance in (0..1_200).step_by(3) {
        let mut other = session(NOON + distance);
        // No record of one process equals one of the other.
        for event in &mut other {
            event.attributes.push(("process", text("other")));
        }
        let mut events = session(NOON);
        events.extend(other);
        let one_by_one = in_order(&events)
            .into_iter()
            .map(|event| vec![event])
            .collect::<Vec<_>>();
        for records in [vec![events], one_by_one] {
            let (committed, row) = fold(&records);
            is_right(&committed, &row, 2);
            assert_eq!((prewarms(&row).0, row.api_requests), (2, 4), "{distance} ms");
        }
    }
}

#[test]
fn a_prewarm_that_fails_is_no_failure_of_a_request() {
    let mut events = vec![start("c", NOON)];
    events.extend(prewarm("c", NOON + 10).into_iter().take(5));
    events.extend([
        broken(
            "c",
            NOON + 40,
            "exceeded retry limit, last status: 429 Too Many Requests",
        ),
        phase("c", NOON + 41, "startup_prewarm_total"),
        connect("c", NOON + 99, None),
    ]);
    events.extend(turn("c", NOON + 100));
    let (committed, row) = fold(&[events]);
    assert_eq!(prewarms(&row), (1, 0, 1, 0));
    assert_eq!(
        (row.requests_failed, row.stream_failures, row.api_retries),
        (0, 0, 0)
    );
    assert_eq!(row.tokens.total, TURN_TOKENS);
    assert_eq!(count(&committed, "tacho_api_errors_total", &[]), 0);
}

#[test]
fn an_answer_that_says_nothing_is_use() {
    // A model without efforts: neither output, nor time to first token, nor effort.
    let mut events = session(NOON);
    events.extend([
        prompt("c", NOON + 2_000),
        sent("c", NOON + 2_010, true),
        empty_answer("c", NOON + 2_100, 100),
    ]);
    let (committed, row) = fold(&[events]);
    assert_eq!(row.tokens.total, TURN_TOKENS + 100);
    assert_eq!((row.responses_completed, prewarms(&row).1), (3, 1));
    assert_eq!(
        count(&committed, "tacho_prewarm_tokens_total", &[]),
        PREWARM_INPUT
    );
    // Over HTTP there are no prewarms.
    let (_, row) = fold(&[vec![
        support::request("c", NOON, 200, 0),
        empty_answer("c", NOON + 10, 100),
    ]]);
    assert_eq!((row.tokens.total, row.prewarm), (100, None));
}

#[test]
fn versions_without_phases_are_told_by_the_sign() {
    let of_version = |version: &'static str| {
        let mut events = vec![
            start("c", NOON),
            connect("c", NOON + 10, None),
            sent("c", NOON + 20, false),
            // People may write while the prewarm goes on.
            prompt("c", NOON + 25),
            empty_answer("c", NOON + 30, PREWARM_INPUT),
            sent("c", NOON + 110, true),
            tokens("c", NOON + 500, 1_200, 0, 60, 0),
            sent("c", NOON + 600, true),
            tokens("c", NOON + 900, 1_500, 0, 25, 0),
            // The second answer without output of a process is use.
            sent("c", NOON + 1_000, true),
            empty_answer("c", NOON + 1_100, 7),
        ];
        for event in &mut events {
            event.attributes.push(("app.version", text(version)));
        }
        fold(&[events])
    };
    let (committed, row) = of_version("0.121.0");
    assert_eq!(prewarms(&row), (1, 1, 0, PREWARM_INPUT));
    assert_eq!(row.tokens.total, TURN_TOKENS + 7);
    assert_eq!((row.api_requests, row.responses_completed), (3, 3));
    let labels = [("basis", "sign"), ("outcome", "completed")];
    assert_eq!(count(&committed, "tacho_prewarm_responses_total", &labels), 1);
    assert_eq!(count(&committed, "tacho_api_requests_total", &[]), 3);
    // A version that has phases may have lost them: then the sign decides too, once no phase came for a while.
    let (_, row) = of_version("0.171.0");
    assert_eq!(prewarms(&row).3, PREWARM_INPUT);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Times that are wrong by up to half a minute, in one batch: records are folded in any order.
    #[test]
    fn shuffled_times_neither_bill_a_prewarm_nor_swallow_use(shifts in prop::collection::vec(0..30_000_i64, 15)) {
        let mut events = session(NOON);
        prop_assert_eq!(events.len(), shifts.len());
        for (event, shift) in events.iter_mut().zip(&shifts) {
            event.time = NOON + shift;
        }
        let (committed, row) = fold(&[events]);
        is_right(&committed, &row, 1);
    }

    /// Records that come one by one, in any order.
    #[test]
    fn shuffled_records_neither_bill_a_prewarm_nor_swallow_use(order in Just((0..15).collect::<Vec<usize>>()).prop_shuffle()) {
        let events = session(NOON);
        let records: Vec<Vec<Event>> = order.iter().map(|at| vec![events[*at].clone()]).collect();
        let (committed, row) = fold(&records);
        is_right(&committed, &row, 1);
    }
}
