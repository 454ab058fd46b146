//! The overview: the numbers of the page, summed up from the committed view.

use crate::sink::prometheus::{last_final, ratio};
use crate::view::View;
use schemas::delta::Series;
use schemas::histogram::Histogram;
use schemas::metric::{Amount, Label, Metric};
use schemas::time::EventTime;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The most rows of a table of the page.
const ROWS_MAX: usize = 12;
/// The most sessions that the page shows.
const SESSIONS_MAX: usize = 20;

/// What the overview reads of one series.
struct Entry {
    metric: Metric,
    labels: Vec<(Label, String)>,
    total: Option<Amount>,
    /// Start and amount of the latest final window of the smallest size; `None` if the series has no row for it.
    window: Option<(EventTime, Amount)>,
}

/// The overview as a JSON object.
pub(super) fn overview(view: &View) -> Value {
    let entries = entries(view);
    let sum = |metric, wanted: &[(Label, &str)]| -> i64 {
        let matches = |entry: &&Entry| wanted.iter().all(|(label, value)| entry.label(*label) == *value);
        entries
            .iter()
            .filter(|entry| entry.metric == metric)
            .filter(matches)
            .map(Entry::count)
            .sum()
    };
    let clock = view
        .partitions
        .iter()
        .map(|partition| partition.timestamp.0)
        .max();
    let sessions: Vec<Value> = view.recent_sessions().into_iter().take(SESSIONS_MAX).collect();
    json!({
        "clock_ms": clock.filter(|clock| *clock > 0),
        "records": sum(Metric::LogRecords, &[]),
        "sessions_started": sum(Metric::SessionsStarted, &[]),
        "sessions_active": sum(Metric::SessionsActive, &[]),
        "turns": sum(Metric::Turns, &[]),
        "requests": sum(Metric::ApiRequests, &[]),
        "errors": sum(Metric::ApiErrors, &[]),
        "rate_limited": sum(Metric::ApiRateLimited, &[]),
        "retries_http": sum(Metric::ApiRetries, &[(Label::Layer, "http")]),
        "retries_stream": sum(Metric::ApiRetries, &[(Label::Layer, "stream")]),
        "stream_failures": sum(Metric::StreamFailures, &[]),
        "tool_calls": sum(Metric::ToolCalls, &[]),
        "tool_failures": sum(Metric::ToolCalls, &[(Label::Outcome, "failure")]),
        "compactions": sum(Metric::Compactions, &[]),
        "approvals_human": sum(Metric::ApprovalDecisions, &[(Label::Source, "human")]),
        "approvals_policy": sum(Metric::ApprovalDecisions, &[(Label::Source, "policy")]),
        "approvals_auto_reviewer": sum(Metric::ApprovalDecisions, &[(Label::Source, "auto_reviewer")]),
        "cost_nano_usd": sum(Metric::Cost, &[(Label::BillingBasis, "api_list")]),
        "equivalent_nano_usd": sum(Metric::Cost, &[(Label::BillingBasis, "subscription_equivalent")]),
        "micro_credits": sum(Metric::Credits, &[]),
        "unpriced_usd_tokens": sum(Metric::UnpricedTokens, &[(Label::Book, "api_usd")]),
        "unpriced_credits_tokens": sum(Metric::UnpricedTokens, &[(Label::Book, "chatgpt_credits")]),
        "tokens": by(&entries, Metric::Tokens, &[Label::TokenKind], usize::MAX),
        "tokens_by": tokens_by_model(&entries),
        "tools": by(&entries, Metric::ToolCalls, &[Label::Tool, Label::Outcome, Label::Origin], ROWS_MAX),
        "approvals": by(&entries, Metric::ApprovalDecisions, &[Label::Tool, Label::Decision, Label::Source], ROWS_MAX),
        "latency": distribution(&entries, Metric::ApiRequestDurationWindow, Metric::ApiRequestDuration),
        "first_token": distribution(&entries, Metric::TtftWindow, Metric::Ttft),
        "retry_ratio": window_ratio(&entries, Metric::ApiRetryRatio),
        "cache_hit_ratio": window_ratio(&entries, Metric::CacheHitRatio),
        "human_approval_ratio": window_ratio(&entries, Metric::HumanApprovalRatio),
        "sessions": sessions,
    })
}

impl Entry {
    fn label(&self, wanted: Label) -> &str {
        self.labels
            .iter()
            .find(|(label, _)| *label == wanted)
            .map_or("", |(_, value)| value.as_str())
    }

    fn count(&self) -> i64 {
        match self.total {
            Some(Amount::Count(count)) => count,
            _ => 0,
        }
    }
}

fn entries(view: &View) -> Vec<Entry> {
    let mut entries = Vec::new();
    for partition in &view.partitions {
        for (key, shown) in &partition.series {
            let Some(series) = Series::parse(key) else {
                continue;
            };
            let start = partition.latest_final.first().copied().flatten();
            entries.push(Entry {
                metric: series.metric,
                labels: series
                    .labels()
                    .map(|(label, value)| (label, value.to_owned()))
                    .collect(),
                total: shown.total.clone(),
                window: start.zip(last_final(shown, &partition, 0).cloned()),
            });
        }
    }
    entries
}

/// Sums of a counter by labels, the largest ones first, at most `rows`: `[{"tool": …, "count": …}, …]`.
fn by(entries: &[Entry], metric: Metric, labels: &[Label], rows: usize) -> Vec<Value> {
    let mut sums: BTreeMap<Vec<&str>, i64> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.metric == metric) {
        *sums
            .entry(labels.iter().map(|label| entry.label(*label)).collect())
            .or_default() += entry.count();
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    sums.truncate(rows);
    let row = |(values, count): (Vec<&str>, i64)| {
        let mut row: serde_json::Map<String, Value> = labels
            .iter()
            .zip(values)
            .map(|(label, value)| (label.def().name.to_owned(), value.into()))
            .collect();
        row.insert("count".to_owned(), count.into());
        Value::Object(row)
    };
    sums.into_iter().map(row).collect()
}

/// Sums of tokens by model and team, the largest ones first, with the kinds of each.
fn tokens_by_model(entries: &[Entry]) -> Vec<Value> {
    let mut sums: BTreeMap<(&str, &str), BTreeMap<&str, i64>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.metric == Metric::Tokens) {
        let kinds = sums
            .entry((entry.label(Label::Model), entry.label(Label::Team)))
            .or_default();
        *kinds.entry(entry.label(Label::TokenKind)).or_default() += entry.count();
    }
    let mut sums: Vec<_> = sums
        .into_iter()
        .map(|(who, kinds)| (kinds.values().sum::<i64>(), who, kinds))
        .collect();
    sums.sort_by_key(|(total, ..)| std::cmp::Reverse(*total));
    sums.truncate(ROWS_MAX);
    sums.into_iter().map(|(total, (model, team), kinds)| json!({"model": model, "team": team, "total": total, "kinds": kinds})).collect()
}

/// The amounts of a window metric in the latest final window of the smallest size, with the window's start; `None` if no
/// series has a row.
fn latest(entries: &[Entry], metric: Metric) -> Option<(EventTime, Vec<&Amount>)> {
    let of = || {
        entries
            .iter()
            .filter(move |entry| entry.metric == metric)
            .filter_map(|entry| entry.window.as_ref())
    };
    let start = of().map(|(start, _)| *start).max()?;
    Some((
        start,
        of().filter(|(at, _)| *at == start)
            .map(|(_, amount)| amount)
            .collect(),
    ))
}

/// Quantiles, in seconds, of the latest final window of the smallest size. Without such a window they are of the total, and
/// `start_ms` is null.
fn distribution(entries: &[Entry], window: Metric, total: Metric) -> Value {
    let (start, amounts) = latest(entries, window).map_or_else(
        || {
            (
                None,
                entries
                    .iter()
                    .filter(|entry| entry.metric == total)
                    .filter_map(|entry| entry.total.as_ref())
                    .collect(),
            )
        },
        |(start, amounts)| (Some(start), amounts),
    );
    let mut all = Histogram::default();
    for amount in amounts {
        if let Amount::Values(values) = amount {
            all.merge(values);
        }
    }
    json!({"start_ms": start, "count": all.count, "p50": all.quantile(500), "p95": all.quantile(950)})
}

fn window_ratio(entries: &[Entry], metric: Metric) -> Value {
    let (start, amounts) = match latest(entries, metric) {
        Some((start, amounts)) => (Some(start), amounts),
        None => (None, Vec::new()),
    };
    let (mut part, mut whole) = (0, 0);
    for amount in amounts {
        if let Amount::Ratio {
            numerator,
            denominator,
        } = amount
        {
            part += numerator;
            whole += denominator;
        }
    }
    json!({"start_ms": start, "numerator": part, "denominator": whole, "ratio": (whole > 0).then(|| ratio(part, whole))})
}
