//! `deploy/METRICS.md`, written from the metric table.

use crate::metric::{Kind, Label, Metric, MetricDef, Unit};
use std::fmt::Write;
use strum::VariantArray;

/// The document. A test compares it with the file and says how to write it anew.
#[must_use]
pub fn metrics_markdown() -> String {
    let mut out = String::from(
        "# Metrics\n\n\
         Written from the metric table in `schemas/src/metric/table.rs` by a test; do not edit. After a change of the table:\n\
         `TACHO_BLESS=1 cargo test -p schemas --test catalogue`.\n\n\
         Totals are cumulative and survive restarts. Metrics whose name ends in `_window_ratio`, and quantiles, are of the \
         last final window of each size (label `window`), and absent where a series has no row for it. Rows in \
         `codex.windows.*.v1` carry the same names, for each window size.\n\n\
         Money is an estimate: tokens times list prices. It is counted in integers, nano-dollars and millionths of a credit, \
         and rows hold these; `/metrics` shows dollars and credits, as exact decimals that Prometheus reads as doubles. A \
         difference of two samples, rounded to nine digits, is exact up to two million dollars in one series.\n\n\
         | metric | kind | unit | labels | from | what it is |\n|---|---|---|---|---|---|\n",
    );
    for &metric in Metric::VARIANTS {
        let def = metric.def();
        let labels: Vec<_> = def
            .labels
            .iter()
            .map(|label| format!("`{}`", label.def().name))
            .collect();
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} | {} | {} |",
            def.name,
            kind(&def),
            def.unit.name(),
            labels.join(", "),
            def.from,
            def.help
        );
    }
    out.push_str(
        "\n## Labels\n\n\
         An open label's values come off the wire: the first ones, up to the cap for each tenant, are admitted for good; every \
         later one is shown as `other`. The caps of open labels can be set in the seed (`deploy/control.toml`). Dimensions \
         come from resource attributes, and are `unassigned` where a record has none. A label without a value is left out.\n\n\
         | label | values at most | open | resource attribute |\n|---|---|---|---|\n",
    );
    for &label in Label::VARIANTS {
        let def = label.def();
        let attribute = def.dimension.map_or_else(String::new, |key| format!("`{key}`"));
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {attribute} |",
            def.name,
            def.cap,
            if def.open { "yes" } else { "no" }
        );
    }
    out
}

/// How a metric adds up and is shown, in words.
fn kind(def: &MetricDef) -> String {
    match def.kind {
        Kind::Counter => "counter".to_owned(),
        Kind::UpDown => "gauge (goes up and down)".to_owned(),
        Kind::Histogram { first, last } => {
            let unit = match def.unit {
                Unit::Seconds => " s",
                Unit::Tokens => " tokens",
                Unit::Usd => " USD",
                Unit::Credits => " credits",
                Unit::One | Unit::Ratio => "",
            };
            format!("histogram, bounds 2^{first} to 2^{last}{unit}")
        }
        Kind::WindowRatio => "gauge, ratio of a window".to_owned(),
        Kind::WindowQuantiles => "gauge, quantiles of a window".to_owned(),
    }
}
