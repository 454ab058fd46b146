//! The table of facts: where each fact of a recording's manifest is found in derived results, or why it is
//! not there.

mod counts;

use super::samples::Samples;
use counts::{
    by, by_status_class, count_of, decisions, distinct, each_once, failed_statuses, field, http_errors,
    http_status_classes, number, one_of, part, prewarms, row_decisions, row_prewarms, row_tokens, row_tools,
    shown_prewarms, shown_upgrades, single, stream_failures, sum, token_sums, tokens, tools, upgrades,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// The counts of a fact, by what is counted; zeros are left out.
pub type Counts = BTreeMap<String, i64>;

/// Where a fact is found.
pub enum Entry {
    /// The fact is derived, and all of these checks must hold.
    Derived(&'static [Check]),
    /// The fact is not derived, for this reason.
    Absent(&'static str),
}

/// A check: the counts that the fact's value demands, and the counts that are found.
pub enum Check {
    /// Counts are found in the increase of `/metrics`.
    Metrics(fn(&Value) -> Counts, fn(&Samples) -> Counts),
    /// Counts are found in the rows of the recording's conversations in `codex.sessions.v1`.
    Rows(fn(&Value) -> Counts, fn(&[Value]) -> Counts),
}

use Check::{Metrics, Rows};
use Entry::{Absent, Derived};

/// The table: every fact that a manifest names.
pub const FACTS: &[(&str, Entry)] = &[
    (
        "scenario",
        Absent("the name that the driver of the run gives to the scenario"),
    ),
    (
        "codex_version",
        Derived(&[Rows(one_of, |rows| distinct(rows, "app_version"))]),
    ),
    (
        "protocol",
        Absent("the protocol is not kept: records of all protocols are the same"),
    ),
    ("model", Derived(&[Rows(one_of, |rows| distinct(rows, "model"))])),
    ("rc", Absent("the exit code of Codex itself is in no event")),
    (
        "wall_s",
        Absent("the wall time of the whole process: a session lasts from its first to its last record"),
    ),
    (
        "conversation_id",
        Absent("no log record says which of the conversations is the user's"),
    ),
    (
        "child_conversations",
        Absent("v1 children and guardian reviews name no parent in logs"),
    ),
    (
        "all_conversations",
        Derived(&[
            Metrics(
                |fact| single(count_of(fact)),
                |samples| single(samples.count("tacho_sessions_started_total", &[])),
            ),
            Rows(each_once, |rows| by(rows, "conversation_id", |_| 1)),
        ]),
    ),
    (
        "events_may_be_lost",
        Absent("a remark on the recording, which says whether it can be compared"),
    ),
    (
        "prompt_text_logged",
        Absent("prompts are removed before anything is written"),
    ),
    (
        "user_prompts",
        Derived(&[
            Metrics(number, |samples| single(samples.count("tacho_turns_total", &[]))),
            Rows(number, |rows| sum(rows, "user_prompts")),
        ]),
    ),
    (
        "api_requests",
        Derived(&[
            Metrics(number, |samples| {
                single(samples.count("tacho_api_requests_total", &[("endpoint", "/responses")]))
            }),
            // No record of a WebSocket request has the time to response headers.
            Metrics(number, |samples| {
                let timed = samples.count(
                    "tacho_api_request_duration_seconds_count",
                    &[("endpoint", "/responses")],
                );
                single(timed + samples.count("tacho_api_requests_total", &[("transport", "websocket")]))
            }),
            Rows(number, |rows| sum(rows, "api_requests")),
        ]),
    ),
    (
        "api_requests_by_status",
        Derived(&[
            Metrics(by_status_class, http_status_classes),
            Metrics(failed_statuses, http_errors),
            Rows(
                |fact| single(failed_statuses(fact).values().sum()),
                |rows| {
                    let http: Vec<Value> = rows
                        .iter()
                        .filter(|row| row["websocket"].is_null())
                        .cloned()
                        .collect();
                    sum(&http, "api_errors")
                },
            ),
        ]),
    ),
    (
        "api_requests_responses",
        Derived(&[Metrics(number, |samples| {
            single(samples.count("tacho_api_requests_total", &[("endpoint", "/responses")]))
        })]),
    ),
    (
        "api_requests_models",
        Derived(&[Metrics(number, |samples| {
            single(samples.count("tacho_api_requests_total", &[("endpoint", "/models")]))
        })]),
    ),
    (
        "api_retries",
        Derived(&[
            Metrics(number, |samples| {
                single(samples.count("tacho_api_retries_total", &[]))
            }),
            Metrics(number, |samples| {
                single(samples.count("tacho_api_requests_total", &[("attempt_class", "retry")]))
            }),
            Rows(number, |rows| sum(rows, "api_retries")),
        ]),
    ),
    (
        "responses_completed",
        Derived(&[
            Metrics(number, |samples| {
                single(samples.count("tacho_response_tokens_count", &[("direction", "input")]))
            }),
            Metrics(number, |samples| {
                let labels = [("outcome", "completed")];
                single(samples.count("tacho_response_duration_seconds_count", &labels))
            }),
            Rows(number, |rows| sum(rows, "responses_completed")),
        ]),
    ),
    (
        "transport",
        Absent("a session may use both; what went over each has facts of its own"),
    ),
    (
        "websocket_connects",
        Derived(&[
            Metrics(upgrades, shown_upgrades),
            Rows(
                |fact| {
                    let names = [("attempts", "connects"), ("refused_in_turns", "refused_in_turns")];
                    names
                        .map(|(name, field)| (field.to_owned(), fact[name].as_i64().unwrap()))
                        .into()
                },
                |rows| {
                    ["connects", "refused_in_turns"]
                        .map(|name| (name.to_owned(), part(rows, "websocket", name)))
                        .into()
                },
            ),
        ]),
    ),
    (
        "websocket_requests",
        Derived(&[
            Metrics(
                |fact| number(&fact["count"]),
                |samples| single(samples.count("tacho_api_requests_total", &[("transport", "websocket")])),
            ),
            Metrics(
                |fact| number(&fact["on_reused_connection"]),
                |samples| single(samples.count("tacho_websocket_reused_total", &[("reused", "true")])),
            ),
            Metrics(
                |fact| number(&fact["first_on_connection"]),
                |samples| single(samples.count("tacho_websocket_reused_total", &[("reused", "false")])),
            ),
            Rows(
                |fact| number(&fact["count"]),
                |rows| single(part(rows, "websocket", "requests")),
            ),
            Rows(
                |fact| number(&fact["on_reused_connection"]),
                |rows| single(part(rows, "websocket", "reused")),
            ),
        ]),
    ),
    (
        "http_requests",
        Derived(&[
            Metrics(number, |samples| {
                let labels = [("transport", "http"), ("endpoint", "/responses")];
                single(samples.count("tacho_api_requests_total", &labels))
            }),
            Rows(number, |rows| {
                single(field(rows, "api_requests") - part(rows, "websocket", "requests"))
            }),
        ]),
    ),
    (
        "requests_failed",
        Derived(&[
            Metrics(number, |samples| {
                let labels = [("outcome", "failed")];
                single(samples.count("tacho_response_duration_seconds_count", &labels))
            }),
            Rows(number, |rows| sum(rows, "requests_failed")),
        ]),
    ),
    (
        "fallback_to_http",
        Derived(&[
            Metrics(number, |samples| {
                single(samples.count("tacho_websocket_fallbacks_total", &[]))
            }),
            Rows(number, |rows| single(part(rows, "websocket", "fallbacks"))),
        ]),
    ),
    (
        "prewarm_responses",
        Derived(&[Metrics(prewarms, shown_prewarms), Rows(prewarms, row_prewarms)]),
    ),
    (
        "streams_cut",
        Derived(&[Metrics(number, |samples| {
            single(stream_failures(samples, &["disconnected", "network"]))
        })]),
    ),
    (
        "streams_failed_event",
        Derived(&[Metrics(number, |samples| {
            single(stream_failures(
                samples,
                &["rate_limited", "context_window", "quota", "server", "other"],
            ))
        })]),
    ),
    (
        "tokens",
        Derived(&[
            Metrics(tokens, |samples| {
                token_sums(&samples.by("tacho_tokens_total", &["kind"]))
            }),
            Rows(tokens, row_tokens),
        ]),
    ),
    (
        "tool_results",
        Derived(&[
            Metrics(number, |samples| {
                single(samples.count("tacho_tool_calls_total", &[]))
            }),
            Rows(number, |rows| sum(rows, "tool_calls")),
        ]),
    ),
    (
        "tool_results_ok",
        Derived(&[
            Metrics(number, |samples| {
                single(samples.count("tacho_tool_calls_total", &[("outcome", "success")]))
            }),
            Rows(number, |rows| {
                single(field(rows, "tool_calls") - field(rows, "tool_failures"))
            }),
        ]),
    ),
    (
        "tools",
        Derived(&[
            Metrics(tools, |samples| {
                samples.by("tacho_tool_calls_total", &["tool", "outcome"])
            }),
            Rows(tools, row_tools),
        ]),
    ),
    (
        "tool_decisions",
        Derived(&[
            Metrics(decisions, |samples| {
                samples.by("tacho_approval_decisions_total", &["decision", "source"])
            }),
            Rows(decisions, row_decisions),
        ]),
    ),
    (
        "guardian_assessments",
        Derived(&[Metrics(number, |samples| {
            single(samples.count(
                "tacho_log_records_total",
                &[("event", "codex.guardian_assessment")],
            ))
        })]),
    ),
    (
        "note",
        Absent("prose; the exit code of a command in it is tacho.exit_code, which has tests of its own"),
    ),
    (
        "usage_reported_by_codex",
        Absent("what Codex printed, a sum over resumed runs; what was used is the fact `tokens`"),
    ),
    ("app_server", Absent("the client side of the app server protocol")),
    (
        "output_text_deltas_sent",
        Absent("text deltas change nothing derived, and Codex drops them under load"),
    ),
    (
        "user.email",
        Derived(&[Rows(one_of, |rows| distinct(rows, "user_email"))]),
    ),
    (
        "user.account_id",
        Derived(&[Rows(one_of, |rows| distinct(rows, "user_account_id"))]),
    ),
    (
        "auth_mode",
        Derived(&[Rows(one_of, |rows| distinct(rows, "auth_mode"))]),
    ),
];

/// The entry of a fact.
pub fn entry(fact: &str) -> Option<&'static Entry> {
    FACTS
        .iter()
        .find(|(name, _)| *name == fact)
        .map(|(_, entry)| entry)
}

/// The differences between the facts of a manifest and the increase of `/metrics`.
pub fn differ_in_metrics(expected: &Value, found: &Samples) -> Vec<String> {
    differences(expected, |check, fact| match check {
        Metrics(wanted, found_in) => Some((wanted(fact), found_in(found))),
        Rows(..) => None,
    })
}

/// The differences between the facts of a manifest and session rows.
pub fn differ_in_rows(expected: &Value, found: &[Value]) -> Vec<String> {
    differences(expected, |check, fact| match check {
        Rows(wanted, found_in) => Some((wanted(fact), found_in(found))),
        Metrics(..) => None,
    })
}

fn differences(
    expected: &Value,
    compare: impl Fn(&Check, &Value) -> Option<(Counts, Counts)>,
) -> Vec<String> {
    let mut differences = Vec::new();
    for (name, fact) in expected.as_object().unwrap() {
        let Some(Derived(checks)) = entry(name) else {
            continue;
        };
        for (number, check) in checks.iter().enumerate() {
            let Some((mut wanted, mut found)) = compare(check, fact) else {
                continue;
            };
            wanted.retain(|_, count| *count != 0);
            found.retain(|_, count| *count != 0);
            if wanted != found {
                differences.push(format!(
                    "{name} (check {number}): expected {wanted:?}, found {found:?}"
                ));
            }
        }
    }
    differences
}
