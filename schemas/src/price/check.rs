//! The check of a price table: it is used as a whole, or refused with all of its faults.

use super::lookup::Entry;
use super::{Book, PRICE_MAX, PriceRow, PriceTable, ROWS_MAX, TABLE_BYTES_MAX, TEXT_BYTES_MAX, Tier};
use crate::time::parse_rfc3339;
use std::collections::{BTreeMap, BTreeSet};

const DAY_BYTES: usize = "2026-11-23".len();

/// What no two rows may share at one time: book, model, tier and size of the request.
type Key<'a> = (Book, &'a str, Tier, u64);
/// The times of rows, each as start and end, ms, and the row's number, from 1.
type Times = Vec<(i64, i64, usize)>;

impl PriceTable {
    /// The faults of the table, each as a sentence; empty if it has none.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.rows.len() > ROWS_MAX {
            faults.push(format!(
                "prices has {} rows, and may have {ROWS_MAX}",
                self.rows.len()
            ));
        }
        let bytes = serde_json::to_vec(self).map_or(usize::MAX, |json| json.len());
        if bytes > TABLE_BYTES_MAX {
            faults.push(format!(
                "prices has {bytes} bytes as JSON, and may have {TABLE_BYTES_MAX}"
            ));
        }
        if !self.rows.is_empty() && !is_text(&self.version) {
            faults.push(format!(
                "prices.version must be a text of at most {TEXT_BYTES_MAX} bytes"
            ));
        }
        for (name, source) in &self.sources {
            if !is_text(name) || !is_text(&source.what) {
                faults.push(format!(
                    "prices.sources.{name:?} must have a name and a text of at most {TEXT_BYTES_MAX} bytes"
                ));
            }
            if day(&source.read).is_none() {
                faults.push(format!(
                    "prices.sources.{name:?}: read is {:?}, and must be a day such as 2026-11-23",
                    source.read
                ));
            }
        }
        for (number, row) in (1..).zip(&self.rows).take(ROWS_MAX) {
            faults.extend(
                self.row_faults(row)
                    .into_iter()
                    .map(|fault| format!("prices row {number} ({}): {fault}", named(row))),
            );
        }
        faults.extend(self.faults_between());
        faults
    }

    fn row_faults(&self, row: &PriceRow) -> Vec<String> {
        let mut faults = Vec::new();
        if Book::by_name(&row.book).is_none() {
            faults.push("book must be api_usd or chatgpt_credits".to_owned());
        }
        if Tier::by_name(&row.tier).is_none() {
            faults.push(format!(
                "tier is {:?}, and must be default, priority or flex",
                row.tier
            ));
        }
        if !is_text(&row.model) {
            faults.push(format!("model must be a text of at most {TEXT_BYTES_MAX} bytes"));
        }
        if row.context_above < 0 {
            faults.push("context_above must not be negative".to_owned());
        }
        if !self.sources.contains_key(&row.source) {
            faults.push(format!("source {:?} is not in prices.sources", row.source));
        }
        let prices = [
            ("input", Some(row.input)),
            ("cached_input", row.cached_input),
            ("cache_write", row.cache_write),
            ("output", Some(row.output)),
        ];
        for (name, price) in prices {
            if price.is_some_and(|price| !(0..=PRICE_MAX).contains(&price)) {
                faults.push(format!("{name} must be 0 to {PRICE_MAX}"));
            }
        }
        let mut days = Vec::new();
        for (name, text) in [
            ("effective_from", &row.effective_from),
            ("effective_to", &row.effective_to),
        ] {
            let Some(text) = text else { continue };
            match day(text) {
                Some(day) => days.push(day),
                None => faults.push(format!(
                    "{name} is {text:?}, and must be a day such as 2026-11-23"
                )),
            }
        }
        if let [from, to] = days[..]
            && from >= to
        {
            faults.push("effective_to must be after effective_from".to_owned());
        }
        faults
    }

    /// The faults between rows: times that overlap, and rows for large requests without one for all others.
    fn faults_between(&self) -> Vec<String> {
        let mut by_key: BTreeMap<Key<'_>, Times> = BTreeMap::new();
        for (number, row) in (1..).zip(&self.rows).take(ROWS_MAX) {
            if let Some((book, entry)) = Entry::of(row) {
                by_key
                    .entry((book, &row.model, entry.tier, entry.above))
                    .or_default()
                    .push((entry.from, entry.to, number));
            }
        }
        let based: BTreeSet<_> = by_key
            .keys()
            .filter(|key| key.3 == 0)
            .map(|(book, model, tier, _)| (*book, *model, *tier))
            .collect();
        let mut faults = Vec::new();
        for ((book, model, tier, _), times) in &mut by_key {
            if !based.contains(&(*book, *model, *tier)) {
                let (_, _, number) = times[0];
                let row = &self.rows[number - 1];
                faults.push(format!(
                    "prices row {number} ({}): there is no row with context_above = 0 beside it",
                    named(row)
                ));
            }
            times.sort_unstable();
            let mut last = times[0];
            for &(from, to, number) in &times[1..] {
                if from < last.1 {
                    let row = &self.rows[number - 1];
                    faults.push(format!(
                        "prices rows {} and {number} ({}): their times overlap",
                        last.2,
                        named(row)
                    ));
                }
                // A row that goes on for longest may overlap with several after it.
                if to > last.1 {
                    last = (from, to, number);
                }
            }
        }
        faults
    }
}

/// The name of a row in messages: its writer finds the row by it.
fn named(row: &PriceRow) -> String {
    let shown = |text: &str| text.chars().take(64).collect::<String>();
    let above = if row.context_above == 0 {
        String::new()
    } else {
        format!(" above {}", row.context_above)
    };
    format!(
        "{} {} {}{above}",
        shown(&row.book),
        shown(&row.model),
        shown(&row.tier)
    )
}

fn is_text(text: &str) -> bool {
    (1..=TEXT_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// The start of a day in UTC, ms since the Unix epoch; `None` for a text that is not a day such as
/// 2026-11-23.
pub(super) fn day(text: &str) -> Option<i64> {
    let time = (text.len() == DAY_BYTES).then(|| parse_rfc3339(&format!("{text}T00:00:00Z")))?;
    Some(time?.0)
}
