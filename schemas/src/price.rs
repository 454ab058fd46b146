//! Price tables: what tokens cost, by book, model, tier, time and size of the request.
//!
//! A table is data in the control topic, so that a replay prices as the first run did. It is written by hand,
//! checked as a whole ([`PriceTable::faults`]), and read through [`Prices`].
//!
//! Prices are integers: millionths of a dollar or of a credit for a million tokens, since a rate card has
//! prices of 12.5 and 1.875 credits a million. Amounts become dollars and credits in one place, where
//! `/metrics` is written: an exact decimal in text, the nearest double in protobuf.

mod check;
mod lookup;

pub use lookup::{Prices, Rates};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use strum::VariantArray;

/// The most rows of a table.
pub const ROWS_MAX: usize = 1_024;
/// The most bytes of a table as JSON: far fewer than a record may have.
pub const TABLE_BYTES_MAX: usize = 262_144;
/// The most bytes of a text in a table.
pub const TEXT_BYTES_MAX: usize = 512;
/// The highest price: one dollar, or one credit, a token.
pub const PRICE_MAX: i64 = 1_000_000_000_000;

/// The shipped prices: `deploy/prices.toml`.
pub const SHIPPED_PRICES_TOML: &str = include_str!("../../deploy/prices.toml");

/// A price table, as in a file and in a control record. The default has no rows, so that nothing has a price.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceTable {
    /// A name for people, such as the date of the last change.
    #[serde(default)]
    pub version: String,
    /// Where prices were read, by the names that rows refer to.
    #[serde(default)]
    pub sources: BTreeMap<String, PriceSource>,
    /// The prices, each with what it is for.
    #[serde(default)]
    pub rows: Vec<PriceRow>,
}

/// Where a price was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceSource {
    /// The list or page, with its commit if it has one.
    pub what: String,
    /// The day on which it was read, as `2026-11-23`.
    pub read: String,
}

/// What the tokens of one model cost, in millionths of the book's unit for a million tokens: 2.50 dollars a
/// million tokens is 2,500,000. That is finer than a billionth of the unit a token, so that half of a price
/// of 0.175 is an integer too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceRow {
    /// The book: `api_usd` or `chatgpt_credits`.
    pub book: String,
    /// The model's id. An id on the wire must be equal to it, as it is or without a date at its end.
    pub model: String,
    /// The service tier: `default`, `priority` or `flex`.
    #[serde(default = "default_tier")]
    pub tier: String,
    /// The row prices whole requests that have more input tokens than this.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub context_above: i64,
    /// First day (UTC) of the price; absent if it always was the price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_from: Option<String>,
    /// First day (UTC) on which the price is no longer in force; absent if it has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_to: Option<String>,
    /// Price of input tokens that came from no cache.
    pub input: i64,
    /// Price of input tokens read from the cache; absent if it is that of `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<i64>,
    /// Price of input tokens written to the cache; absent if it is that of `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<i64>,
    /// Price of output tokens, reasoning tokens among them.
    pub output: i64,
    /// Where the price was read: a name in [`PriceTable::sources`].
    pub source: String,
}

fn default_tier() -> String {
    Tier::Default.name().to_owned()
}

const fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A book: prices in one unit. Amounts of two books are never added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, VariantArray)]
pub enum Book {
    /// Dollars, the unit of tokens of the API.
    ApiUsd,
    /// Credits, the unit of tokens of a ChatGPT plan.
    ChatgptCredits,
}

impl Book {
    /// The name of the book in tables, and its label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ApiUsd => "api_usd",
            Self::ChatgptCredits => "chatgpt_credits",
        }
    }

    fn by_name(name: &str) -> Option<Self> {
        Self::VARIANTS.iter().copied().find(|book| book.name() == name)
    }
}

/// A service tier that has prices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// The tier of requests that ask for none.
    Default,
    /// The faster and dearer tier, also called fast.
    Priority,
    /// The slower and cheaper tier.
    Flex,
}

impl Tier {
    /// The name of the tier in tables, and its label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Priority => "priority",
            Self::Flex => "flex",
        }
    }

    /// The tier with that name; `None` for a tier that has no prices.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Default, Self::Priority, Self::Flex]
            .into_iter()
            .find(|tier| tier.name() == name)
    }
}

/// Why tokens have no price in a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, VariantArray)]
pub enum Unpriced {
    /// The book has no row for the model.
    Model,
    /// The book has rows for the model, but none in this tier.
    Tier,
    /// The book has rows for the model in this tier, but none for that time or that size of the request.
    Date,
    /// The amount is above any that could be true.
    Overflow,
}

impl Unpriced {
    /// The label value of the reason.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Tier => "tier",
            Self::Date => "date",
            Self::Overflow => "overflow",
        }
    }
}

impl PriceTable {
    /// The shipped prices.
    ///
    /// # Panics
    /// Never: a test reads the shipped file.
    #[must_use]
    pub fn shipped() -> Self {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            prices: PriceTable,
        }
        toml::from_str::<File>(SHIPPED_PRICES_TOML)
            .expect("deploy/prices.toml is valid: a test reads it")
            .prices
    }
}
