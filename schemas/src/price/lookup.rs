//! The lookup of prices in a table, by book, model, tier, time and size of the request.

use super::check::day;
use super::{Book, PriceRow, PriceTable, Tier, Unpriced};
use std::collections::BTreeMap;

/// What a million tokens of each kind cost, in millionths of the book's unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Price of input tokens that came from no cache.
    pub input: u64,
    /// Price of input tokens read from the cache.
    pub cached_input: u64,
    /// Price of input tokens written to the cache.
    pub cache_write: u64,
    /// Price of output tokens, reasoning tokens among them.
    pub output: u64,
}

/// A row of a price table, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub tier: Tier,
    pub above: u64,
    /// The first time at which the row is in force, ms.
    pub from: i64,
    /// The first time at which the row is no longer in force, ms.
    pub to: i64,
    rates: Rates,
}

impl Entry {
    /// Parses a row; `None` for one that has faults of its own.
    pub fn of(row: &PriceRow) -> Option<(Book, Self)> {
        let price = |price: i64| u64::try_from(price).ok();
        let time = |text: &Option<String>, open: i64| text.as_deref().map_or(Some(open), day);
        let input = price(row.input)?;
        let or_input = |other: Option<i64>| other.map_or(Some(input), price);
        let rates = Rates {
            input,
            cached_input: or_input(row.cached_input)?,
            cache_write: or_input(row.cache_write)?,
            output: price(row.output)?,
        };
        let entry = Self {
            tier: Tier::by_name(&row.tier)?,
            above: u64::try_from(row.context_above).ok()?,
            from: time(&row.effective_from, i64::MIN)?,
            to: time(&row.effective_to, i64::MAX)?,
            rates,
        };
        Some((Book::by_name(&row.book)?, entry))
    }
}

/// A price table by book and model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    version: String,
    usd: BTreeMap<String, Vec<Entry>>,
    credits: BTreeMap<String, Vec<Entry>>,
}

impl Prices {
    /// The prices of a table. Rows that have faults of their own ([`PriceTable::faults`]) are left out.
    #[must_use]
    pub fn new(table: &PriceTable) -> Self {
        let mut prices = Self {
            version: table.version.clone(),
            ..Self::default()
        };
        for row in &table.rows {
            let Some((book, entry)) = Entry::of(row) else {
                continue;
            };
            let models = match book {
                Book::ApiUsd => &mut prices.usd,
                Book::ChatgptCredits => &mut prices.credits,
            };
            models.entry(row.model.clone()).or_default().push(entry);
        }
        prices
    }

    /// The table's version; empty for a table without one.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What tokens of `model` cost in a request at `time` (ms) with `input_tokens`, in the tier named `tier`.
    ///
    /// The model's id must be in the table as it is, or without a date at its end. No other part of an id is
    /// compared, since a new model would then get the price of another one.
    ///
    /// # Errors
    /// There is no price; the error says why.
    pub fn find(
        &self,
        book: Book,
        model: &str,
        tier: &str,
        time: i64,
        input_tokens: u64,
    ) -> Result<Rates, Unpriced> {
        let models = match book {
            Book::ApiUsd => &self.usd,
            Book::ChatgptCredits => &self.credits,
        };
        let entries = models
            .get(model)
            .or_else(|| models.get(without_date(model)?))
            .ok_or(Unpriced::Model)?;
        let of_tier = || entries.iter().filter(|entry| entry.tier.name() == tier);
        of_tier().next().ok_or(Unpriced::Tier)?;
        let fits = |entry: &&Entry| {
            (entry.from..entry.to).contains(&time) && (entry.above == 0 || input_tokens > entry.above)
        };
        of_tier()
            .filter(fits)
            .max_by_key(|entry| entry.above)
            .map(|entry| entry.rates)
            .ok_or(Unpriced::Date)
    }
}

/// An id without the date, such as `-2026-04-23`, at its end; `None` if no date is there.
fn without_date(model: &str) -> Option<&str> {
    let (id, date) = model.split_at_checked(model.len().checked_sub("-2026-04-23".len())?)?;
    let is_date = date.bytes().enumerate().all(|(at, byte)| {
        if matches!(at, 0 | 5 | 8) {
            byte == b'-'
        } else {
            byte.is_ascii_digit()
        }
    });
    (is_date && !id.is_empty()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_date_is_taken_off() {
        assert_eq!(without_date("gpt-5.4-2026-03-05"), Some("gpt-5.4"));
        for model in [
            "gpt-5.4",
            "gpt-5.4-2026-03-5",
            "gpt-5.4-mini",
            "-2026-03-05",
            "gpt-5.4-2026-03-05-x",
            "é-2026-03-0é",
        ] {
            assert_eq!(without_date(model), None, "{model}");
        }
    }
}
