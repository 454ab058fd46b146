//! Price tables: what tokens cost, by book, model, tier, time and size of the request.
//!
//! A table is data in the control topic, so that a replay prices as the first run did. It is written by hand, checked
//! as a whole ([`PriceTable::faults`]), and read through [`Prices`].

mod check;
mod lookup;

pub use lookup::{Prices, Rates};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many rows a table has at most.
pub const ROWS_MAX: usize = 1_024;
/// How many bytes a table has at most, as JSON: far below what a record may have.
pub const TABLE_BYTES_MAX: usize = 262_144;
/// How many bytes a text of a table has at most.
pub const TEXT_BYTES_MAX: usize = 512;
/// The highest price: one dollar, or one credit, a token.
pub const PRICE_MAX: i64 = 1_000_000_000_000;

/// The shipped prices: `deploy/prices.toml`.
pub const SHIPPED_PRICES_TOML: &str = include_str!("../../deploy/prices.toml");

/// A table, as in a file and in a control record. The default has no rows: nothing has a price then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceTable {
    /// A name for people, such as the date of the last change.
    #[serde(default)]
    pub version: String,
    /// Where prices come from, by the names that rows use.
    #[serde(default)]
    pub sources: BTreeMap<String, PriceSource>,
    /// The prices.
    #[serde(default)]
    pub rows: Vec<PriceRow>,
}

/// Where a price was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceSource {
    /// The list or page, with its commit where it has one.
    pub what: String,
    /// The day on which it was read, as `2026-11-23`.
    pub read: String,
}

/// What the tokens of one model cost. Prices are in millionths of the book's unit for a million tokens: 2.50 dollars a
/// million tokens is 2,500,000. Finer than a billionth of the unit a token, since half a price of 0.175 has to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceRow {
    /// `api_usd` or `chatgpt_credits`.
    pub book: String,
    /// The model's id, exactly; an id on the wire is also tried without a date at its end.
    pub model: String,
    /// `default`, `priority` or `flex`.
    #[serde(default = "default_tier")]
    pub tier: String,
    /// The row is for requests with more input tokens than this, as a whole.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub context_above: i64,
    /// First day (UTC) of the price; always, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_from: Option<String>,
    /// First day on which it is no longer the price; for ever, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_to: Option<String>,
    /// Input tokens that came from no cache.
    pub input: i64,
    /// Input tokens read from the cache; as `input`, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<i64>,
    /// Input tokens written to the cache; as `input`, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<i64>,
    /// Output tokens, reasoning among them.
    pub output: i64,
    /// A name in `sources`.
    pub source: String,
}

fn default_tier() -> String {
    Tier::Default.name().to_owned()
}

const fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A list of prices in one unit. Amounts of two books are never added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Book {
    /// Dollars, for tokens of the API.
    ApiUsd,
    /// Credits of a ChatGPT plan.
    ChatgptCredits,
}

impl Book {
    /// The name in tables, and the label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ApiUsd => "api_usd",
            Self::ChatgptCredits => "chatgpt_credits",
        }
    }

    fn by_name(name: &str) -> Option<Self> {
        [Self::ApiUsd, Self::ChatgptCredits]
            .into_iter()
            .find(|book| book.name() == name)
    }
}

/// A service tier that has prices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// The one that is not asked for.
    Default,
    /// Faster and dearer; also called fast.
    Priority,
    /// Slower and cheaper.
    Flex,
}

impl Tier {
    /// The name in tables, and the label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Priority => "priority",
            Self::Flex => "flex",
        }
    }

    /// The tier of that name; `None` for any that has no prices.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Default, Self::Priority, Self::Flex]
            .into_iter()
            .find(|tier| tier.name() == name)
    }
}

/// Why tokens have no price in a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unpriced {
    /// The book has no row for the model.
    Model,
    /// It has none for the model in this tier.
    Tier,
    /// It has none for that time.
    Date,
    /// The amount is beyond any that could be true.
    Overflow,
}

impl Unpriced {
    /// The label value.
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
