//! New prices while two workers run: they hold for later records and not for earlier ones, also after restarts, restores and a
//! replay.

use crate::support::broker::Broker;
use crate::support::processes::tacho;
use crate::support::replay::{Results, inputs, read_topic, replay};
use crate::support::traffic::{prices, quick_seed};
use crate::support::{PATIENCE, eventually, now_ms, otlp};
use bytes::Bytes;
use processor::runner::Options;
use processor::sink::prometheus::{Format, body};
use processor::view::View;
use processor::workers::{Config, Workers};
use processor_log::Log;
use processor_log::cluster::Cluster;
use processor_log::kafka::{KafkaConfig, KafkaLog, topics};
use processor_log::simulated::SimCluster;
use schemas::control::EpochChange;
use schemas::derived::SessionRow;
use schemas::id::{TopicPartition, raw_key};
use schemas::record::{HEADER_WALL, NewRecord};
use schemas::settings::{Seed, Settings};
use schemas::time::EventTime;
use schemas::topic::Topic;
use std::sync::Arc;
use std::time::Duration;

const PREFIX: &str = "prices.";
/// How many conversations there are, over all partitions. Each gets a response of 1,000 input and 100 output tokens in every
/// round.
const CONVERSATIONS: i32 = 9;

fn cluster() -> Cluster {
    Cluster::plain(&Broker::shared().bootstrap(), PREFIX)
}

fn start(seed: &Seed, view: &Arc<View>) -> Workers {
    let config = Config {
        cluster: cluster(),
        group: format!("{PREFIX}tacho"),
        name: "one".to_owned(),
        is_static: true,
        session_timeout: Duration::from_secs(6),
        workers: 2,
        seed: seed.clone(),
        options: Options {
            commit_interval: Duration::from_millis(50),
            ..Options::default()
        },
    };
    let workers = Workers::start(&config, view).unwrap();
    eventually("a worker that has its partitions", || {
        if workers.health.is_ready() {
            Ok(())
        } else {
            Err(String::new())
        }
    });
    workers
}

/// Appends a response of every conversation, half of which are on a ChatGPT plan.
fn round(client: &mut KafkaLog, seed: &Seed) {
    for number in 0..CONVERSATIONS {
        let now = now_ms();
        let conversation = format!("c{number}");
        let mut response = otlp::tokens(&conversation, now, 1_000, 100);
        if number % 2 == 1 {
            response
                .attributes
                .push(otlp::attribute("auth_mode", otlp::text("Chatgpt")));
        }
        let record = NewRecord {
            to: TopicPartition {
                topic: Topic::RawLogs,
                partition: number % seed.raw_partitions,
            },
            key: Some(raw_key("default", &conversation).into()),
            value: Some(otlp::encode(vec![response]).into()),
            headers: vec![(HEADER_WALL.to_owned(), Bytes::from(now.to_string()))],
        };
        client.append(vec![record]).unwrap();
    }
}

/// The sums over rounds at these prices: nano-dollars of the API, nano-dollars of plans, millionths of a credit, and tokens.
fn expected(prices: &[i64]) -> [i64; 4] {
    let rounds = i64::try_from(prices.len()).unwrap();
    // A response has 1,000 input tokens and 100 output tokens, which cost six times as much.
    let usd: i64 = prices.iter().map(|price| 1_600 * price / 1_000).sum();
    let credits: i64 = prices.iter().map(|price| 1_600 * (price / 10) / 1_000_000).sum();
    let (paid, plans) = (i64::from(CONVERSATIONS) - 4, 4);
    [
        paid * usd,
        plans * usd,
        plans * credits,
        i64::from(CONVERSATIONS) * rounds * 1_100,
    ]
}

fn found(client: &mut KafkaLog, view: &View) -> [i64; 4] {
    let results = Results::of(client, view);
    let basis = |basis: &str| -> i64 {
        let of = results.totals.iter().filter(|(series, _)| {
            series.starts_with("tacho_cost_usd_total\u{1f}") && series.ends_with(basis)
        });
        of.map(|(_, total)| {
            if let schemas::metric::Amount::Count(count) = total {
                *count
            } else {
                0
            }
        })
        .sum()
    };
    [
        basis("api_list"),
        basis("subscription_equivalent"),
        results.total("tacho_credits_total"),
        results.total("tacho_tokens_total"),
    ]
}

fn wait_for(client: &mut KafkaLog, view: &View, prices: &[i64]) {
    eventually("costs", || match found(client, view) {
        found if found == expected(prices) => Ok(()),
        found => Err(format!("{found:?}, not {:?}", expected(prices))),
    });
}

/// Runs `tacho control apply`, and waits until every partition has entered the epoch.
fn apply(client: &mut KafkaLog, seed: &Seed, change: &EpochChange) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("epoch.toml");
    std::fs::write(&file, toml::to_string(change).unwrap()).unwrap();
    let place = ["--kafka", &Broker::shared().bootstrap(), "--prefix", PREFIX];
    let output = tacho()
        .args(&["control", "apply", file.to_str().unwrap()])
        .args(&place)
        .run();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let epoch: i64 = said
        .strip_prefix("epoch ")
        .and_then(|said| said.split(':').next())
        .unwrap()
        .parse()
        .unwrap();
    eventually("the epoch's start in every partition", || {
        let records = read_topic(client, Topic::RawLogs);
        let mut begun: Vec<i32> = records
            .iter()
            .filter(|record| record.header_number("epoch") == Some(epoch))
            .map(|record| record.from.partition)
            .collect();
        begun.sort_unstable();
        begun.dedup();
        if begun.len() == usize::try_from(seed.raw_partitions).unwrap() {
            Ok(())
        } else {
            Err(format!("{begun:?}"))
        }
    });
}

#[expect(clippy::too_many_lines, reason = "one scenario, told in order")]
#[test]
fn new_prices_hold_for_what_comes_later_and_for_good() {
    const PRICES: [i64; 3] = [1_250_000, 40_000_000, 5_000_000];
    let mut seed = Seed {
        prices: prices(PRICES[0]),
        ..quick_seed()
    };
    // Sessions stay open until an epoch of the test ends them.
    seed.settings.session_gap_ms = 3_600_000;
    seed.settings.reopen_horizon_ms = 7_200_000;
    topics::prepare(&cluster(), &seed).unwrap();
    let mut client = KafkaLog::connect(KafkaConfig::reader(&cluster(), &format!("{PREFIX}reader"))).unwrap();
    let view = Arc::new(View::default());

    let workers = start(&seed, &view);
    round(&mut client, &seed);
    wait_for(&mut client, &view, &PRICES[..1]);
    apply(&mut client, &seed, &prices(PRICES[1]).into());
    round(&mut client, &seed);
    wait_for(&mut client, &view, &PRICES[..2]);
    let text = String::from_utf8(body(&view, "", Format::Text)).unwrap();
    assert!(
        text.contains("billing_basis=\"api_list\",log=\"main\"} 0.33 "),
        "/metrics does not show dollars:\n{text}"
    );

    // Restored partitions continue with the prices of their epoch.
    assert!(workers.end(PATIENCE), "the workers did not end");
    let workers = start(&seed, &view);
    wait_for(&mut client, &view, &PRICES[..2]);
    round(&mut client, &seed);
    wait_for(&mut client, &view, &[PRICES[0], PRICES[1], PRICES[1]]);

    // One epoch changes settings and prices, and sessions end by its settings.
    let settings = Settings {
        session_gap_ms: 2_000,
        ..quick_seed().settings
    };
    apply(
        &mut client,
        &seed,
        &EpochChange {
            settings: Some(settings),
            prices: Some(prices(PRICES[2])),
            ..EpochChange::default()
        },
    );
    round(&mut client, &seed);
    let all = [PRICES[0], PRICES[1], PRICES[1], PRICES[2]];
    wait_for(&mut client, &view, &all);
    // The ends of sessions are the last events, so everything is final once the windows with these are final.
    eventually("the end of all sessions", || {
        match Results::of(&mut client, &view).all_ended() {
            true => Ok(()),
            false => Err("some are open".to_owned()),
        }
    });
    let ended = now_ms();
    let largest = seed.time.window_sizes_ms.len() - 1;
    eventually("final windows", || {
        let is_final = |latest: &[Option<EventTime>]| {
            latest
                .get(largest)
                .copied()
                .flatten()
                .is_some_and(|start| start.0 > ended)
        };
        match view
            .partitions
            .iter()
            .all(|partition| is_final(&partition.latest_final))
        {
            true => Ok(()),
            false => Err("some are open".to_owned()),
        }
    });
    let results = Results::of(&mut client, &view);
    assert!(workers.end(PATIENCE), "the workers did not end");
    let rows: Vec<SessionRow> = results
        .sessions
        .values()
        .map(|row| SessionRow::decode(row).unwrap())
        .collect();
    assert_eq!(rows.len(), usize::try_from(CONVERSATIONS).unwrap());
    let sum = |of: fn(&SessionRow) -> i64| rows.iter().map(of).sum::<i64>();
    let by_rows = [
        sum(|row| row.cost_nano_usd),
        sum(|row| row.equivalent_nano_usd),
        sum(|row| row.micro_credits),
        sum(|row| row.tokens.total),
    ];
    assert_eq!(by_rows, expected(&all), "the sums of rows differ");

    // A replay of raw records, settings, prices and labels gives the same bytes.
    let alone = SimCluster::new(0, &seed);
    alone.import(inputs(&mut client)).unwrap();
    replay(alone.log("worker"), &seed, 1_000)
        .unwrap()
        .assert_same(&results, "a replay and two workers");
}
