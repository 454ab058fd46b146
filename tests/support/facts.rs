//! One table from the facts of a recording's manifest to where they are found in derived results, or to why they are
//! nowhere.

use super::samples::Samples;
use serde_json::Value;
use std::collections::BTreeMap;

/// A fact's counts, by what it counts; zeros are left out.
pub type Counts = BTreeMap<String, i64>;

/// What became of a fact.
pub enum Entry {
    /// It is derived: all of these must hold.
    Derived(&'static [Check]),
    /// Nothing on the wire tells it, or nothing that is kept: why.
    Absent(&'static str),
}

/// What is expected, by the fact's value, and where it is found.
pub enum Check {
    /// In the growth of `/metrics`.
    Metrics(fn(&Value) -> Counts, fn(&Samples) -> Counts),
    /// In the rows of the recording's conversations in `codex.sessions.v1`.
    Rows(fn(&Value) -> Counts, fn(&[Value]) -> Counts),
}

use Check::{Metrics, Rows};
use Entry::{Absent, Derived};

/// Every fact that a manifest names.
pub const FACTS: &[(&str, Entry)] = &[
    ("scenario", Absent("the driver's name for what it did")),
    (
        "codex_version",
        Derived(&[Rows(one_of, |rows| distinct(rows, "app_version"))]),
    ),
    (
        "protocol",
        Absent("how it came is not kept: records of all protocols are the same"),
    ),
    ("model", Derived(&[Rows(one_of, |rows| distinct(rows, "model"))])),
    ("rc", Absent("the exit code of Codex itself is in no event")),
    (
        "wall_s",
        Absent("wall time of the whole process: a session lasts from its first to its last record"),
    ),
    (
        "conversation_id",
        Absent("which of the conversations are the user's is in no log record"),
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
        Absent("says which recordings can be compared"),
    ),
    (
        "prompt_text_logged",
        Absent("prompts are taken out before anything is written"),
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
            Metrics(number, |samples| {
                single(samples.count(
                    "tacho_api_request_duration_seconds_count",
                    &[("endpoint", "/responses")],
                ))
            }),
            Rows(number, |rows| sum(rows, "api_requests")),
        ]),
    ),
    (
        "api_requests_by_status",
        Derived(&[
            Metrics(by_status_class, |samples| {
                samples.by("tacho_api_requests_total", &["status_class"])
            }),
            Metrics(failed_statuses, |samples| {
                samples.by("tacho_api_errors_total", &["status_code"])
            }),
            Rows(
                |fact| single(failed_statuses(fact).values().sum()),
                |rows| sum(rows, "api_errors"),
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
            Rows(number, |rows| sum(rows, "responses_completed")),
        ]),
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
        Absent(
            "prose; where it tells of a command's exit code: that is tacho.exit_code, and has tests of its own",
        ),
    ),
    (
        "usage_reported_by_codex",
        Absent("what Codex printed, cumulative over resumed runs; the fact `tokens` is what was used"),
    ),
    (
        "app_server",
        Absent("the client's side of the app server protocol"),
    ),
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

/// Every difference between a manifest's facts and what was found on `/metrics`.
pub fn differ_in_metrics(expected: &Value, found: &Samples) -> Vec<String> {
    differences(expected, |check, fact| match check {
        Metrics(wanted, found_in) => Some((wanted(fact), found_in(found))),
        Rows(..) => None,
    })
}

/// Every difference between a manifest's facts and what was found in session rows.
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

fn single(count: i64) -> Counts {
    Counts::from([(String::new(), count)])
}

fn number(fact: &Value) -> Counts {
    single(fact.as_i64().unwrap())
}

/// That one value and no other; the manifest may remark that it is made up.
fn one_of(fact: &Value) -> Counts {
    Counts::from([(fact.as_str().unwrap().trim_end_matches(" (dummy)").to_owned(), 1)])
}

fn count_of(fact: &Value) -> i64 {
    i64::try_from(fact.as_array().unwrap().len()).unwrap()
}

fn each_once(fact: &Value) -> Counts {
    fact.as_array()
        .unwrap()
        .iter()
        .map(|id| (id.as_str().unwrap().to_owned(), 1))
        .collect()
}

fn statuses(fact: &Value) -> impl Iterator<Item = (&str, i64)> {
    fact.as_object()
        .unwrap()
        .iter()
        .map(|(status, count)| (status.as_str(), count.as_i64().unwrap()))
}

fn by_status_class(fact: &Value) -> Counts {
    let class = |status: &str| {
        if status == "429" {
            status.to_owned()
        } else {
            format!("{}xx", &status[..1])
        }
    };
    statuses(fact)
        .map(|(status, count)| (class(status), count))
        .collect()
}

fn failed_statuses(fact: &Value) -> Counts {
    statuses(fact)
        .filter(|(status, _)| !status.starts_with('2'))
        .map(|(status, count)| (status.to_owned(), count))
        .collect()
}

fn stream_failures(samples: &Samples, errors: &[&str]) -> i64 {
    errors
        .iter()
        .map(|error| samples.count("tacho_stream_failures_total", &[("error_type", error)]))
        .sum()
}

/// The manifest's tokens overlap: cached ones are input, reasoning ones are output.
fn tokens(fact: &Value) -> Counts {
    let of = |name: &str| fact[name].as_i64().unwrap();
    Counts::from([
        (
            "input not from the cache".to_owned(),
            of("input") - of("cached_input"),
        ),
        ("input from the cache".to_owned(), of("cached_input")),
        ("visible output".to_owned(), of("output") - of("reasoning_output")),
        ("reasoning".to_owned(), of("reasoning_output")),
        ("total".to_owned(), of("total")),
    ])
}

fn token_sums(kinds: &Counts) -> Counts {
    let of = |name: &str| kinds.get(name).copied().unwrap_or(0);
    Counts::from([
        (
            "input not from the cache".to_owned(),
            of("input_uncached") + of("input_cache_write"),
        ),
        ("input from the cache".to_owned(), of("input_cached")),
        ("visible output".to_owned(), of("output_visible")),
        ("reasoning".to_owned(), of("output_reasoning")),
        ("total".to_owned(), kinds.values().sum()),
    ])
}

fn row_tokens(rows: &[Value]) -> Counts {
    let kinds = [
        "input_uncached",
        "input_cached",
        "input_cache_write",
        "output_visible",
        "output_reasoning",
    ];
    let sums: Counts = kinds
        .iter()
        .map(|kind| {
            (
                (*kind).to_owned(),
                rows.iter().map(|row| row["tokens"][kind].as_i64().unwrap()).sum(),
            )
        })
        .collect();
    let total: i64 = rows
        .iter()
        .map(|row| row["tokens"]["total"].as_i64().unwrap())
        .sum();
    assert_eq!(
        total,
        sums.values().sum::<i64>(),
        "the kinds are disjoint and whole"
    );
    token_sums(&sums)
}

/// The tool's name as it is shown: those of MCP servers are one, and those that Codex does not bring along are one.
fn shown_tool(name: &str) -> &str {
    match name {
        "echo_tool" | "fail_tool" => "mcp",
        "no_such_tool" => "other",
        name => name,
    }
}

fn tools(fact: &Value) -> Counts {
    let mut counts = Counts::new();
    for call in fact.as_array().unwrap() {
        let outcome = if call[1].as_bool().unwrap() {
            "success"
        } else {
            "failure"
        };
        *counts
            .entry(format!("{} {outcome}", shown_tool(call[0].as_str().unwrap())))
            .or_default() += 1;
    }
    counts
}

fn row_tools(rows: &[Value]) -> Counts {
    let mut counts = Counts::new();
    for tool in rows.iter().flat_map(|row| row["tools"].as_array().unwrap()) {
        let (name, calls, failures) = (
            tool["tool"].as_str().unwrap(),
            tool["calls"].as_i64().unwrap(),
            tool["failures"].as_i64().unwrap(),
        );
        *counts.entry(format!("{name} success")).or_default() += calls - failures;
        *counts.entry(format!("{name} failure")).or_default() += failures;
    }
    counts
}

fn decisions(fact: &Value) -> Counts {
    let mut counts = Counts::new();
    for decision in fact.as_array().unwrap() {
        let source = match decision[1].as_str().unwrap() {
            "User" => "human",
            "Config" => "policy",
            "AutomatedReviewer" => "auto_reviewer",
            other => panic!("a source of decisions without a word for it: {other}"),
        };
        *counts
            .entry(format!("{} {source}", decision[0].as_str().unwrap()))
            .or_default() += 1;
    }
    counts
}

fn row_decisions(rows: &[Value]) -> Counts {
    let mut counts = Counts::new();
    for decision in rows.iter().flat_map(|row| row["decisions"].as_array().unwrap()) {
        let key = format!(
            "{} {}",
            decision["decision"].as_str().unwrap(),
            decision["source"].as_str().unwrap()
        );
        *counts.entry(key).or_default() += decision["count"].as_i64().unwrap();
    }
    counts
}

fn field(rows: &[Value], name: &str) -> i64 {
    rows.iter().map(|row| row[name].as_i64().unwrap()).sum()
}

fn sum(rows: &[Value], name: &str) -> Counts {
    single(field(rows, name))
}

fn by(rows: &[Value], name: &str, count: impl Fn(&Value) -> i64) -> Counts {
    let mut counts = Counts::new();
    for row in rows {
        *counts.entry(row[name].as_str().unwrap().to_owned()).or_default() += count(row);
    }
    counts
}

/// Each value that a field has, once.
fn distinct(rows: &[Value], name: &str) -> Counts {
    rows.iter()
        .map(|row| (row[name].as_str().unwrap().to_owned(), 1))
        .collect()
}
