//! Laws of prices that hold for any price table: an epoch's prices begin with its tick, and kinds add up in
//! any order.

#![allow(clippy::unwrap_used, reason = "numbers of tests fit")]

mod support;

use proptest::prelude::*;
use schemas::control::EpochChange;
use schemas::id::Epoch;
use schemas::price::{PriceRow, PriceSource, PriceTable};
use schemas::settings::Seed;
use std::collections::BTreeMap;
use support::responses::{Vector, response};
use support::{Driven, NOON, count};

/// A table with one model.
fn table(input: i64, cached: i64, output: i64) -> PriceTable {
    let row = PriceRow {
        book: "api_usd".to_owned(),
        model: "gpt-5.5".to_owned(),
        tier: "default".to_owned(),
        input,
        cached_input: Some(cached),
        output,
        source: "test".to_owned(),
        ..PriceRow::default()
    };
    let source = PriceSource {
        what: "a test".to_owned(),
        read: "2026-11-23".to_owned(),
    };
    PriceTable {
        version: "test".to_owned(),
        sources: BTreeMap::from([("test".to_owned(), source)]),
        rows: vec![row],
    }
}

#[test]
fn a_new_table_prices_what_comes_after_its_tick_and_nothing_before() {
    let mut run = Driven::new(Seed {
        prices: PriceTable::default(),
        ..Seed::shipped()
    });
    let vector = Vector {
        model: "gpt-5.5",
        tokens: [1_000, 0, 0, 0, 0],
        ..Vector::default()
    };
    let mut now = NOON;
    let mut send = |run: &mut Driven| {
        now += 1;
        run.send(now, &[response(now, &vector)]);
    };
    send(&mut run);
    run.rules.add(Epoch(3), table(1_000_000, 0, 0));
    // The epoch is known, but the partition has not entered it.
    send(&mut run);
    run.start_epoch(NOON + 10, 3);
    send(&mut run);
    let _ = run.commit();
    run.restart();
    send(&mut run);
    // The first epoch changes settings alone, the second one settings and prices.
    let settings = schemas::settings::Settings {
        session_gap_ms: 7_000,
        ..run.rules.seed.settings.clone()
    };
    run.rules.add(Epoch(4), settings.clone());
    run.start_epoch(NOON + 11, 4);
    send(&mut run);
    run.rules.add(
        Epoch(9),
        EpochChange {
            settings: Some(settings),
            prices: Some(table(10_000_000, 0, 0)),
            ..EpochChange::default()
        },
    );
    run.start_epoch(NOON + 12, 9);
    send(&mut run);
    run.rules.add(Epoch(10), PriceTable::default());
    run.start_epoch(NOON + 13, 10);
    send(&mut run);
    // The clock moves past the row interval, so that the row is published.
    run.tick(NOON + 5_000);
    let row = run
        .commit()
        .rows
        .pop()
        .expect("a session that changed publishes a row");
    assert_eq!(row.cost_nano_usd, 3 * 1_000_000 + 10_000_000);
    assert_eq!((row.unpriced_tokens, row.tokens.total), (3_000, 7_000));
    assert_eq!(
        (
            run.rules.settings(Epoch(10)).session_gap_ms,
            run.rules.prices(Epoch(4)).version()
        ),
        (7_000, "test")
    );
}

/// The cost of tokens: the rule of rounding (to the nearest nano-dollar, half up), implemented a second time
/// from its definition.
fn nano_usd(tokens: i64, rate: i64) -> i64 {
    let pico = i128::from(tokens) * i128::from(rate);
    i64::try_from(pico / 1_000 + i128::from(pico % 1_000 >= 500)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn kinds_add_up_in_any_order(
        rates in (0i64..100_000_000, 0i64..100_000_000, 0i64..100_000_000),
        responses in proptest::collection::vec((0i64..1_000_000, 0i64..1_000_000, 0i64..100_000, 0i64..100_000), 1..20),
        cuts: u64,
    ) {
        let (input_rate, cached_rate, output_rate) = rates;
        let seed = Seed { prices: table(input_rate, cached_rate, output_rate), ..Seed::shipped() };
        let fold = |order: &mut dyn Iterator<Item = usize>, cuts: u64| {
            let mut run = Driven::new(seed.clone());
            let (mut by_kind, mut total) = (0, 0);
            let mut row = 0;
            for (step, index) in order.enumerate() {
                let (input, cached, output, reasoning) = responses[index];
                let vector = Vector { model: "gpt-5.5", tokens: [input, cached, 0, output, reasoning], ..Vector::default() };
                let time = NOON + i64::try_from(index).unwrap();
                run.send(NOON + i64::try_from(step).unwrap(), &[response(time, &vector)]);
                if cuts >> (step % 64) & 1 == 1 || step + 1 == responses.len() {
                    // The clock moves past the row interval, so that the row is published.
                    run.tick(NOON + 5_000 * i64::try_from(step + 1).unwrap());
                    let effects = run.commit();
                    by_kind += count(&effects.deltas, "tacho_cost_by_kind_usd_total", &[]);
                    total += count(&effects.deltas, "tacho_cost_usd_total", &[]);
                    row = effects.rows.last().map_or(row, |row| row.cost_nano_usd);
                }
            }
            (by_kind, total, row)
        };
        let cost = |&(input, cached, output, reasoning): &(i64, i64, i64, i64)| {
            let (cached, reasoning) = (cached.min(input), reasoning.min(output));
            let inputs = nano_usd(input - cached, input_rate) + nano_usd(cached, cached_rate);
            inputs + nano_usd(output - reasoning, output_rate) + nano_usd(reasoning, output_rate)
        };
        let expected: i64 = responses.iter().map(cost).sum();
        let forwards = fold(&mut (0..responses.len()), 0);
        prop_assert_eq!(forwards, (expected, expected, expected));
        let (by_kind, total, _) = fold(&mut (0..responses.len()).rev(), cuts);
        prop_assert_eq!((by_kind, total), (expected, expected));
    }
}
