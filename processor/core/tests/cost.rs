//! The cost of responses by the shipped prices: vectors that were computed by hand.
//!
//! What holds for any prices is in `cost_laws.rs`.

#![allow(clippy::unwrap_used, reason = "numbers of tests fit")]

mod support;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use schemas::settings::Seed;
use schemas::time::parse_rfc3339;
use support::responses::{Vector, response};
use support::{Driven, NOON, count, event, int, labelled, text};

/// Folds the response of a vector, and compares metrics and row with the vector.
fn check(time: i64, vector: &Vector) {
    let mut run = Driven::new(Seed::shipped());
    run.send(time, &[response(time, vector)]);
    let effects = run.commit();
    let sum = |metric, with: &[&str]| count(&effects.deltas, metric, with);
    assert_eq!(
        sum("tacho_cost_usd_total", &["api_list"]),
        vector.usd,
        "{vector:?}"
    );
    assert_eq!(
        sum("tacho_cost_usd_total", &["subscription_equivalent"]),
        vector.equivalent,
        "{vector:?}"
    );
    assert_eq!(
        sum("tacho_cost_by_kind_usd_total", &["api_list"]),
        vector.usd,
        "{vector:?}"
    );
    assert_eq!(
        sum("tacho_cost_by_kind_usd_total", &["subscription_equivalent"]),
        vector.equivalent,
        "{vector:?}"
    );
    assert_eq!(sum("tacho_credits_total", &[]), vector.credits, "{vector:?}");
    assert_eq!(
        sum("tacho_unpriced_tokens_total", &[]),
        vector.unpriced.iter().map(|(.., tokens)| tokens).sum::<i64>(),
        "{vector:?}"
    );
    for (book, reason, tokens) in vector.unpriced {
        assert_eq!(
            sum("tacho_unpriced_tokens_total", &[book, reason]),
            *tokens,
            "{vector:?}"
        );
    }
    let row = &effects.rows[0];
    assert_eq!(
        (row.cost_nano_usd, row.equivalent_nano_usd, row.micro_credits),
        (vector.usd, vector.equivalent, vector.credits)
    );
    let paid_by = if vector.auth == "Chatgpt" {
        "chatgpt_credits"
    } else {
        "api_usd"
    };
    let unpriced: i64 = vector
        .unpriced
        .iter()
        .filter(|(book, ..)| *book == paid_by)
        .map(|(.., tokens)| tokens)
        .sum();
    assert_eq!(row.unpriced_tokens, unpriced, "{vector:?}");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table: a vector for each rule of prices")]
fn responses_paid_in_dollars() {
    let unpriced = |model, tier, unpriced| Vector {
        model,
        tier,
        tokens: [100, 50, 0, 10, 5],
        unpriced,
        ..Vector::default()
    };
    let vectors = [
        // 60,000 x 2.50 + 40,000 x 0.25 + 2,000 x 15 dollars a million.
        Vector {
            model: "gpt-5.4",
            auth: "ApiKey",
            tokens: [100_000, 40_000, 0, 2_000, 500],
            usd: 190_000_000,
            ..Vector::default()
        },
        Vector {
            model: "gpt-5.4-2026-03-05",
            tier: "auto",
            tokens: [100_000, 40_000, 0, 2_000, 500],
            usd: 190_000_000,
            ..Vector::default()
        },
        // Up to 272,000 input tokens the lower price holds; with one more, the higher price holds for all
        // tokens.
        Vector {
            model: "gpt-5.4",
            tokens: [272_000, 0, 0, 1_000, 0],
            usd: 695_000_000,
            ..Vector::default()
        },
        Vector {
            model: "gpt-5.4",
            tokens: [272_001, 0, 0, 1_000, 0],
            usd: 1_382_505_000,
            ..Vector::default()
        },
        Vector {
            model: "gpt-5.4",
            tokens: [300_000, 200_000, 0, 1_000, 400],
            usd: 622_500_000,
            ..Vector::default()
        },
        // Tier priority costs twice as much as the default tier, and flex half.
        Vector {
            model: "gpt-5.4",
            tier: "priority",
            tokens: [300_000, 200_000, 0, 1_000, 400],
            usd: 1_245_000_000,
            ..Vector::default()
        },
        Vector {
            model: "gpt-5.4",
            tier: "flex",
            tokens: [300_000, 200_000, 0, 1_000, 400],
            usd: 311_250_000,
            ..Vector::default()
        },
        Vector {
            model: "gpt-5.5",
            tier: "fast",
            tokens: [10_000, 4_000, 0, 100, 100],
            usd: 87_500_000,
            ..Vector::default()
        },
        // The cost of one cached token, 37.5 nano-dollars, is rounded up.
        Vector {
            model: "gpt-5.4-mini",
            tier: "flex",
            tokens: [1_001, 1, 0, 3, 0],
            usd: 375_000 + 38 + 6_750,
            ..Vector::default()
        },
        // 5,000 x 2 + 2,000 x 0.20 + 3,000 x 2.50 + 500 x 12 dollars a million.
        Vector {
            model: "gpt-5.6-terra",
            tokens: [10_000, 2_000, 3_000, 500, 0],
            usd: 23_900_000,
            ..Vector::default()
        },
        // Tokens written to the cache cost what input does if they have no price of their own.
        Vector {
            model: "gpt-5.4",
            tokens: [1_000, 0, 1_000, 0, 0],
            usd: 2_500_000,
            ..Vector::default()
        },
        // More cached tokens than input, and more reasoning than output, are clamped: 100 x 0.25 + 10 x 15
        // dollars a million.
        Vector {
            model: "gpt-5.4",
            tokens: [100, 150, 0, 10, 20],
            usd: 25_000 + 150_000,
            ..Vector::default()
        },
        Vector {
            model: "gpt-5.4",
            tokens: [0, 0, 0, 0, 0],
            ..Vector::default()
        },
        // An id that is part of another one, or begins like another one, has no price.
        unpriced("gpt-5", "scale", &[("api_usd", "tier", 110)]),
        unpriced("gpt-5.4-turbo", "", &[("api_usd", "model", 110)]),
        unpriced("gpt-5.5-codex", "", &[("api_usd", "model", 110)]),
        unpriced("codex-auto-review", "", &[("api_usd", "model", 110)]),
        unpriced("gpt-5.6-sol", "", &[("api_usd", "date", 110)]),
        Vector {
            model: "gpt-5.5",
            tokens: [9_000_000_000_000_000_000, 0, 0, 10, 0],
            unpriced: &[("api_usd", "overflow", 9_000_000_000_000_000_010)],
            ..Vector::default()
        },
    ];
    for vector in vectors {
        check(NOON, &vector);
    }
}

#[test]
fn responses_paid_in_credits() {
    let plan = |model, tier, tokens| Vector {
        model,
        auth: "Chatgpt",
        tier,
        tokens,
        ..Vector::default()
    };
    let vectors = [
        // 6,000 x 125 + 4,000 x 12.5 + 100 x 750 credits a million; prices in dollars are a 25th of that.
        Vector {
            credits: 875_000,
            equivalent: 35_000_000,
            ..plan("gpt-5.5", "", [10_000, 4_000, 0, 100, 40])
        },
        Vector {
            credits: 2_187_500,
            equivalent: 87_500_000,
            ..plan("gpt-5.5", "priority", [10_000, 4_000, 0, 100, 40])
        },
        // Large requests have a higher price in dollars only.
        Vector {
            credits: 37_500_000,
            equivalent: 3_000_000_000,
            ..plan("gpt-5.5", "", [300_000, 0, 0, 0, 0])
        },
        // 1.875 millionths of a credit are rounded to two.
        Vector {
            credits: 2 + 113_000,
            equivalent: 75 + 4_500_000,
            ..plan("gpt-5.4-mini", "", [1, 1, 0, 1_000, 0])
        },
        // A model can have a price in one book and none in the other.
        Vector {
            equivalent: 23_900_000,
            unpriced: &[("chatgpt_credits", "model", 10_500)],
            ..plan("gpt-5.6-terra", "", [10_000, 2_000, 3_000, 500, 0])
        },
        // 36 x 1.25 + 64 x 0.125 + 10 x 7.50 dollars a million.
        Vector {
            equivalent: 128_000,
            unpriced: &[("chatgpt_credits", "tier", 110)],
            ..plan("gpt-5.4", "flex", [100, 64, 0, 10, 0])
        },
        Vector {
            unpriced: &[("chatgpt_credits", "model", 5), ("api_usd", "model", 5)],
            ..plan("gpt-5.3-codex-spark", "", [4, 0, 0, 1, 0])
        },
    ];
    for vector in vectors {
        check(NOON, &vector);
    }
}

#[test]
fn the_price_is_that_of_the_events_day() {
    let at = |text: &str| parse_rfc3339(text).unwrap().0;
    let luna = |usd| Vector {
        model: "gpt-5.6-luna",
        tokens: [1_000_000, 900_000, 0, 1_000, 0],
        usd,
        ..Vector::default()
    };
    // The price of a large request: 100,000 x 2 + 900,000 x 0.20 + 1,000 x 9 dollars a million, and later a
    // fifth of that.
    check(at("2026-07-29T23:59:59.999Z"), &luna(389_000_000));
    check(at("2026-07-30T00:00:00Z"), &luna(77_800_000));
    let sol = |usd| Vector {
        model: "gpt-5.6-sol",
        tokens: [1_000, 0, 0, 10, 0],
        usd,
        ..Vector::default()
    };
    check(at("2026-08-20T12:00:00Z"), &sol(5_300_000));
    check(at("2026-11-21T12:00:00Z"), &sol(4_200_000));
}

#[test]
fn kinds_tiers_and_savings_are_shown() {
    let mut run = Driven::new(Seed::shipped());
    let vector = Vector {
        model: "gpt-5.4",
        tokens: [100_000, 40_000, 10_000, 2_000, 500],
        ..Vector::default()
    };
    run.send(
        NOON,
        &[
            response(NOON, &vector),
            response(
                NOON + 1,
                &Vector {
                    tier: "fast",
                    ..vector
                },
            ),
        ],
    );
    let deltas = run.commit().deltas;
    let kind = |kind, tier| {
        labelled(
            &deltas,
            "tacho_cost_by_kind_usd_total",
            &[("model", "gpt-5.4"), ("kind", kind), ("tier", tier)],
        )
    };
    let kinds = [
        "input_uncached",
        "input_cached",
        "input_cache_write",
        "output_visible",
        "output_reasoning",
    ];
    assert_eq!(
        kinds.map(|of| kind(of, "default")),
        [125_000_000, 10_000_000, 25_000_000, 22_500_000, 7_500_000]
    );
    assert_eq!(
        kinds.map(|of| kind(of, "priority")),
        [250_000_000, 20_000_000, 50_000_000, 45_000_000, 15_000_000]
    );
    // 40,000 x (2.50 - 0.25) dollars a million in the default tier, and twice that in tier priority.
    assert_eq!(
        count(&deltas, "tacho_cache_savings_usd_total", &["api_list"]),
        90_000_000 + 180_000_000
    );
}

#[test]
fn a_tier_is_the_responses_own() {
    let mut run = Driven::new(Seed::shipped());
    let vector = Vector {
        model: "gpt-5.4",
        tokens: [1_000, 0, 0, 0, 0],
        ..Vector::default()
    };
    run.send(
        NOON,
        &[response(
            NOON,
            &Vector {
                tier: "priority",
                ..vector
            },
        )],
    );
    run.send(NOON + 1, &[response(NOON + 1, &vector)]);
    let effects = run.commit();
    let of_tier = |tier| labelled(&effects.deltas, "tacho_cost_by_kind_usd_total", &[("tier", tier)]);
    assert_eq!((of_tier("priority"), of_tier("default")), (5_000_000, 2_500_000));
    assert_eq!(effects.rows[0].cost_nano_usd, 7_500_000);
}

#[test]
fn codex_own_price_of_a_turn_is_counted_once_and_in_a_metric_of_its_own() {
    let mut run = Driven::new(Seed::shipped());
    let turn = |time, usd, interrupted| {
        let attributes = vec![
            ("turn.id", text("t")),
            ("usage.estimated_usd", usd),
            ("turn.interrupted", Value::BoolValue(interrupted)),
        ];
        event("c", time, "codex.turn_cost", attributes)
    };
    run.send(
        NOON + 9,
        &[
            turn(NOON, text("0.0123"), false),
            turn(NOON, text("0.0123"), false), // the same record sent again
            turn(NOON + 1, text("1.0000000019"), true), // a fraction of a nano-dollar is cut off
            turn(NOON + 2, text("2.5e-7"), false),
            turn(NOON + 3, Value::DoubleValue(0.29), false),
            turn(NOON + 4, int(2), false),
            turn(NOON + 5, text("-1"), false),
            turn(NOON + 6, text("much"), false),
            turn(NOON + 7, text("1000000.01"), false), // more than a turn may cost
        ],
    );
    let effects = run.commit();
    let native = |interrupted| {
        count(
            &effects.deltas,
            "tacho_native_turn_cost_usd_total",
            &[interrupted],
        )
    };
    assert_eq!(native("false"), 12_300_000 + 250 + 290_000_000 + 2_000_000_000);
    assert_eq!(native("true"), 1_000_000_001);
    assert_eq!(
        effects.rows[0].native_cost_nano_usd,
        native("false") + native("true")
    );
    assert_eq!(count(&effects.deltas, "tacho_cost_usd_total", &[]), 0);
    assert_eq!(
        count(&effects.deltas, "tacho_log_records_total", &["duplicate"]),
        1
    );
}
