//! Reads the process's own metrics from the text that their exporter writes, so that they can be written as protobuf.
//!
//! The exporter can write protobuf too, but its build needs `protoc` for that. Its text holds all that there is.

use super::model::{Distribution, Family, FamilyKind, Labels, Sample, Value};
use std::borrow::Cow;

/// The families of a text in the exposition format 0.0.4 without timestamps, in its order. Lines that can't be read are left
/// out.
#[must_use]
pub fn parse(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    // Lines are separated by \n only, since a label value may hold any other character.
    for line in text.split('\n') {
        if let Some(comment) = line.strip_prefix("# ") {
            describe(&mut families, comment);
        } else if let Some((name, labels, value)) = sample(line) {
            let known = families
                .iter_mut()
                .rev()
                .find_map(|family| Some((suffix_of(family, name)?, family)));
            if let Some((suffix, family)) = known {
                add(family, suffix, labels, value);
            }
        }
    }
    families.retain(|family| !family.samples.is_empty());
    families
}

/// Reads a comment: `HELP name words…` or `TYPE name type`.
fn describe(families: &mut Vec<Family>, comment: &str) {
    let mut parts = comment.splitn(3, ' ');
    let (Some(what), Some(name)) = (parts.next(), parts.next()) else {
        return;
    };
    let rest = parts.next().unwrap_or("");
    let index = families
        .iter()
        .position(|family| family.name == name)
        .unwrap_or_else(|| {
            families.push(Family {
                name: name.to_owned().into(),
                help: Cow::Borrowed(""),
                kind: FamilyKind::Untyped,
                samples: Vec::new(),
            });
            families.len() - 1
        });
    let family = &mut families[index];
    match (what, rest) {
        ("HELP", help) => family.help = unescaped(help).into(),
        ("TYPE", "counter") => family.kind = FamilyKind::Counter,
        ("TYPE", "gauge") => family.kind = FamilyKind::Gauge,
        ("TYPE", "histogram") => family.kind = FamilyKind::Histogram,
        ("TYPE", "summary") => family.kind = FamilyKind::Summary,
        _ => {}
    }
}

/// What follows the name of a family in the name of a sample; `None` if the sample does not belong to the family.
fn suffix_of<'n>(family: &Family, name: &'n str) -> Option<&'n str> {
    let suffix = name.strip_prefix(family.name.as_ref())?;
    let belongs = match family.kind {
        FamilyKind::Histogram => matches!(suffix, "_bucket" | "_sum" | "_count"),
        FamilyKind::Summary => matches!(suffix, "" | "_sum" | "_count"),
        FamilyKind::Counter | FamilyKind::Gauge | FamilyKind::Untyped => suffix.is_empty(),
    };
    belongs.then_some(suffix)
}

fn add(family: &mut Family, suffix: &str, mut labels: Labels, text: &str) {
    // The last label is the bound or the quantile, which the exporter writes after the labels of the series.
    let within = match (family.kind, suffix) {
        (FamilyKind::Histogram, "_bucket") | (FamilyKind::Summary, "") => {
            labels.pop().map(|(_, value)| value).unwrap_or_default()
        }
        _ => String::new(),
    };
    let empty = match family.kind {
        FamilyKind::Histogram => Value::Histogram(Distribution::default()),
        FamilyKind::Summary => Value::Summary {
            count: 0,
            sum: String::new(),
            quantiles: Vec::new(),
        },
        FamilyKind::Counter | FamilyKind::Gauge | FamilyKind::Untyped => {
            let value = text
                .parse()
                .map_or_else(|_| Value::Float(text.parse().unwrap_or(f64::NAN)), Value::Integer);
            family.samples.push(Sample {
                labels,
                value,
                at: None,
            });
            return;
        }
    };
    let index = family
        .samples
        .iter()
        .position(|sample| sample.labels == labels)
        .unwrap_or_else(|| {
            family.samples.push(Sample {
                labels,
                value: empty,
                at: None,
            });
            family.samples.len() - 1
        });
    match (&mut family.samples[index].value, suffix) {
        (Value::Histogram(Distribution { sum, .. }) | Value::Summary { sum, .. }, "_sum") => {
            text.clone_into(sum)
        }
        (Value::Histogram(Distribution { count, .. }) | Value::Summary { count, .. }, "_count") => {
            *count = text.parse().unwrap_or(0)
        }
        (Value::Histogram(values), _) => {
            if let (Ok(bound), Ok(count)) = (within.parse::<f64>(), text.parse())
                && bound.is_finite()
            {
                values.classic.push((bound, count));
            }
        }
        (Value::Summary { quantiles, .. }, _) => {
            if let (Ok(quantile), Ok(value)) = (within.parse(), text.parse()) {
                quantiles.push((quantile, value));
            }
        }
        (Value::Integer(_) | Value::Decimal(_) | Value::Float(_), _) => {}
    }
}

/// Reads a sample: `name{label="value",…} number`.
fn sample(line: &str) -> Option<(&str, Labels, &str)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, after) = rest.split_once("=\"")?;
            let close = closing(after)?;
            labels.push((label.to_owned().into(), unescaped(&after[..close])));
            rest = &after[close + 1..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
    }
    let value = rest.trim();
    (!value.is_empty()).then_some((name, labels, value))
}

/// The index of the quote that ends a label value.
fn closing(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => plain.push('\n'),
                Some(other) => plain.push(other),
                None => plain.push('\\'),
            },
            (other, false) => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::super::text;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_type_is_read_and_what_is_nothing_is_left_out() {
        let text = "# HELP a_total Of \\\\ things.\n# TYPE a_total counter\na_total{x=\"1\"} 3\na_total 9\n\n\
             # TYPE b gauge\nb{p=\"a\\\"\\\\b}, c\\n\",q=\"\"} -1.5\n\
             # HELP none Never seen.\n# TYPE none gauge\n\n\
             # TYPE c histogram\nc_bucket{k=\"v\",le=\"0.5\"} 1\nc_bucket{k=\"v\",le=\"+Inf\"} 2\nc_sum{k=\"v\"} 7.25\nc_count{k=\"v\"} 2\n\n\
             # TYPE d summary\nd{quantile=\"0.5\"} 1.5\nd{quantile=\"1\"} 2\nd_sum 3.5\nd_count 2\n\
             stranger 1\nb{broken 1\nb\n";
        let written = text::encode(&parse(text));
        assert_eq!(
            written,
            "# HELP a_total Of \\\\ things.\n# TYPE a_total counter\na_total{x=\"1\"} 3\na_total 9\n\
             # HELP b \n# TYPE b gauge\nb{p=\"a\\\"\\\\b}, c\\n\",q=\"\"} -1.5\n\
             # HELP c \n# TYPE c histogram\nc_bucket{k=\"v\",le=\"0.5\"} 1\nc_bucket{k=\"v\",le=\"+Inf\"} 2\nc_sum{k=\"v\"} 7.25\nc_count{k=\"v\"} 2\n\
             # HELP d \n# TYPE d summary\nd{quantile=\"0.5\"} 1.5\nd{quantile=\"1\"} 2\nd_sum 3.5\nd_count 2\n"
        );
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[a-z_{}\", \\\\=#0-9\n]{0,80}") {
            let families = parse(&text);
            prop_assert!(families.iter().all(|family| !family.samples.is_empty()), "{families:?}");
        }

        #[test]
        fn a_label_value_is_read_as_it_was(value in any::<String>(), count in any::<i64>()) {
            let labels = vec![("l".into(), value)];
            let sample = Sample { labels, value: Value::Integer(count), at: None };
            let family = Family { name: "n".into(), help: "H.".into(), kind: FamilyKind::Gauge, samples: vec![sample] };
            prop_assert_eq!(parse(&text::encode(std::slice::from_ref(&family))), vec![family]);
        }
    }
}
