//! The documents that are generated from the tables: `deploy/METRICS.md` and `deploy/topics.toml`.

use crate::event::{Attr, COMMON, Derives, EventKind};
use crate::metric::{Kind, Label, Metric, MetricDef, Unit, values};
use crate::topic::{Cleanup, MESSAGE_BYTES_MAX, Partitions, Prefix, Topic, TopicDef};
use std::fmt::Write;
use strum::VariantArray;

/// The rules of derivation in words, a part of `deploy/METRICS.md`.
const RULES: &str = include_str!("catalogue/rules.md");

/// The text of `deploy/METRICS.md`. A test compares it with the file and says how to write the file anew.
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
    labels(&mut out);
    events(&mut out);
    out.push_str(RULES);
    out
}

fn events(out: &mut String) {
    out.push_str(
        "\n## Events\n\n\
         An event derives if it changes something beside counts of records; such records carry dedup marks.\n\n\
         | event | what happened | derives | attributes read |\n|---|---|---|---|\n",
    );
    let list = |attrs: &[Attr]| {
        let keys: Vec<_> = attrs.iter().map(|attr| format!("`{}`", attr.key())).collect();
        keys.join(", ")
    };
    for def in EventKind::VARIANTS.iter().map(|event| event.def()) {
        let derives = match def.derives {
            Derives::Always => "yes".to_owned(),
            Derives::WithAny(attrs) => format!("with any of {}", list(attrs)),
            Derives::WithPrefix(attr, prefix) => format!("where `{}` begins with `{prefix}`", attr.key()),
            Derives::Never => "no".to_owned(),
        };
        let _ = writeln!(
            out,
            "| `{}` | {} | {derives} | {} |",
            def.name,
            def.about,
            list(def.reads)
        );
    }
    let _ = writeln!(
        out,
        "\nOf every event are read, where it has them: {}.\n",
        list(COMMON)
    );
}

fn labels(out: &mut String) {
    out.push_str(
        "\n## Labels\n\n\
         An open label's values come off the wire: the first ones, up to the cap for each tenant, are admitted for good; every \
         later one is shown as `other`. The caps of open labels can be set in the seed (`deploy/control.toml`). Dimensions \
         come from resource attributes, and are `unassigned` where a record has none. A label without a value is left out.\n\n\
         | open label | values at most | resource attribute |\n|---|---|---|\n",
    );
    let is_open = |label: &&Label| label.def().open;
    for def in Label::VARIANTS.iter().filter(is_open).map(|label| label.def()) {
        let attribute = def.dimension.map_or_else(String::new, |key| format!("`{key}`"));
        let _ = writeln!(out, "| `{}` | {} | {attribute} |", def.name, def.cap);
    }
    out.push_str(
        "\nAll values of a closed label are listed here. `tenant` is the tenant of the raw record's key, and `log` the name of \
         the derivation.\n\n\
         | closed label | of | values |\n|---|---|---|\n",
    );
    for &label in Label::VARIANTS {
        for group in values::groups(label) {
            let values: Vec<_> = group.values.iter().map(|value| format!("`{value}`")).collect();
            let name = label.def().name;
            let _ = writeln!(out, "| `{name}` | {} | {} |", group.of, values.join(", "));
        }
    }
}

/// The kind of a metric in words.
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

/// The text of `deploy/topics.toml`. A test compares it with the file and says how to write the file anew.
#[must_use]
pub fn topics_toml() -> String {
    let mut out = format!(
        "# The topics on a Kafka cluster, written from the topic table in `schemas/src/topic.rs` by a test; do not edit. After a\n\
         # change of the table: TACHO_BLESS=1 cargo test -p schemas --test catalogue\n\
         #\n\
         # `tacho topics apply`, and a start of `tacho --kafka`, create those that are missing. One that is there and breaks a\n\
         # promise stops the start; one that an older table made is warned of, and `tacho topics apply` mends it.\n\
         #\n\
         # prefix: \"log\" (one for a log: `prefix`) or \"derived\" (one for each derivation: `derived_prefix`).\n\
         # partitions: \"raw\" or \"deltas\" (raw_partitions and delta_partitions of control.toml), \"few\" ({few}; more can be\n\
         # added), or \"one\".\n\
         # cleanup: \"delete\" after retention_days, \"compact\", both, \"consumed\" (the consumer deletes), or \"keep\" for ever.\n\
         # config: further settings of Kafka. Partitions get three replicas where there are as many brokers, and\n\
         # min.insync.replicas=2 with two replicas or more.\n\n\
         max_message_bytes = {MESSAGE_BYTES_MAX}\n",
        few = crate::topic::FEW_PARTITIONS,
    );
    for def in Topic::VARIANTS.iter().map(|topic| topic.def()) {
        topic_entry(&mut out, &def);
    }
    out
}

fn topic_entry(out: &mut String, def: &TopicDef) {
    let prefix = match def.prefix {
        Prefix::Log => "log",
        Prefix::Derived => "derived",
    };
    let partitions = match def.partitions {
        Partitions::LikeRawLogs => "raw",
        Partitions::LikeDeltas => "deltas",
        Partitions::Few => "few",
        Partitions::One => "one",
    };
    let cleanup = match def.cleanup {
        Cleanup::Delete { .. } => "delete",
        Cleanup::Consumed => "consumed",
        Cleanup::Compact => "compact",
        Cleanup::CompactAndDelete { .. } => "compact,delete",
        Cleanup::Keep => "keep",
    };
    let _ = writeln!(
        out,
        "\n# {}.\n[topic.{:?}]\nprefix = {prefix:?}\npartitions = {partitions:?}\ncleanup = {cleanup:?}",
        def.about, def.name
    );
    if let Some(days) = def.cleanup.retention_days() {
        let _ = writeln!(out, "retention_days = {days}");
    }
    let stamped = def.stamped.then_some(("message.timestamp.type", "LogAppendTime"));
    let config: Vec<String> = stamped
        .iter()
        .chain(def.config)
        .map(|(key, value)| format!("{key:?} = {value:?}"))
        .collect();
    if !config.is_empty() {
        let _ = writeln!(out, "config = {{ {} }}", config.join(", "));
    }
}
