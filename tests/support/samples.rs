//! A reader of the Prometheus text format.

use std::collections::BTreeMap;

/// A series: its name and its labels.
pub type Series = (String, BTreeMap<String, String>);

/// The samples of one scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(pub BTreeMap<Series, f64>);

impl Samples {
    /// Reads a text in the exposition format.
    ///
    /// # Panics
    /// The text has another format, or holds a series twice.
    pub fn parse(text: &str) -> Self {
        let mut samples = BTreeMap::new();
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (series, value) = sample(line);
            assert!(
                samples.insert(series, value).is_none(),
                "a series is there twice in one scrape: {line}"
            );
        }
        Self(samples)
    }

    /// The sum over all series of that name that have all labels in `with`.
    pub fn sum(&self, name: &str, with: &[(&str, &str)]) -> f64 {
        self.of(name, with).map(|(_, value)| value).sum()
    }

    /// The sum over all series of that name that have all labels in `with`, as a count.
    ///
    /// # Panics
    /// The sum is not an integer.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it is checked to be a small whole number"
    )]
    pub fn count(&self, name: &str, with: &[(&str, &str)]) -> i64 {
        let sum = self.sum(name, with);
        assert!(
            sum.fract() == 0.0 && sum.abs() < 9e15,
            "{name} {with:?} is no count: {sum}"
        );
        sum as i64
    }

    /// The value of the only series of that name that has all labels in `with`; `None` if there is none.
    pub fn one(&self, name: &str, with: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.of(name, with);
        let first = found.next()?.1;
        assert!(found.next().is_none(), "{name} {with:?} names several series");
        Some(first)
    }

    /// The counts of a metric by the values of some labels; zeros are left out.
    pub fn by(&self, name: &str, labels: &[&str]) -> BTreeMap<String, i64> {
        let mut counts = BTreeMap::new();
        for (found, value) in self.of(name, &[]) {
            let key: Vec<&str> = labels
                .iter()
                .map(|label| found.get(*label).map_or("", String::as_str))
                .collect();
            *counts.entry(key.join(" ")).or_insert(0.0) += value;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "counts of a test are small whole numbers"
        )]
        counts
            .into_iter()
            .map(|(key, value)| (key, value as i64))
            .filter(|(_, count)| *count != 0)
            .collect()
    }

    /// The samples as differences to those of `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self(
            self.0
                .iter()
                .map(|(series, value)| {
                    (
                        series.clone(),
                        value - before.0.get(series).copied().unwrap_or(0.0),
                    )
                })
                .collect(),
        )
    }

    fn of<'s>(
        &'s self,
        name: &'s str,
        with: &'s [(&str, &str)],
    ) -> impl Iterator<Item = (&'s BTreeMap<String, String>, f64)> {
        let matches = |labels: &BTreeMap<String, String>| {
            with.iter()
                .all(|(label, value)| labels.get(*label).is_some_and(|is| is == value))
        };
        self.0
            .iter()
            .filter(move |((found, labels), _)| found == name && matches(labels))
            .map(|((_, labels), value)| (labels, *value))
    }
}

fn sample(line: &str) -> (Series, f64) {
    let name_end = line
        .find(['{', ' '])
        .unwrap_or_else(|| panic!("no sample: {line}"));
    let mut labels = BTreeMap::new();
    let mut rest = &line[name_end..];
    if let Some(mut inner) = rest.strip_prefix('{') {
        while !inner.starts_with('}') {
            let (label, more) = inner
                .split_once("=\"")
                .unwrap_or_else(|| panic!("no label: {line}"));
            let mut value = String::new();
            let mut chars = more.char_indices();
            let end = loop {
                match chars
                    .next()
                    .unwrap_or_else(|| panic!("a label does not end: {line}"))
                {
                    (_, '\\') => match chars.next().map(|(_, c)| c) {
                        Some('n') => value.push('\n'),
                        Some(c) => value.push(c),
                        None => panic!("a label does not end: {line}"),
                    },
                    (at, '"') => break at + 1,
                    (_, c) => value.push(c),
                }
            };
            labels.insert(label.to_owned(), value);
            inner = more[end..].trim_start_matches(',');
        }
        rest = &inner[1..];
    }
    let value = rest
        .split_whitespace()
        .next()
        .unwrap_or_else(|| panic!("no value: {line}"));
    (
        (line[..name_end].to_owned(), labels),
        value.parse().unwrap_or_else(|_| panic!("no number: {line}")),
    )
}

#[test]
fn reads_names_labels_and_values() {
    let samples =
        Samples::parse("# HELP a b\na 3 17\nb{x=\"1,\\\"}\",y=\"z\"} 0.5\nb{x=\"2\",y=\"z\"} 4 9\n");
    assert_eq!(samples.one("a", &[]), Some(3.0));
    assert_eq!(samples.sum("b", &[("y", "z")]), 4.5);
    assert_eq!(samples.one("b", &[("x", "1,\"}")]), Some(0.5));
    assert_eq!(samples.by("b", &["x"]), BTreeMap::from([("2".to_owned(), 4)]));
}
