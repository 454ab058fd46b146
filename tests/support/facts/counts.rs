//! Counts: what the value of a fact demands, and what session rows hold.

use super::Counts;
use crate::support::samples::Samples;
use serde_json::Value;

pub fn single(count: i64) -> Counts {
    Counts::from([(String::new(), count)])
}

pub fn number(fact: &Value) -> Counts {
    single(fact.as_i64().unwrap())
}

/// The counts of a fact that has one value, to which the manifest may add that it is made up.
pub fn one_of(fact: &Value) -> Counts {
    Counts::from([(fact.as_str().unwrap().trim_end_matches(" (dummy)").to_owned(), 1)])
}

pub fn count_of(fact: &Value) -> i64 {
    i64::try_from(fact.as_array().unwrap().len()).unwrap()
}

pub fn each_once(fact: &Value) -> Counts {
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

pub fn by_status_class(fact: &Value) -> Counts {
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

pub fn failed_statuses(fact: &Value) -> Counts {
    statuses(fact)
        .filter(|(status, _)| !status.starts_with('2'))
        .map(|(status, count)| (status.to_owned(), count))
        .collect()
}

pub fn stream_failures(samples: &Samples, errors: &[&str]) -> i64 {
    errors
        .iter()
        .map(|error| samples.count("tacho_stream_failures_total", &[("error_type", error)]))
        .sum()
}

/// The counts of tokens in disjoint kinds. Those of a manifest overlap: cached tokens are input, reasoning
/// tokens are output.
pub fn tokens(fact: &Value) -> Counts {
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

pub fn token_sums(kinds: &Counts) -> Counts {
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

pub fn row_tokens(rows: &[Value]) -> Counts {
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
        "the kinds do not add up to the total"
    );
    token_sums(&sums)
}

/// The name under which a tool is shown: `mcp` for all tools of MCP servers, `other` for tools that are not
/// built in.
fn shown_tool(name: &str) -> &str {
    match name {
        "echo_tool" | "fail_tool" => "mcp",
        "no_such_tool" => "other",
        name => name,
    }
}

pub fn tools(fact: &Value) -> Counts {
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

pub fn row_tools(rows: &[Value]) -> Counts {
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

pub fn decisions(fact: &Value) -> Counts {
    let mut counts = Counts::new();
    for decision in fact.as_array().unwrap() {
        let source = match decision[1].as_str().unwrap() {
            "User" => "human",
            "Config" => "policy",
            "AutomatedReviewer" => "auto_reviewer",
            other => panic!("the source {other} of a decision has no name in rows"),
        };
        *counts
            .entry(format!("{} {source}", decision[0].as_str().unwrap()))
            .or_default() += 1;
    }
    counts
}

pub fn row_decisions(rows: &[Value]) -> Counts {
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

pub fn field(rows: &[Value], name: &str) -> i64 {
    rows.iter().map(|row| row[name].as_i64().unwrap()).sum()
}

pub fn sum(rows: &[Value], name: &str) -> Counts {
    single(field(rows, name))
}

pub fn by(rows: &[Value], name: &str, count: impl Fn(&Value) -> i64) -> Counts {
    let mut counts = Counts::new();
    for row in rows {
        *counts.entry(row[name].as_str().unwrap().to_owned()).or_default() += count(row);
    }
    counts
}

/// The distinct values of a field.
pub fn distinct(rows: &[Value], name: &str) -> Counts {
    rows.iter()
        .map(|row| (row[name].as_str().unwrap().to_owned(), 1))
        .collect()
}

/// A count in a part of session rows that is null where nothing of its kind happened.
pub fn part(rows: &[Value], part: &str, name: &str) -> i64 {
    rows.iter()
        .filter(|row| !row[part].is_null())
        .map(|row| row[part][name].as_i64().unwrap())
        .sum()
}

/// The failed HTTP attempts by status: the failed requests without those over WebSocket, which no manifest lists by status.
pub fn http_errors(samples: &Samples) -> Counts {
    let mut errors = samples.by("tacho_api_errors_total", &["status_code"]);
    for (class, code) in [("4xx", "400"), ("429", "429"), ("5xx", "500"), ("none", "none")] {
        let labels = [("transport", "websocket"), ("status_class", class)];
        let refused = samples.count("tacho_api_requests_total", &labels);
        if let Some(count) = errors.get_mut(code) {
            *count -= refused;
        }
    }
    errors
}

/// The HTTP attempts by the class of their status.
pub fn http_status_classes(samples: &Samples) -> Counts {
    let classes = ["2xx", "3xx", "4xx", "429", "5xx", "none"];
    let count = |class: &str| {
        let labels = [("transport", "http"), ("status_class", class)];
        samples.count("tacho_api_requests_total", &labels)
    };
    classes
        .into_iter()
        .map(|class| (class.to_owned(), count(class)))
        .collect()
}

/// The upgrades that a manifest demands: all of them, refused ones by status, those in turns, and those of prewarms.
pub fn upgrades(fact: &Value) -> Counts {
    let of = |name: &str| fact[name].as_i64().unwrap();
    let refused =
        statuses(&fact["refused_by_status"]).map(|(status, count)| (format!("refused {status}"), count));
    refused
        .chain([
            ("accepted".to_owned(), of("accepted")),
            ("refused in turns".to_owned(), of("refused_in_turns")),
            ("for prewarm".to_owned(), of("for_prewarm")),
        ])
        .collect()
}

/// The upgrades on `/metrics`, as [`upgrades`] names them.
pub fn shown_upgrades(samples: &Samples) -> Counts {
    let name = "tacho_websocket_connects_total";
    let mut counts = samples.by(name, &["outcome", "status_code"]);
    if let Some(accepted) = counts.remove("accepted ") {
        counts.insert("accepted".to_owned(), accepted);
    }
    let in_turns = samples.count(name, &[("outcome", "refused"), ("phase", "turn")]);
    counts.insert("refused in turns".to_owned(), in_turns);
    counts.insert(
        "for prewarm".to_owned(),
        samples.count(name, &[("phase", "prewarm")]),
    );
    counts
}

/// The prewarms that a manifest demands.
pub fn prewarms(fact: &Value) -> Counts {
    let of = |name: &str| fact[name].as_i64().unwrap();
    let token = |name: &str| fact["tokens"][name].as_i64().unwrap();
    Counts::from([
        ("requests".to_owned(), of("requests")),
        ("completed".to_owned(), of("count")),
        ("failed".to_owned(), of("failed")),
        ("input".to_owned(), token("input") - token("cached_input")),
        ("total".to_owned(), token("total")),
    ])
}

/// The prewarms on `/metrics`, as [`prewarms`] names them.
pub fn shown_prewarms(samples: &Samples) -> Counts {
    let ended = |outcome| samples.count("tacho_prewarm_responses_total", &[("outcome", outcome)]);
    let tokens = |with: &[(&str, &str)]| samples.count("tacho_prewarm_tokens_total", with);
    Counts::from([
        (
            "requests".to_owned(),
            samples.count("tacho_prewarm_requests_total", &[]),
        ),
        ("completed".to_owned(), ended("completed")),
        ("failed".to_owned(), ended("failed")),
        ("input".to_owned(), tokens(&[("kind", "input_uncached")])),
        ("total".to_owned(), tokens(&[])),
    ])
}

/// The prewarms in session rows, as [`prewarms`] names them.
pub fn row_prewarms(rows: &[Value]) -> Counts {
    let of = |name: &str| part(rows, "prewarm", name);
    Counts::from([
        ("requests".to_owned(), of("requests")),
        ("completed".to_owned(), of("completed")),
        ("failed".to_owned(), of("failed")),
        ("input".to_owned(), of("input_uncached")),
        (
            "total".to_owned(),
            of("input_uncached") + of("input_cached") + of("input_cache_write") + of("output"),
        ),
    ])
}
