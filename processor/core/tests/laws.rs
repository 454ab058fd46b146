//! The laws of stage `sessions`: commits and restarts at any point change nothing that is published.
//!
//! The laws of stage `series` are in `series.rs`.

#![allow(clippy::unwrap_used, reason = "numbers of tests fit")]

mod support;

use proptest::prelude::*;
use schemas::control::EpochChange;
use schemas::delta::Slot;
use schemas::derived::{SegmentState, SessionRow};
use schemas::id::Epoch;
use schemas::metric::Amount;
use schemas::price::{PriceRow, PriceTable};
use schemas::settings::{Seed, Settings};
use std::collections::BTreeMap;
use support::{Committed, Driven, Event, NOON, event, prompt, request, short_times, text, tokens};

const CONVERSATIONS: [&str; 3] = ["c0", "c1", "c2"];

/// A record that is appended to the raw partition.
#[derive(Clone, Debug)]
enum Step {
    /// A record of a conversation, `after` ms after the last one, whose events are `ago` ms old.
    Send {
        after: i64,
        ago: i64,
        conversation: usize,
        what: u8,
    },
    /// A tick, `after` ms after the last record.
    Tick { after: i64 },
    /// A tick that starts an epoch with another price, and with another session gap if `gap` is set.
    Epoch { price: i64, gap: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ago = prop_oneof![4 => 0i64..2_000, 2 => 0i64..200_000, 1 => 0i64..8_000_000];
    let send =
        (0i64..20_000, ago, 0..CONVERSATIONS.len(), 0u8..6).prop_map(|(after, ago, conversation, what)| {
            Step::Send {
                after,
                ago,
                conversation,
                what,
            }
        });
    let tick = prop_oneof![3 => 0i64..30_000, 1 => 0i64..590_000].prop_map(|after| Step::Tick { after });
    let epoch = (0i64..50_000_000, any::<bool>()).prop_map(|(price, gap)| Step::Epoch { price, gap });
    proptest::collection::vec(prop_oneof![12 => send, 4 => tick, 1 => epoch], 1..60)
}

fn seed() -> Seed {
    Seed {
        raw_partitions: 1,
        ..short_times()
    }
}

/// A table in which the model of these tests has that price.
fn prices(price: i64) -> PriceTable {
    let row = PriceRow {
        book: "api_usd".to_owned(),
        model: "gpt-5.5".to_owned(),
        tier: "default".to_owned(),
        input: price,
        output: 3 * price,
        source: "test".to_owned(),
        ..PriceRow::default()
    };
    PriceTable {
        rows: vec![row],
        ..PriceTable::default()
    }
}

fn events(what: u8, conversation: &'static str, time: i64) -> Vec<Event> {
    match what {
        0 => vec![
            prompt(conversation, time),
            request(conversation, time + 1, 429, 0),
        ],
        1 => vec![
            request(conversation, time, 200, 0),
            tokens(conversation, time + 1, 900, 300, 40, 10),
        ],
        2 => vec![event(
            conversation,
            time,
            "codex.tool_result",
            vec![("tool_name", text("exec_command")), ("success", text("true"))],
        )],
        3 => vec![event(
            conversation,
            time,
            "codex.turn_ttft",
            vec![("duration_ms", text("250"))],
        )],
        4 => vec![event(
            conversation,
            time,
            "codex.sse_event",
            vec![("event.kind", text("response.created"))],
        )],
        _ => vec![event(conversation, time, "codex.not_yet_known", vec![])],
    }
}

/// What a run has published, without all that depends on when commits happened.
#[derive(Debug, Default, PartialEq)]
struct Published {
    deltas: BTreeMap<String, BTreeMap<Slot, Amount>>,
    ended: Vec<SessionRow>,
    quarantined: usize,
}

/// Runs the steps. After step `i` it commits if bit `i` of `commits` is set, and then restarts if bit `i` of
/// `restarts` is set.
fn run(steps: &[Step], commits: u64, restarts: u64) -> (Published, Driven) {
    let mut driven = Driven::new(seed());
    let mut published = Published::default();
    let mut now = NOON;
    for (index, step) in steps.iter().enumerate() {
        match step {
            Step::Send {
                after,
                ago,
                conversation,
                what,
            } => {
                now += after;
                driven.send(now, &events(*what, CONVERSATIONS[*conversation], now - ago));
            }
            Step::Tick { after } => {
                now += after;
                driven.tick(now);
            }
            Step::Epoch { price, gap } => {
                let epoch = driven.rules.latest().0 + 2;
                let settings = gap.then(|| Settings {
                    session_gap_ms: 20_000 + price % 60_000,
                    ..driven.rules.seed.settings.clone()
                });
                driven.rules.add(
                    Epoch(epoch),
                    EpochChange {
                        settings,
                        prices: Some(prices(*price)),
                        ..EpochChange::default()
                    },
                );
                driven.start_epoch(now, epoch);
            }
        }
        if commits >> (index % 64) & 1 == 1 {
            publish(&mut published, driven.commit());
            if restarts >> (index % 64) & 1 == 1 {
                driven.restart();
            }
        }
    }
    publish(&mut published, driven.commit());
    (published, driven)
}

fn publish(published: &mut Published, effects: Committed) {
    for (series, slots) in effects.deltas {
        let into = published.deltas.entry(series).or_default();
        for (slot, amount) in slots {
            into.entry(slot)
                .and_modify(|sum| sum.merge(&amount))
                .or_insert(amount);
        }
    }
    published.ended.extend(
        effects
            .rows
            .into_iter()
            .filter(|row| row.state == SegmentState::Ended),
    );
    published.quarantined += effects.quarantined.len();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn commits_and_restarts_change_nothing(steps in steps(), commits: u64, restarts: u64) {
        let (once, _) = run(&steps, 0, 0);
        let (often, _) = run(&steps, commits, restarts);
        prop_assert_eq!(once, often);
    }

    #[test]
    fn restored_state_writes_itself_again(steps in steps(), commits: u64) {
        let (_, mut driven) = run(&steps, commits, 0);
        let before = driven.task.latest_rows(usize::MAX);
        driven.restart();
        prop_assert_eq!(before, driven.task.latest_rows(usize::MAX));
        prop_assert!(driven.commit().changes.iter().all(|change| change.key.starts_with("s/")), "a restore changed marks");
    }

    #[test]
    fn changelog_values_stay_small(steps in steps(), commits: u64) {
        let (_, driven) = run(&steps, commits, 0);
        for (key, value) in &driven.changelog {
            prop_assert!(value.len() <= 4096, "{} has {} bytes", key, value.len());
        }
    }
}
