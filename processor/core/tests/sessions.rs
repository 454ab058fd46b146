//! The rules of stage `sessions`, each by an example: records in, rows and deltas out.

mod support;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use schemas::derived::SegmentState;
use schemas::id::Epoch;
use schemas::settings::Seed;
use schemas::time::{EventTime, PartitionClock};
use support::{Driven, Event, NOON, count, event, int, prompt, request, text, tokens};

fn driven() -> Driven {
    Driven::new(Seed::shipped())
}

#[test]
fn a_session_ends_by_the_clock_and_opens_again() {
    let mut run = driven();
    let gap = run.rules.seed.settings.session_gap_ms;
    let horizon = run.rules.seed.settings.reopen_horizon_ms;
    run.send(NOON, &[prompt("c", NOON)]);
    let rows = run.commit().rows;
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].state, rows[0].user_prompts), (SegmentState::Open, 1));

    run.tick(NOON + gap - 1);
    assert!(run.commit().rows.is_empty());
    run.tick(NOON + gap);
    let effects = run.commit();
    assert_eq!(effects.rows.len(), 1);
    assert_eq!(
        (effects.rows[0].state, effects.rows[0].ended_ms),
        (SegmentState::Ended, Some(NOON))
    );
    assert_eq!(count(&effects.deltas, "tacho_sessions_active", &[]), -1);

    let again = NOON + gap + 60_000;
    run.send(again, &[prompt("c", again)]);
    let effects = run.commit();
    assert_eq!(
        (effects.rows[0].state, effects.rows[0].segment_start_ms),
        (SegmentState::Reopened, NOON)
    );
    assert_eq!(
        count(&effects.deltas, "tacho_sessions_started_total", &[]),
        0,
        "a re-opened session is not counted as started"
    );
    assert_eq!(count(&effects.deltas, "tacho_sessions_active", &[]), 1);

    let much_later = again + gap + horizon + 1;
    run.tick(again + gap);
    run.tick(much_later);
    run.send(much_later, &[prompt("c", much_later)]);
    let effects = run.commit();
    let last = effects.rows.last().expect("a new segment has a row");
    assert_eq!(
        (last.state, last.segment_start_ms, last.user_prompts),
        (SegmentState::Open, much_later, 1)
    );
    assert_eq!(count(&effects.deltas, "tacho_sessions_started_total", &[]), 1);
}

#[test]
fn an_epoch_with_a_shorter_gap_ends_sessions_sooner() {
    let mut run = driven();
    run.send(NOON, &[prompt("c", NOON)]);
    let mut settings = run.rules.seed.settings.clone();
    settings.session_gap_ms = 10_000;
    run.rules.add(Epoch(1), settings);
    run.start_epoch(NOON + 1, 1);
    run.send(NOON + 2, &[prompt("c", NOON + 2)]);
    run.tick(NOON + 2 + 9_999);
    assert!(
        run.commit()
            .rows
            .iter()
            .all(|row| row.state == SegmentState::Open)
    );
    run.tick(NOON + 2 + 10_000);
    let rows = run.commit().rows;
    assert_eq!(
        (rows.len(), rows[0].state, rows[0].epoch),
        (1, SegmentState::Ended, 1)
    );
}

#[test]
fn an_open_session_is_published_at_most_once_per_row_interval() {
    let mut run = driven();
    run.send(NOON, &[prompt("c", NOON)]);
    assert_eq!(run.commit().rows.len(), 1);
    run.send(NOON + 500, &[request("c", NOON + 500, 200, 0)]);
    assert!(
        run.commit().rows.is_empty(),
        "a row came before the row interval was over"
    );
    run.tick(NOON + 2_000);
    let rows = run.commit().rows;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].api_requests, 1);
    run.tick(NOON + 5_000);
    assert!(
        run.commit().rows.is_empty(),
        "a session that did not change got a row"
    );
}

#[test]
fn an_active_session_moves_to_the_series_of_its_new_entrypoint() {
    let mut run = driven();
    let gap = run.rules.seed.settings.session_gap_ms;
    run.send(NOON, &[prompt("c", NOON)]);
    run.send(
        NOON + 1,
        &[event(
            "c",
            NOON + 1,
            "codex.user_prompt",
            vec![("originator", text("codex_exec"))],
        )],
    );
    let deltas = run.commit().deltas;
    let active = |deltas, entrypoint| count(deltas, "tacho_sessions_active", &[entrypoint]);
    assert_eq!((active(&deltas, "other"), active(&deltas, "exec")), (0, 1));
    run.tick(NOON + 1 + gap);
    let deltas = run.commit().deltas;
    assert_eq!((active(&deltas, "other"), active(&deltas, "exec")), (0, -1));
}

#[test]
fn retries_of_both_layers() {
    let mut run = driven();
    let at = |step: i64| NOON + step;
    run.send(
        at(10),
        &[
            prompt("c", at(0)),
            request("c", at(1), 500, 0),
            request("c", at(2), 500, 1), // a retry of layer http
            request("c", at(3), 429, 0), // a retry of layer stream: the last request failed
            request("c", at(4), 200, 0), // a retry of layer stream: the last request failed
            tokens("c", at(5), 100, 0, 10, 0),
            request("c", at(6), 200, 0), // no retry: a response completed
            event(
                "c",
                at(7),
                "codex.sse_event",
                vec![("error.message", text("idle timeout waiting for SSE"))],
            ),
            request("c", at(8), 200, 0), // a retry of layer stream: the stream failed
            prompt("c", at(9)),
            request("c", at(10), 200, 0), // no retry: a turn began
        ],
    );
    let effects = run.commit();
    assert_eq!(count(&effects.deltas, "tacho_api_requests_total", &[]), 7);
    assert_eq!(count(&effects.deltas, "tacho_api_retries_total", &["http"]), 1);
    assert_eq!(count(&effects.deltas, "tacho_api_retries_total", &["stream"]), 3);
    assert_eq!(
        count(&effects.deltas, "tacho_api_errors_total", &["rate_limited"]),
        1
    );
    assert_eq!(count(&effects.deltas, "tacho_api_errors_total", &["server"]), 2);
    assert_eq!((effects.rows[0].api_retries, effects.rows[0].api_errors), (4, 3));
}

#[test]
fn tokens_are_disjoint_and_checked() {
    let mut run = driven();
    let broken = |time, name: &'static str, value: i64| {
        let mut record = tokens("c", time, 100, 10, 10, 5);
        record.attributes.retain(|(key, _)| *key != name);
        record.attributes.push((name, int(value)));
        record
    };
    run.send(
        NOON,
        &[
            tokens("c", NOON, 1200, 800, 60, 20),
            broken(NOON + 1, "cached_token_count", 101),
            broken(NOON + 2, "reasoning_token_count", 11),
            broken(NOON + 3, "tool_token_count", 7),
        ],
    );
    let effects = run.commit();
    let total = |kind: &str| count(&effects.deltas, "tacho_tokens_total", &[kind]);
    assert_eq!(total("input_uncached"), 400 + 90 + 90);
    assert_eq!(total("input_cached"), 800 + 100 + 10 + 10);
    assert_eq!(total("output_visible"), 40 + 5 + 5);
    assert_eq!(total("output_reasoning"), 20 + 5 + 10 + 5);
    assert_eq!(
        effects.rows[0].tokens.total,
        1260 + 3 * 110,
        "kinds add up to the total, whatever counts contradict each other"
    );
    for mismatch in ["cached_gt_input", "reasoning_gt_output", "total_ne_sum"] {
        assert_eq!(
            count(
                &effects.deltas,
                "tacho_token_checksum_mismatch_total",
                &[mismatch]
            ),
            1,
            "{mismatch}"
        );
    }
}

#[test]
fn compactions_are_inferred_and_not_counted_twice() {
    let mut run = driven();
    let compact = |time| {
        event(
            "c",
            time,
            "codex.api_request",
            vec![
                ("endpoint", text("/responses/compact")),
                ("http.response.status_code", int(200)),
            ],
        )
    };
    run.send(
        NOON + 10,
        &[
            event(
                "c",
                NOON,
                "codex.conversation_starts",
                vec![("auto_compact_token_limit", int(8_000))],
            ),
            tokens("c", NOON + 1, 9_500, 0, 50, 0),
            tokens("c", NOON + 2, 9_000, 0, 50, 0),
            tokens("c", NOON + 3, 700, 0, 20, 0), // a compaction is inferred
            tokens("c", NOON + 4, 300, 0, 20, 0), // none is inferred: the tokens fell from far below the limit
            tokens("c", NOON + 5, 9_000, 0, 20, 0),
            compact(NOON + 6),
            tokens("c", NOON + 7, 500, 0, 20, 0), // the compaction that was requested
        ],
    );
    let effects = run.commit();
    assert_eq!(
        count(&effects.deltas, "tacho_compactions_total", &["inferred"]),
        1
    );
    assert_eq!(
        count(&effects.deltas, "tacho_compactions_total", &["endpoint"]),
        1
    );
    assert_eq!(effects.rows[0].compactions, 2);
}

fn decision(time: i64, call: &str, decision: &str, source: &str) -> Event {
    let attributes = vec![
        ("tool_name", text("exec_command")),
        ("call_id", text(call)),
        ("decision", text(decision)),
        ("source", text(source)),
    ];
    event("c", time, "codex.tool_decision", attributes)
}

fn result(time: i64, tool: &str, call: &str, success: &str, more: Vec<(&'static str, Value)>) -> Event {
    let mut attributes = vec![
        ("tool_name", text(tool)),
        ("call_id", text(call)),
        ("success", text(success)),
        ("duration_ms", text("7")),
    ];
    attributes.extend(more);
    event("c", time, "codex.tool_result", attributes)
}

#[test]
fn decisions_are_counted_by_source_and_tool_calls_by_outcome() {
    let mut run = driven();
    run.send(
        NOON + 10,
        &[
            decision(NOON, "a", "approved", "User"),
            decision(NOON + 1, "b", "approved", "Config"),
            decision(NOON + 2, "d", "denied", "User"),
            result(
                NOON + 3,
                "exec_command",
                "a",
                "true",
                vec![("tacho.exit_code", int(3))],
            ),
            result(
                NOON + 4,
                "echo_tool",
                "m",
                "false",
                vec![
                    ("mcp_server", text("demo")),
                    ("tool_namespace", text("mcp__demo")),
                ],
            ),
            result(NOON + 5, "made_up", "x", "false", vec![]),
        ],
    );
    let effects = run.commit();
    let decisions = |with: &[&str]| count(&effects.deltas, "tacho_approval_decisions_total", with);
    assert_eq!(
        (
            decisions(&["approved", "human"]),
            decisions(&["approved", "policy"]),
            decisions(&["denied", "human"])
        ),
        (1, 1, 1)
    );
    let calls = |with: &[&str]| count(&effects.deltas, "tacho_tool_calls_total", with);
    assert_eq!(
        (
            calls(&["exec_command", "success"]),
            calls(&["mcp", "failure"]),
            calls(&["other", "failure"])
        ),
        (1, 1, 1)
    );
    assert_eq!(count(&effects.deltas, "tacho_tool_nonzero_exit_total", &[]), 1);
    assert_eq!(
        (
            effects.rows[0].open_calls,
            effects.rows[0].tool_failures,
            effects.rows[0].nonzero_exits
        ),
        (1, 2, 1)
    );
}

#[test]
fn every_record_ends_in_one_outcome() {
    let mut run = driven();
    run.send(
        NOON,
        &[
            prompt("c", NOON),
            prompt("c", NOON),
            event("c", NOON, "codex.new", vec![]),
        ],
    );
    run.raw(NOON, "default/c", b"\xff\xff");
    run.raw(NOON, "default/other", &support::encode(&[prompt("c", NOON + 1)]));
    run.send(NOON + 200_000, &[prompt("c", NOON + 5)]);
    let effects = run.commit();
    let records = |outcome: &str| count(&effects.deltas, "tacho_log_records_total", &[outcome]);
    assert_eq!(records("applied"), 1);
    assert_eq!(records("duplicate"), 1);
    assert_eq!(
        records("unknown") - records("quarantined"),
        1,
        "a quarantined record counts under event unknown too"
    );
    assert_eq!(records("quarantined"), 2);
    assert_eq!(records("late"), 1);
    let reasons: Vec<_> = effects
        .quarantined
        .iter()
        .map(|record| (record.offset, record.reason))
        .collect();
    assert_eq!(reasons, [(1, "undecodable"), (2, "misrouted")]);
    assert_eq!(count(&effects.deltas, "tacho_turns_total", &[]), 2);
}

#[test]
fn lateness_is_judged_by_window_size() {
    let mut run = driven();
    run.send(NOON, &[prompt("c", NOON)]);
    let _ = run.commit();
    // Two minutes later the record is too late for its minute, and in time for five minutes and the hour.
    run.send(NOON + 120_000, &[prompt("c", NOON + 1)]);
    let deltas = run.commit().deltas;
    let (_, slots) = deltas
        .iter()
        .find(|(key, _)| key.starts_with("tacho_turns_total"))
        .expect("a turn was counted");
    let slot = slots.keys().next().expect("a series with deltas has a slot");
    assert_eq!(
        (slot.start, slot.late, slot.arrival),
        (EventTime(NOON), 1, Some(PartitionClock(NOON + 120_000)))
    );
}

#[test]
fn event_time_is_clamped_and_its_source_counted() {
    let mut run = driven();
    run.send(NOON, &[prompt("c", NOON + 3_600_000)]);
    let effects = run.commit();
    assert_eq!(count(&effects.deltas, "tacho_event_time_clamped_total", &[]), 1);
    assert_eq!(
        count(&effects.deltas, "tacho_event_time_source_total", &["attribute"]),
        1
    );
    assert_eq!(effects.rows[0].started_ms, NOON + run.rules.seed.time.max_skew_ms);
}
