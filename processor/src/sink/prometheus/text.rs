//! The text format 0.0.4, which has the classic form of histograms only.
//!
//! Source: Prometheus documentation, "Exposition formats", "Text-based format".

use super::model::{Distribution, Family, FamilyKind, Labels, Sample, Value};
use std::fmt::{Arguments, Write};

/// The value of `Content-Type`.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Encodes families in their order.
#[must_use]
pub fn encode(families: &[Family]) -> String {
    let mut text = String::new();
    for family in families {
        let help = family.help.replace('\\', r"\\").replace('\n', r"\n");
        line(&mut text, format_args!("# HELP {} {help}", family.name));
        line(
            &mut text,
            format_args!("# TYPE {} {}", family.name, word(family.kind)),
        );
        for sample in &family.samples {
            encode_sample(&mut text, &family.name, sample);
        }
    }
    text
}

/// The name of a type in a `# TYPE` line.
#[must_use]
pub const fn word(kind: FamilyKind) -> &'static str {
    match kind {
        FamilyKind::Counter => "counter",
        FamilyKind::Gauge => "gauge",
        FamilyKind::Histogram => "histogram",
        FamilyKind::Summary => "summary",
        FamilyKind::Untyped => "untyped",
    }
}

fn encode_sample(text: &mut String, name: &str, sample: &Sample) {
    let labels = joined(&sample.labels);
    let at = sample.at.map(|at| format!(" {at}")).unwrap_or_default();
    match &sample.value {
        Value::Integer(value) => line(text, format_args!("{name}{} {value}{at}", braced(&labels, ""))),
        Value::Decimal(value) => line(text, format_args!("{name}{} {value}{at}", braced(&labels, ""))),
        Value::Float(value) => line(text, format_args!("{name}{} {value}{at}", braced(&labels, ""))),
        Value::Histogram(values) => histogram(text, name, &labels, values, &at),
        Value::Summary {
            count,
            sum,
            quantiles,
        } => {
            for (quantile, value) in quantiles {
                line(
                    text,
                    format_args!(
                        "{name}{} {value}{at}",
                        braced(&labels, &format!("quantile=\"{quantile}\""))
                    ),
                );
            }
            sum_and_count(text, name, &labels, (sum, *count), &at);
        }
    }
}

fn histogram(text: &mut String, name: &str, labels: &str, values: &Distribution, at: &str) {
    for (bound, count) in &values.classic {
        line(
            text,
            format_args!(
                "{name}_bucket{} {count}{at}",
                braced(labels, &format!("le=\"{bound}\""))
            ),
        );
    }
    line(
        text,
        format_args!(
            "{name}_bucket{} {}{at}",
            braced(labels, "le=\"+Inf\""),
            values.count
        ),
    );
    sum_and_count(text, name, labels, (&values.sum, values.count), at);
}

fn sum_and_count(text: &mut String, name: &str, labels: &str, (sum, count): (&str, u64), at: &str) {
    let labels = braced(labels, "");
    line(text, format_args!("{name}_sum{labels} {sum}{at}"));
    line(text, format_args!("{name}_count{labels} {count}{at}"));
}

/// Labels as `name="value",…` without braces.
fn joined(labels: &Labels) -> String {
    let mut text = String::new();
    for (name, value) in labels {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => text.push_str(r"\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str(r"\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    text
}

fn braced(labels: &str, extra: &str) -> String {
    match (labels.is_empty(), extra.is_empty()) {
        (true, true) => String::new(),
        (false, false) => format!("{{{labels},{extra}}}"),
        _ => format!("{{{labels}{extra}}}"),
    }
}

fn line(text: &mut String, content: Arguments<'_>) {
    text.write_fmt(content).expect("writing to a string can't fail");
    text.push('\n');
}
