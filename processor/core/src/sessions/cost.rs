//! What a response cost: disjoint tokens times the prices of the partition's epoch, at the time of the event.
//!
//! All in integers. An amount of one kind is rounded once, to the nearest billionth of a dollar or millionth of a credit,
//! and everything else is a sum of such amounts: so the kinds add up to the total, in any order.

use crate::out::Out;
use schemas::fact::{AmountByKind, BillingBasis, Fact, Tokens};
use schemas::price::{Book, Prices, Rates, Unpriced};
use schemas::state::Counts;
use schemas::time::EventTime;

/// The most that one response, or one turn, can be thought to cost: a million dollars in nano-dollars, or a billion
/// credits in millionths. More is a wrong count, and would drown what is right in its sum.
pub const AMOUNT_MAX: u64 = 1_000_000_000_000_000;

/// A rate is in millionths for a million tokens: that many of its parts make a nano-dollar a token…
const PER_NANO_USD: u64 = 1_000;
/// …and a millionth of a credit a token.
const PER_MICRO_CREDIT: u64 = 1_000_000;

/// What decides about a response's price, beside its tokens.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Of the partition's epoch.
    pub prices: &'a Prices,
    /// The model's id on the wire.
    pub model: &'a str,
    /// Whether it is a ChatGPT plan's, which is paid in credits.
    pub plan: bool,
    /// The response's own tier, bounded.
    pub tier: &'static str,
    /// Time of the event.
    pub time: EventTime,
}

/// Tells the cost of a response in each book that applies to it, and adds it to the session's counts.
pub fn of_response(tokens: &Tokens, terms: &Terms<'_>, counts: &mut Counts, out: &mut Out<'_>) {
    let plan = terms.plan;
    let find = |book| {
        terms
            .prices
            .find(book, terms.model, terms.tier, terms.time.0, tokens.input())
    };
    let (basis, tier) = (
        if plan {
            BillingBasis::SubscriptionEquivalent
        } else {
            BillingBasis::ApiList
        },
        terms.tier,
    );
    let usd = find(Book::ApiUsd)
        .and_then(|rates| Ok((priced(tokens, rates, PER_NANO_USD)?, savings(tokens, rates))));
    match usd {
        Ok((nano_usd, cache_savings_nano_usd)) => {
            let sum = if plan {
                &mut counts.equivalent_nano_usd
            } else {
                &mut counts.cost_nano_usd
            };
            *sum = sum.saturating_add(nano_usd.total());
            out.tell(&Fact::Cost {
                basis,
                tier,
                nano_usd,
                cache_savings_nano_usd,
            });
        }
        Err(reason) => unpriced(Book::ApiUsd, reason, !plan, tokens, counts, out),
    }
    if plan {
        match find(Book::ChatgptCredits).and_then(|rates| priced(tokens, rates, PER_MICRO_CREDIT)) {
            Ok(amounts) => {
                let micro_credits = amounts.total();
                counts.micro_credits = counts.micro_credits.saturating_add(micro_credits);
                out.tell(&Fact::Credits { tier, micro_credits });
            }
            Err(reason) => unpriced(Book::ChatgptCredits, reason, true, tokens, counts, out),
        }
    }
}

/// Tells tokens without a price; those that are paid by this book are the session's unpriced ones.
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
    out.tell(&Fact::Unpriced {
        book,
        reason,
        tokens: tokens.total(),
    });
}

/// The amount of each kind, and their total, within [`AMOUNT_MAX`].
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
    // Five amounts, each far below the type's limit.
    if amounts.total() > AMOUNT_MAX {
        Err(Unpriced::Overflow)
    } else {
        Ok(amounts)
    }
}

/// What the cache saved; nothing, where reading from it is dearer.
fn savings(tokens: &Tokens, rates: Rates) -> u64 {
    let saved = amount(
        tokens.input_cached,
        rates.input.saturating_sub(rates.cached_input),
        PER_NANO_USD,
    );
    u64::try_from(saved).unwrap_or(AMOUNT_MAX).min(AMOUNT_MAX)
}

/// `count` times `rate`, divided by `per`, to the nearest whole; half of one goes up.
const fn amount(count: u64, rate: u64, per: u64) -> u128 {
    (count as u128 * rate as u128 + per as u128 / 2) / per as u128
}
