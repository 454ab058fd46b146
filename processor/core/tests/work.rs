//! What an agent does in a session: tool calls, sub-agents and compactions, with numbers worked out by hand.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use schemas::metric::Amount;
use support::websocket::answer;
use support::{Committed, Event, NOON, event, fold, int, labelled, text};

fn decided(time: i64, call: &'static str, decision: &'static str) -> Event {
    let attributes = vec![
        ("tool_name", text("exec_command")),
        ("call_id", text(call)),
        ("decision", text(decision)),
        ("source", text("Config")),
    ];
    event("c", time, "codex.tool_decision", attributes)
}

fn ended(time: i64, call: &'static str) -> Event {
    called(time, call, "exec_command", "functions", true)
}

fn called(
    time: i64,
    call: &'static str,
    tool: &'static str,
    namespace: &'static str,
    success: bool,
) -> Event {
    let attributes = vec![
        ("tool_name", text(tool)),
        ("tool_namespace", text(namespace)),
        ("call_id", text(call)),
        ("duration_ms", text("5")),
        ("success", text(success.to_string())),
    ];
    event("c", time, "codex.tool_result", attributes)
}

#[test]
fn a_call_that_ended_is_not_open_whichever_record_comes_first() {
    let (_, row) = fold(&[decided(NOON, "a", "approved"), ended(NOON + 1, "a")]);
    assert_eq!(row.open_calls, 0);
    let (_, row) = fold(&[ended(NOON + 1, "a"), decided(NOON, "a", "approved")]);
    assert_eq!((row.open_calls, row.tool_calls), (0, 1));
    // Three approvals, of which one call goes on; the same call may be approved twice.
    let (_, row) = fold(&[
        ended(NOON + 3, "b"),
        decided(NOON, "a", "approved"),
        decided(NOON + 1, "a", "approved_for_session"),
        decided(NOON + 2, "b", "approved"),
        decided(NOON + 4, "c", "approved"),
        ended(NOON + 5, "c"),
        decided(NOON + 6, "d", "denied"),
    ]);
    assert_eq!((row.open_calls, row.tool_calls), (1, 2));
}

#[test]
fn what_ended_before_its_decision_is_kept_in_mind_up_to_a_number() {
    let calls: Vec<&'static str> = (0..40).map(|number| &*format!("call-{number}").leak()).collect();
    let mut events: Vec<Event> = calls.iter().map(|call| ended(NOON, call)).collect();
    events.extend(calls.iter().map(|call| decided(NOON + 1, call, "approved")));
    let (_, row) = fold(&events);
    // Of 40 results the last 16 are known; of the other 24 calls the first 16 are open.
    assert_eq!(row.open_calls, 16);
}

#[test]
fn agents_of_both_generations_are_counted() {
    let first = |time| {
        let mut call = called(time, "a", "spawn_agent", "multi_agent_v1", true);
        call.attributes.push((
            "tacho.spawned_agent",
            text("01a21ec8-efb1-7ae1-a6a3-8ae83f8ead7e"),
        ));
        call
    };
    let (_, row) = fold(&[
        first(NOON),
        // The second generation answers with the name of a task; there is no id.
        called(NOON + 1, "b", "spawn_agent", "collaboration", true),
        called(NOON + 2, "c", "spawn_agent", "collaboration", false),
        // The first generation tells a failure by the missing id.
        called(NOON + 3, "d", "spawn_agent", "multi_agent_v1", true),
        called(NOON + 4, "e", "wait_agent", "collaboration", true),
    ]);
    assert_eq!((row.spawned_agents, row.tool_calls), (2, 5));
}

fn window(time: i64) -> Event {
    let attributes = vec![("context_window", int(100_000))];
    event("c", time, "codex.conversation_starts", attributes)
}

fn compact(time: i64) -> Event {
    let attributes = vec![
        ("duration_ms", text("900")),
        ("http.response.status_code", int(200)),
        ("attempt", Value::IntValue(0)),
        ("endpoint", text("/responses/compact")),
    ];
    event("c", time, "codex.api_request", attributes)
}

/// Number and sum of reclaimed tokens.
fn reclaimed(committed: &Committed) -> (u64, u64) {
    let of_metric = |series: &&String| series.starts_with("tacho_compaction_reclaimed_tokens");
    let amounts = committed
        .deltas
        .iter()
        .filter(|(series, _)| of_metric(series))
        .flat_map(|(_, slots)| slots.values());
    amounts.fold((0, 0), |(count, sum), amount| match amount {
        Amount::Values(values) => (count + values.count, sum + values.sum),
        other => panic!("tokens are a distribution: {other:?}"),
    })
}

#[test]
fn what_a_compaction_gave_back_is_known_whichever_way_it_was_noticed() {
    let inferred = [
        window(NOON),
        answer("c", NOON + 100, 80_000, 5),
        answer("c", NOON + 200, 20_000, 5),
    ];
    let (committed, row) = fold(&inferred);
    assert_eq!((row.compactions, reclaimed(&committed)), (1, (1, 60_000)));
    let requested = [
        window(NOON),
        answer("c", NOON + 100, 80_000, 5),
        compact(NOON + 150),
        answer("c", NOON + 200, 20_000, 5),
        answer("c", NOON + 300, 21_000, 5),
    ];
    let (committed, row) = fold(&requested);
    assert_eq!((row.compactions, reclaimed(&committed)), (1, (1, 60_000)));
    let of = |method| {
        labelled(
            &committed.deltas,
            "tacho_compactions_total",
            &[("method", method)],
        )
    };
    assert_eq!((of("endpoint"), of("inferred")), (1, 0));
}

#[test]
fn a_fall_within_a_minute_of_a_request_is_the_same_compaction() {
    let seen = |falls_at: i64| {
        let events = [
            window(NOON),
            answer("c", NOON + 100, 80_000, 5),
            compact(NOON + 1_000),
            // An answer in between that is as long as before, as of a request that was under way.
            answer("c", NOON + 2_000, 80_500, 5),
            answer("c", falls_at, 20_000, 5),
        ];
        let (committed, row) = fold(&events);
        let of = |method| {
            labelled(
                &committed.deltas,
                "tacho_compactions_total",
                &[("method", method)],
            )
        };
        (
            row.compactions,
            of("endpoint"),
            of("inferred"),
            reclaimed(&committed).1,
        )
    };
    assert_eq!(seen(NOON + 3_000), (1, 1, 0, 60_000));
    assert_eq!(seen(NOON + 61_000), (1, 1, 0, 60_000));
    assert_eq!(seen(NOON + 61_001), (2, 1, 1, 60_500));
}
