//! Several workers share the partitions; they come and go under load, and the results are those of one.

use crate::support::broker::Broker;
use crate::support::replay::{Results, inputs, replay};
use crate::support::traffic::{Traffic, quick_seed};
use crate::support::{PATIENCE, eventually, now_ms};
use processor::log::Log;
use processor::log::kafka::{KafkaConfig, KafkaLog, topics};
use processor::log::simulated::SimCluster;
use processor::runner::Options;
use processor::view::View;
use processor::workers::{Config, Workers};
use schemas::cluster::Cluster;
use schemas::settings::Seed;
use std::sync::Arc;
use std::time::Duration;

const PREFIX: &str = "group.";
/// Records between two changes of the group.
const RECORDS: usize = 120;

fn cluster() -> Cluster {
    Cluster::plain(&Broker::shared().bootstrap(), PREFIX)
}

fn start(name: &str, is_static: bool, workers: usize, seed: &Seed, view: &Arc<View>) -> Workers {
    let config = Config {
        cluster: cluster(),
        group: format!("{PREFIX}tacho"),
        name: name.to_owned(),
        is_static,
        session_timeout: Duration::from_secs(6),
        workers,
        seed: seed.clone(),
        options: Options { commit_interval: Duration::from_millis(50), ..Options::default() },
    };
    let workers = Workers::start(&config, view).unwrap();
    eventually("a worker that has its partitions", || if workers.health.is_ready() { Ok(()) } else { Err(name.to_owned()) });
    workers
}

fn end(workers: Workers) {
    assert!(workers.end(PATIENCE), "the workers do not end");
}

#[test]
fn workers_come_and_go_and_the_results_are_those_of_one() {
    let seed = Seed { raw_partitions: 6, delta_partitions: 4, ..quick_seed() };
    topics::prepare(&cluster(), &seed).unwrap();
    let mut client = KafkaLog::connect(KafkaConfig::reader(&cluster(), &format!("{PREFIX}reader"))).unwrap();
    let mut traffic = Traffic::new(7, seed.raw_partitions);
    let mut send = |client: &mut KafkaLog| {
        for _ in 0..RECORDS {
            client.append(vec![traffic.record(now_ms())]).unwrap();
        }
    };
    let view = Arc::new(View::default());
    let first = start("first", false, 2, &seed, &view);
    send(&mut client);
    let second = start("second", true, 1, &seed, &view);
    send(&mut client);
    end(first);
    send(&mut client);
    let third = start("third", false, 3, &seed, &view);
    send(&mut client);
    // A static member that goes and comes back in time finds its partitions.
    end(second);
    send(&mut client);
    let second = start("second", true, 1, &seed, &view);
    send(&mut client);

    let sent = now_ms();
    let results = eventually("windows final and sessions ended", || at_rest(&mut client, &view, &seed, sent));
    assert!(results.windows.len() > 100 && results.sessions.len() > 5, "the traffic shows too little");
    end(second);
    end(third);
    let alone = SimCluster::new(0, &seed);
    alone.import(inputs(&mut client)).unwrap();
    replay(alone.log("worker"), &seed, 1_000).unwrap().assert_same(&results, "one worker and many");
    assert!(view.partitions.is_empty(), "who has left shows nothing");
}

/// What came out, once all windows up to `sent` are final everywhere, with their corrections, and all sessions ended.
fn at_rest(client: &mut KafkaLog, view: &View, seed: &Seed, sent: i64) -> Result<Results, String> {
    let largest = seed.time.window_sizes_ms.len() - 1;
    let partitions = usize::try_from(seed.delta_partitions).unwrap();
    if view.partitions.len() < partitions {
        return Err(format!("{} of {partitions} partitions are shown", view.partitions.len()));
    }
    for partition in &view.partitions {
        let latest = partition.latest_final.get(largest).copied().flatten();
        if latest.is_none_or(|start| start <= sent) {
            return Err(format!("partition {} is final up to {latest:?}, not {sent}", partition.key()));
        }
    }
    let results = Results::of(client, view);
    if results.all_ended() { Ok(results) } else { Err("sessions are open".to_owned()) }
}
