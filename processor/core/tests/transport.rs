//! Requests over WebSocket: what counts as a request, a failure, a retry and a fallback, in whatever order records come.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use schemas::derived::SessionRow;
use schemas::settings::Seed;
use support::websocket::{answer, broken, connect, prewarm, sent, sent_or_not, start, turn};
use support::{Committed, Driven, NOON, event, fold, int, labelled, prompt, request, text, tokens};

const CUT: &str = "stream disconnected before completion: WebSocket protocol error: Connection reset without closing handshake";
const REFUSED: &str = "exceeded retry limit, last status: 429 Too Many Requests";

fn count(committed: &Committed, metric: &str, with: &[(&str, &str)]) -> i64 {
    labelled(&committed.deltas, metric, with)
}

#[test]
fn requests_are_counted_with_the_status_of_their_end() {
    let mut events = turn("c", NOON);
    events.extend([
        sent("c", NOON + 1_000, true),
        broken("c", NOON + 1_001, REFUSED),
        connect("c", NOON + 2_000, None),
        sent("c", NOON + 2_001, false),
        broken("c", NOON + 2_002, CUT),
        connect("c", NOON + 3_000, None),
        sent("c", NOON + 3_001, false),
        answer("c", NOON + 3_900, 500, 10),
        // Nothing comes of this request before the next prompt.
        sent("c", NOON + 4_000, true),
        prompt("c", NOON + 9_000),
    ]);
    let (committed, row) = fold(&events);
    let by_class = |class| {
        let labels = [("transport", "websocket"), ("status_class", class)];
        count(&committed, "tacho_api_requests_total", &labels)
    };
    assert_eq!(["2xx", "429", "none"].map(by_class), [3, 1, 2]);
    assert_eq!(
        count(
            &committed,
            "tacho_api_requests_total",
            &[("attempt_class", "retry")]
        ),
        2
    );
    assert_eq!(
        count(&committed, "tacho_api_retries_total", &[("layer", "websocket")]),
        2
    );
    let by_error = |code, kind| {
        let labels = [("status_code", code), ("error_type", kind)];
        count(&committed, "tacho_api_errors_total", &labels)
    };
    assert_eq!(by_error("429", "rate_limited"), 1);
    assert_eq!(by_error("none", "network"), 1);
    assert_eq!(count(&committed, "tacho_api_rate_limited_total", &[]), 1);
    // A refused request has no stream that broke.
    assert_eq!(count(&committed, "tacho_stream_failures_total", &[]), 1);
    let websocket = row.websocket.unwrap();
    assert_eq!(
        (websocket.requests, websocket.reused, websocket.connects),
        (6, 4, 2)
    );
    assert_eq!((row.api_requests, row.api_errors, row.requests_failed), (6, 2, 2));
    assert_eq!((row.api_retries, row.api_retries_websocket), (2, 2));
    assert_eq!(row.responses_completed, 3);
    // Whole answers took 490, 300 and 899 ms.
    assert_eq!(row.answer_us, 1_689_000);
}

#[test]
fn a_request_without_an_end_is_counted_after_five_minutes() {
    let mut driven = Driven::new(Seed::shipped());
    driven.send(NOON, &[prompt("c", NOON), sent("c", NOON, true)]);
    driven.tick(NOON + 299_999);
    let before = driven.commit();
    assert_eq!(count(&before, "tacho_api_requests_total", &[]), 0);
    assert_eq!(before.rows[0].api_requests, 1, "a row counts what was sent");
    driven.restart();
    driven.tick(NOON + 300_000);
    let after = driven.commit();
    let labels = [("transport", "websocket"), ("status_class", "none")];
    assert_eq!(count(&after, "tacho_api_requests_total", &labels), 1);
    // What comes of it after all is an answer, and no second request.
    driven.send(NOON + 310_000, &[answer("c", NOON + 310_000, 100, 5)]);
    let late = driven.commit();
    assert_eq!(count(&late, "tacho_api_requests_total", &[]), 0);
    assert_eq!(count(&late, "tacho_tokens_total", &[]), 105);
}

#[test]
fn refused_upgrades_are_retries_and_send_codex_to_http() {
    let events = [
        prompt("c", NOON),
        connect("c", NOON + 10, Some(503)),
        connect("c", NOON + 210, Some(503)),
        connect("c", NOON + 610, Some(503)),
        // The third failure is answered over HTTP, which is a retry too.
        request("c", NOON + 900, 200, 0),
        answer("c", NOON + 1_300, 100, 5),
        request("c", NOON + 1_500, 200, 0),
        answer("c", NOON + 1_700, 100, 5),
    ];
    let (committed, row) = fold(&events);
    assert_eq!(
        (row.api_retries_websocket, row.api_retries_stream, row.api_retries),
        (2, 1, 3)
    );
    let websocket = row.websocket.unwrap();
    assert_eq!((websocket.connects, websocket.refused_in_turns), (3, 3));
    assert_eq!((websocket.requests, websocket.fallbacks), (0, 1));
    assert_eq!(count(&committed, "tacho_websocket_fallbacks_total", &[]), 1);
    let labels = [("outcome", "refused"), ("status_code", "503"), ("phase", "turn")];
    assert_eq!(count(&committed, "tacho_websocket_connects_total", &labels), 3);
    let labels = [("transport", "http"), ("attempt_class", "retry")];
    assert_eq!(count(&committed, "tacho_api_requests_total", &labels), 1);
}

#[test]
fn an_upgrade_that_sends_codex_to_http_is_no_failure() {
    let events = [
        prompt("c", NOON),
        connect("c", NOON + 10, Some(426)),
        request("c", NOON + 100, 200, 0),
        answer("c", NOON + 400, 100, 5),
    ];
    let (_, row) = fold(&events);
    assert_eq!((row.api_retries, row.requests_failed), (0, 0));
    assert_eq!(row.websocket.unwrap().fallbacks, 1);
}

/// Codex 0.142.5 sends into a connection that the server has closed.
#[test]
fn a_request_that_was_not_sent_is_no_request() {
    let events = [
        prompt("c", NOON),
        sent_or_not("c", NOON + 10, true, false),
        broken(
            "c",
            NOON + 11,
            "failed to send websocket request: Connection closed normally",
        ),
        connect("c", NOON + 200, None),
        sent("c", NOON + 210, false),
        answer("c", NOON + 500, 100, 5),
    ];
    let (committed, row) = fold(&events);
    assert_eq!(
        (row.api_requests, row.requests_failed, row.stream_failures),
        (1, 0, 0)
    );
    assert_eq!(row.api_retries_websocket, 1);
    let labels = [("attempt_class", "retry"), ("status_class", "2xx")];
    assert_eq!(count(&committed, "tacho_api_requests_total", &labels), 1);
}

#[test]
fn both_transports_tell_one_duration() {
    // The whole answer takes 900 ms: 120 ms to the headers and 780 ms to the end.
    let http = [
        request("c", NOON + 120, 200, 0),
        tokens("c", NOON + 900, 1_200, 0, 60, 0),
    ];
    let websocket = [sent("c", NOON, true), tokens("c", NOON + 900, 1_200, 0, 60, 0)];
    for events in [&http, &websocket] {
        let (_, row) = fold(events);
        assert_eq!(row.answer_us, 900_000);
        assert_eq!(row.tokens.total, 1_260);
    }
}

#[test]
fn an_answer_before_its_request_ends_nothing() {
    let events = [
        sent("c", NOON + 500, true),
        answer("c", NOON + 100, 100, 5),
        answer("c", NOON + 900, 200, 5),
    ];
    let (committed, row) = fold(&events);
    assert_eq!(
        count(&committed, "tacho_api_requests_total", &[("status_class", "2xx")]),
        1
    );
    assert_eq!((row.answer_us, row.responses_completed), (400_000, 2));
}

#[test]
fn polls_are_in_no_quantile_and_no_ratio() {
    let poll = |time, attempt| {
        let attributes = vec![
            ("duration_ms", text("40")),
            ("http.response.status_code", int(200)),
            ("attempt", int(attempt)),
            ("endpoint", text("/models")),
        ];
        event("c", time, "codex.api_request", attributes)
    };
    let (committed, _) = fold(&[poll(NOON, 0), poll(NOON + 1, 1)]);
    assert_eq!(count(&committed, "tacho_api_requests_total", &[]), 2);
    let has = |metric: &str| committed.deltas.keys().any(|series| series.starts_with(metric));
    assert!(has("tacho_api_request_duration_seconds"));
    assert!(!has("tacho_api_request_duration_window_seconds"));
    assert!(!has("tacho_api_retry_window_ratio"));
    let (committed, _) = fold(&[request("c", NOON, 200, 0)]);
    let has = |metric: &str| committed.deltas.keys().any(|series| series.starts_with(metric));
    assert!(has("tacho_api_request_duration_window_seconds") && has("tacho_api_retry_window_ratio"));
}

#[test]
fn a_session_over_either_transport_comes_to_the_same() {
    let mut websocket = vec![start("c", NOON)];
    websocket.extend(prewarm("c", NOON + 10));
    websocket.extend(turn("c", NOON + 100));
    let http = [
        start("c", NOON),
        prompt("c", NOON + 100),
        request("c", NOON + 230, 200, 0),
        answer("c", NOON + 600, 1_200, 60),
        request("c", NOON + 820, 200, 0),
        answer("c", NOON + 1_000, 1_500, 25),
    ];
    let (_, over_websocket) = fold(&websocket);
    let (_, over_http) = fold(&http);
    let facts = |row: &SessionRow| {
        (
            row.user_prompts,
            row.api_requests,
            row.responses_completed,
            row.tokens.clone(),
            row.cost_nano_usd,
            row.answer_us,
        )
    };
    assert_eq!(facts(&over_websocket), facts(&over_http));
    // 2,700 input tokens at 5 dollars and 85 output tokens at 30 dollars for a million.
    assert_eq!(over_http.cost_nano_usd, 2_700 * 5_000 + 85 * 30_000);
}
