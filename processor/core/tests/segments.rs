//! Segments of sessions: what begins, re-opens and names them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use schemas::derived::{SegmentState, SessionRow};
use schemas::settings::Seed;
use support::websocket::{answer, phase, start};
use support::{Driven, Event, NOON, event, labelled, prompt, request, text};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
/// Dollars of [`session`] in nano-dollars: 1,000 input tokens at 5 and 10 output tokens at 30 dollars for a million.
const COST: i64 = 1_000 * 5_000 + 10 * 30_000;

/// A record that derives nothing: one event of an answer's stream.
fn delta(time: i64) -> Event {
    let attributes = vec![
        ("event.kind", text("response.output_text.delta")),
        ("duration_ms", text("0")),
    ];
    event("c", time, "codex.sse_event", attributes)
}

fn idle_phase(time: i64) -> Event {
    phase("c", time, "thread_start_total")
}

fn session(time: i64) -> Vec<Event> {
    vec![
        idle_phase(time),
        start("c", time),
        prompt("c", time + 10),
        request("c", time + 200, 200, 0),
        delta(time + 300),
        answer("c", time + 400, 1_000, 10),
    ]
}

fn keys(rows: &[SessionRow]) -> Vec<String> {
    let mut keys: Vec<String> = rows.iter().map(SessionRow::key).collect();
    keys.dedup();
    keys
}

#[test]
fn records_that_derive_nothing_begin_no_session() {
    let mut driven = Driven::new(Seed::shipped());
    driven.send(NOON, &[idle_phase(NOON), delta(NOON + 1)]);
    let committed = driven.commit();
    assert!(committed.rows.is_empty());
    assert_eq!(driven.task.state_keys(), 0);
    let labels = [("outcome", "applied")];
    assert_eq!(labelled(&committed.deltas, "tacho_log_records_total", &labels), 2);
    assert_eq!(
        labelled(&committed.deltas, "tacho_sessions_started_total", &[]),
        0
    );
}

#[test]
fn records_that_derive_nothing_move_no_session() {
    let mut driven = Driven::new(Seed::shipped());
    driven.send(NOON, &session(NOON));
    let before = driven.commit().rows.pop().unwrap();
    assert_eq!((before.records, before.cost_nano_usd), (4, COST));
    assert_eq!(before.last_event_ms, NOON + 400);
    // They neither prolong it: it ends half an hour after its last record that derives.
    driven.send(NOON + 20 * MINUTE, &[delta(NOON + 20 * MINUTE)]);
    driven.tick(NOON + 30 * MINUTE);
    let ended = driven.commit().rows.pop().unwrap();
    assert_eq!(ended.state, SegmentState::Ended);
    assert_eq!((ended.last_event_ms, ended.records), (NOON + 400, 4));
    // Records that derive nothing do not open a session again that has ended.
    driven.send(NOON + HOUR, &[delta(NOON + HOUR), idle_phase(NOON + HOUR)]);
    let after = driven.commit();
    assert!(after.rows.is_empty());
    assert_eq!(labelled(&after.deltas, "tacho_sessions_active", &[]), 0);
}

#[test]
fn a_replay_neither_opens_a_session_again_nor_replaces_its_row() {
    let mut driven = Driven::new(Seed::shipped());
    driven.send(NOON, &session(NOON));
    driven.tick(NOON + 30 * MINUTE);
    let rows = driven.commit().rows;
    let ended = rows.last().unwrap();
    assert_eq!((ended.state, ended.cost_nano_usd), (SegmentState::Ended, COST));
    // Three hours later the marks of the records are gone, and the session is still known.
    driven.send(NOON + 3 * HOUR, &session(NOON));
    driven.restart();
    let replayed = driven.commit();
    assert!(replayed.rows.is_empty(), "{:?}", replayed.rows);
    assert_eq!(labelled(&replayed.deltas, "tacho_sessions_active", &[]), 0);
    // Something new opens it again.
    driven.send(NOON + 4 * HOUR, &[prompt("c", NOON + 4 * HOUR)]);
    let reopened = driven.commit().rows.pop().unwrap();
    assert_eq!(
        (reopened.state, reopened.user_prompts, reopened.cost_nano_usd),
        (SegmentState::Reopened, 2, COST)
    );
}

#[test]
fn two_segments_never_share_a_key() {
    let mut driven = Driven::new(Seed::shipped());
    driven.send(NOON, &session(NOON));
    driven.tick(NOON + 30 * MINUTE);
    let first = driven.commit().rows;
    // A day and a half later nothing is known of the session. What is replayed of it, here a part, is a segment of its own.
    let later = NOON + 36 * HOUR;
    driven.tick(later);
    assert_eq!(driven.task.state_keys(), 0);
    driven.send(later, &session(NOON)[..3]);
    driven.tick(later + 30 * MINUTE);
    let second = driven.commit().rows;
    assert_eq!((keys(&first).len(), keys(&second).len()), (1, 1));
    assert_eq!(first[0].segment_start_ms, second[0].segment_start_ms);
    assert_ne!(keys(&first), keys(&second));
    let last = second.last().unwrap();
    assert_eq!((last.state, last.cost_nano_usd), (SegmentState::Ended, 0));
}

#[test]
fn a_late_record_still_counts_in_totals() {
    let mut driven = Driven::new(Seed::shipped());
    driven.send(NOON, &session(NOON));
    driven.tick(NOON + 30 * MINUTE);
    driven.commit();
    // An answer that comes three hours late: nothing tells it from one that was counted before.
    let late = [answer("c", NOON + 300, 2_000, 0)];
    driven.send(NOON + 3 * HOUR, &late);
    let committed = driven.commit();
    assert!(committed.rows.is_empty());
    assert_eq!(labelled(&committed.deltas, "tacho_tokens_total", &[]), 2_000);
    let labels = [("outcome", "late")];
    assert_eq!(labelled(&committed.deltas, "tacho_log_records_total", &labels), 1);
}
