//! What a response cost: disjoint tokens times the prices of the partition's epoch, at the time of the event.
//!
//! The response's own attributes decide: tokens, model, `service_tier` (absent: the default tier),
//! `auth_mode`, event time. `auth_mode` chooses the book. With an API key that is `api_usd`; for a ChatGPT
//! plan it is `chatgpt_credits`, and beside it `api_usd` as an equivalent that is never added. The row of the
//! price table is found by exact model id (then without a date at its end), tier, day, and the largest
//! `context_above` that the input tokens exceed; it prices the whole request. Tokens written to the cache
//! cost what input does where the row has no price for them.
//!
//! Where no row fits, the tokens are `Fact::Unpriced` with a reason, never an amount of 0. An amount beyond a
//! million dollars for one response ([`AMOUNT_MAX`]) is a wrong count, and is unpriced with reason
//! `overflow`.
//!
//! **Invariant:** all amounts are integers. An amount of one kind is a product in 128 bits, rounded once to a
//! nano-dollar or a millionth of a credit, and everything else is a sum of such amounts: so kinds add up to
//! the total, in any order and any batch. Sums saturate.

use crate::out::Out;
use schemas::fact::{AmountByKind, BillingBasis, Fact, Tokens};
use schemas::price::{Book, Prices, Rates, Unpriced};
use schemas::state::Counts;
use schemas::time::EventTime;

/// The most that one response or one turn may cost: a million dollars in nano-dollars, or a billion credits
/// in millionths. A higher amount comes from a wrong count, and would make every sum that includes it
/// useless.
pub const AMOUNT_MAX: u64 = 1_000_000_000_000_000;

/// What a product of tokens and a rate (millionths of a dollar for a million tokens) is divided by to be in
/// nano-dollars.
const PER_NANO_USD: u64 = 1_000;
/// What a product of tokens and a rate (millionths of a credit for a million tokens) is divided by to be in
/// millionths of a credit.
const PER_MICRO_CREDIT: u64 = 1_000_000;

/// What the price of a response depends on beside its tokens.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The prices of the partition's epoch.
    pub prices: &'a Prices,
    /// The model's id on the wire.
    pub model: &'a str,
    /// Whether the response is paid by a ChatGPT plan, in credits.
    pub plan: bool,
    /// The service tier of the response.
    pub tier: &'static str,
    /// The event time.
    pub time: EventTime,
}

impl Terms<'_> {
    /// The prices of a book for a response with those tokens.
    fn find(&self, book: Book, tokens: &Tokens) -> Result<Rates, Unpriced> {
        self.prices
            .find(book, self.model, self.tier, self.time.0, tokens.input())
    }
}

/// Emits the cost of a response in each book that applies to it, and adds it to the session's counts.
pub fn of_response(tokens: &Tokens, terms: &Terms<'_>, counts: &mut Counts, out: &mut Out<'_>) {
    let plan = terms.plan;
    let (basis, tier) = (basis_of(terms), terms.tier);
    let usd = in_dollars(tokens, terms).map(|(amounts, rates)| (amounts, savings(tokens, rates)));
    match usd {
        Ok((nano_usd, cache_savings_nano_usd)) => {
            let sum = if plan {
                &mut counts.equivalent_nano_usd
            } else {
                &mut counts.cost_nano_usd
            };
            *sum = sum.saturating_add(nano_usd.total());
            out.emit(&Fact::Cost {
                basis,
                tier,
                nano_usd,
                cache_savings_nano_usd,
            });
        }
        Err(reason) => unpriced(Book::ApiUsd, reason, !plan, tokens, counts, out),
    }
    if plan {
        match terms
            .find(Book::ChatgptCredits, tokens)
            .and_then(|rates| priced(tokens, rates, PER_MICRO_CREDIT))
        {
            Ok(amounts) => {
                let micro_credits = amounts.total();
                counts.micro_credits = counts.micro_credits.saturating_add(micro_credits);
                out.emit(&Fact::Credits { tier, micro_credits });
            }
            Err(reason) => unpriced(Book::ChatgptCredits, reason, true, tokens, counts, out),
        }
    }
}

/// Emits what the tokens of a prewarm would cost in dollars, and gives the amount, nano-dollars; 0 where they have no price.
pub fn of_prewarm(tokens: &Tokens, terms: &Terms<'_>, out: &mut Out<'_>) -> u64 {
    let Ok((amounts, _)) = in_dollars(tokens, terms) else {
        return 0;
    };
    let nano_usd = amounts.total();
    out.emit(&Fact::PrewarmCost {
        basis: basis_of(terms),
        nano_usd,
    });
    nano_usd
}

/// The cost of each kind of token in nano-dollars, and the prices that made it.
fn in_dollars(tokens: &Tokens, terms: &Terms<'_>) -> Result<(AmountByKind, Rates), Unpriced> {
    let rates = terms.find(Book::ApiUsd, tokens)?;
    Ok((priced(tokens, rates, PER_NANO_USD)?, rates))
}

/// What dollars of a response stand for, by how it is paid.
const fn basis_of(terms: &Terms<'_>) -> BillingBasis {
    if terms.plan {
        BillingBasis::SubscriptionEquivalent
    } else {
        BillingBasis::ApiList
    }
}

/// Emits tokens without a price in a book. If they are paid by that book, they are added to the session's
/// unpriced tokens.
fn unpriced(
    book: Book,
    reason: Unpriced,
    paid: bool,
    tokens: &Tokens,
    counts: &mut Counts,
    out: &mut Out<'_>,
) {
    if paid {
        counts.unpriced_tokens = counts.unpriced_tokens.saturating_add(tokens.total());
    }
    out.emit(&Fact::Unpriced {
        book,
        reason,
        tokens: tokens.total(),
    });
}

/// The amount of each kind of token.
///
/// # Errors
/// [`Unpriced::Overflow`] if an amount or the total is above [`AMOUNT_MAX`].
fn priced(tokens: &Tokens, rates: Rates, per: u64) -> Result<AmountByKind, Unpriced> {
    let amount = |count, rate| {
        u64::try_from(amount(count, rate, per))
            .ok()
            .filter(|amount| *amount <= AMOUNT_MAX)
            .ok_or(Unpriced::Overflow)
    };
    let amounts = AmountByKind {
        input_uncached: amount(tokens.input_uncached, rates.input)?,
        input_cached: amount(tokens.input_cached, rates.cached_input)?,
        input_cache_write: amount(tokens.input_cache_write, rates.cache_write)?,
        output_visible: amount(tokens.output_visible, rates.output)?,
        output_reasoning: amount(tokens.output_reasoning, rates.output)?,
    };
    // The total can't overflow: each of the five amounts is far below the limit of the type.
    if amounts.total() > AMOUNT_MAX {
        Err(Unpriced::Overflow)
    } else {
        Ok(amounts)
    }
}

/// How much less the cached tokens cost than uncached ones, nano-dollars; 0 where reading from the cache is
/// dearer.
fn savings(tokens: &Tokens, rates: Rates) -> u64 {
    let saved = amount(
        tokens.input_cached,
        rates.input.saturating_sub(rates.cached_input),
        PER_NANO_USD,
    );
    u64::try_from(saved).unwrap_or(AMOUNT_MAX).min(AMOUNT_MAX)
}

/// `count` times `rate` divided by `per`, rounded to the nearest integer, and half up.
const fn amount(count: u64, rate: u64, per: u64) -> u128 {
    (count as u128 * rate as u128 + per as u128 / 2) / per as u128
}
