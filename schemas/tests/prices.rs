//! Price tables: the shipped one has no faults, all faults of another are named at once, and lookups follow
//! the rules.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use schemas::price::{
    Book, PRICE_MAX, PriceRow, PriceSource, PriceTable, Prices, ROWS_MAX, Rates, TABLE_BYTES_MAX, Unpriced,
};
use schemas::time::parse_rfc3339;
use std::collections::BTreeMap;

fn at(text: &str) -> i64 {
    parse_rfc3339(text).unwrap().0
}

fn table(rows: Vec<PriceRow>) -> PriceTable {
    let source = PriceSource {
        what: "made up".to_owned(),
        read: "2026-11-23".to_owned(),
    };
    PriceTable {
        version: "1".to_owned(),
        sources: BTreeMap::from([("here".to_owned(), source)]),
        rows,
    }
}

fn row(model: &str, input: i64) -> PriceRow {
    PriceRow {
        book: "api_usd".to_owned(),
        model: model.to_owned(),
        tier: "default".to_owned(),
        input,
        output: 2 * input,
        source: "here".to_owned(),
        ..PriceRow::default()
    }
}

fn from_to(row: PriceRow, from: Option<&str>, to: Option<&str>) -> PriceRow {
    PriceRow {
        effective_from: from.map(str::to_owned),
        effective_to: to.map(str::to_owned),
        ..row
    }
}

fn above(row: PriceRow, context_above: i64) -> PriceRow {
    PriceRow { context_above, ..row }
}

#[test]
fn the_shipped_table_is_right_and_every_row_has_a_source_that_is_used() {
    let shipped = PriceTable::shipped();
    assert_eq!(shipped.faults(), Vec::<String>::new());
    assert!(shipped.rows.len() > 50);
    for name in shipped.sources.keys() {
        assert!(
            shipped.rows.iter().any(|row| &row.source == name),
            "no row is from {name}"
        );
    }
    let json = serde_json::to_vec(&shipped).unwrap();
    assert_eq!(serde_json::from_slice::<PriceTable>(&json).unwrap(), shipped);
    assert_eq!(
        PriceTable::default().faults(),
        Vec::<String>::new(),
        "an empty table has no faults"
    );
}

#[test]
fn large_requests_of_the_shipped_table_follow_the_rule() {
    let shipped = PriceTable::shipped();
    let mut large = 0;
    for row in shipped.rows.iter().filter(|row| row.context_above > 0) {
        let same = |other: &&PriceRow| {
            other.context_above == 0
                && (&other.book, &other.model, &other.tier, &other.effective_from)
                    == (&row.book, &row.model, &row.tier, &row.effective_from)
        };
        let base = shipped.rows.iter().find(same).unwrap();
        assert_eq!(
            (row.book.as_str(), row.context_above),
            ("api_usd", 272_000),
            "{row:?}"
        );
        assert_eq!(
            (row.input, 2 * row.output),
            (2 * base.input, 3 * base.output),
            "{row:?}"
        );
        assert_eq!(
            row.cached_input,
            base.cached_input.map(|price| 2 * price),
            "{row:?}"
        );
        assert_eq!(
            row.cache_write,
            base.cache_write.map(|price| 2 * price),
            "{row:?}"
        );
        large += 1;
    }
    assert!(large > 10);
}

#[test]
fn every_fault_is_named_at_once() {
    let mut wrong = table(vec![
        PriceRow {
            book: "api".to_owned(),
            tier: "scale".to_owned(),
            source: "there".to_owned(),
            ..row("", -1)
        },
        PriceRow {
            cached_input: Some(PRICE_MAX + 1),
            cache_write: Some(-5),
            ..above(row("a", 1), -1)
        },
        from_to(row("b", 1), Some("2026-13-01"), Some("soon")),
        from_to(row("c", 1), Some("2026-02-01"), Some("2026-02-01")),
        above(row("d", 1), 272_000),
        from_to(row("e", 1), None, Some("2026-02-02")),
        from_to(row("e", 1), Some("2026-02-01"), None),
        from_to(row("e", 1), Some("2026-03-01"), Some("2026-04-01")),
    ]);
    wrong.version = String::new();
    wrong.sources.insert(
        String::new(),
        PriceSource {
            what: "x".repeat(600),
            read: "2026-2-1".to_owned(),
        },
    );
    let faults = wrong.faults();
    for parts in [
        &["prices.version"][..],
        &["sources.\"\"", "text of at most"],
        &["sources.\"\"", "read is \"2026-2-1\""],
        &["row 1 ", "book must"],
        &["row 1 ", "tier is \"scale\""],
        &["row 1 ", "model must"],
        &["row 1 ", "input must"],
        &["row 1 ", "output must"],
        &["row 1 ", "source \"there\""],
        &["row 2 ", "cached_input must"],
        &["row 2 ", "cache_write must"],
        &["row 2 ", "context_above must"],
        &["row 3 ", "effective_from is \"2026-13-01\""],
        &["row 3 ", "effective_to is \"soon\""],
        &["row 4 ", "effective_to must be after"],
        &["row 5 ", "no row with context_above = 0"],
        &["rows 6 and 7 ", "overlap"],
        &["rows 7 and 8 ", "overlap"],
    ] {
        assert!(
            faults
                .iter()
                .any(|fault| parts.iter().all(|part| fault.contains(part))),
            "{parts:?} is not in {faults:#?}"
        );
    }
    assert_eq!(faults.len(), 18, "{faults:#?}");
}

#[test]
fn a_table_has_limits() {
    let many = table(
        (0..=ROWS_MAX)
            .map(|number| row(&format!("m{number}"), 1))
            .collect(),
    );
    assert!(
        many.faults()
            .iter()
            .any(|fault| fault.contains(&format!("{} rows", ROWS_MAX + 1))),
        "{:?}",
        many.faults()
    );
    let long = "m".repeat(400);
    let large = table(
        (0..ROWS_MAX)
            .map(|number| row(&format!("{long}{number}"), 1))
            .collect(),
    );
    let faults = large.faults();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(
        faults[0].contains(&format!("may have {TABLE_BYTES_MAX}")),
        "{faults:?}"
    );
}

#[test]
fn a_price_is_found_by_model_tier_time_and_size() {
    let day = |text: &str| at(&format!("{text}T00:00:00Z"));
    let prices = Prices::new(&table(vec![
        from_to(row("a", 10), None, Some("2026-07-30")),
        from_to(row("a", 20), Some("2026-07-30"), Some("2026-08-01")),
        above(
            from_to(row("a", 30), Some("2026-07-30"), Some("2026-08-01")),
            1_000,
        ),
        above(
            from_to(row("a", 40), Some("2026-07-30"), Some("2026-08-01")),
            2_000,
        ),
        PriceRow {
            cached_input: Some(1),
            cache_write: Some(7),
            tier: "flex".to_owned(),
            ..row("a", 5)
        },
        row("b-2026-01-01", 50),
    ]));
    let input = |model, tier, time, tokens| {
        prices
            .find(Book::ApiUsd, model, tier, time, tokens)
            .map(|rates| rates.input)
    };
    let turn = day("2026-07-30");
    assert_eq!(
        input("a", "default", turn - 1, 5_000),
        Ok(10),
        "before that day, large requests had the price of all others"
    );
    assert_eq!(input("a", "default", turn, 1_000), Ok(20));
    assert_eq!(input("a", "default", turn, 1_001), Ok(30));
    assert_eq!(input("a", "default", turn, 2_001), Ok(40));
    assert_eq!(input("a", "default", day("2026-08-01") - 1, 0), Ok(20));
    assert_eq!(input("a", "default", day("2026-08-01"), 0), Err(Unpriced::Date));
    assert_eq!(input("a", "priority", turn, 0), Err(Unpriced::Tier));
    assert_eq!(input("a", "other", turn, 0), Err(Unpriced::Tier));
    assert_eq!(input("a-2026-01-01", "default", turn, 0), Ok(20));
    assert_eq!(
        input("b-2026-01-01", "default", turn, 0),
        Ok(50),
        "an id is looked up as it is before its date is taken off"
    );
    for model in ["a-mini", "a-", "A", "", "b", "a-2026-01-01-x"] {
        assert_eq!(input(model, "default", turn, 0), Err(Unpriced::Model), "{model}");
    }
    assert_eq!(
        prices.find(Book::ChatgptCredits, "a", "default", turn, 0),
        Err(Unpriced::Model)
    );
    let flex = Rates {
        input: 5,
        cached_input: 1,
        cache_write: 7,
        output: 10,
    };
    assert_eq!(prices.find(Book::ApiUsd, "a", "flex", turn, 9_999), Ok(flex));
    let plain = Rates {
        input: 20,
        cached_input: 20,
        cache_write: 20,
        output: 40,
    };
    assert_eq!(
        prices.find(Book::ApiUsd, "a", "default", turn, 1),
        Ok(plain),
        "a kind without a price of its own costs what input does"
    );
}
