//! The real runner over the simulated log: one seed drives arrivals, failures, crashes and the clock, and what comes
//! out at the end is what an undisturbed run over the same raw log gives.
#![allow(clippy::unwrap_used, reason = "test code")]

#[path = "../support/mod.rs"]
mod support;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use processor::log::Log;
use processor::log::simulated::{Faults, SimCluster, SimLog};
use processor::runner::{Options, RunError, Runner};
use processor::view::View;
use prost::Message;
use schemas::control::{EPOCH_KEY, EpochChange, SETTINGS_KEY};
use schemas::id::TopicPartition;
use schemas::record::{HEADER_TICK, NewRecord, Record};
use schemas::settings::Settings;
use schemas::topic::Topic;
use std::sync::Arc;
use std::time::Duration;
use strum::VariantArray;
use support::replay::{Results, inputs, read_topic, replay, settle, worker};
use support::traffic::{Random, Traffic, prices, quick_seed};

/// How many seeds are tried.
const SEEDS: u64 = 100;
/// How many things happen in a run before it comes to rest.
const STEPS: usize = 120;
/// How long a run rests, virtual ms: all windows are final by then, and all sessions ended.
const REST_MS: i64 = 30_000;
/// No step of a run depends on real time.
const NEVER: Duration = Duration::from_secs(24 * 3600);
const WRITER: &str = "worker";

const FAULTS: Faults = Faults { commit_lost: 60, commit_unanswered: 60, append_lost: 30, append_unanswered: 30 };

/// A cluster with the one worker on it.
struct World {
    seed: u64,
    random: Random,
    traffic: Traffic,
    cluster: SimCluster,
    runner: Runner<SimLog>,
    view: Arc<View>,
    crashes: usize,
    failures: usize,
    epochs: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let cluster = SimCluster::new(seed, &quick_seed());
        let mut random = Random(seed);
        let (runner, view) = start(&cluster, &mut random);
        cluster.set_faults(FAULTS);
        Self {
            seed,
            random,
            traffic: Traffic::new(seed, quick_seed().raw_partitions),
            cluster,
            runner,
            view,
            crashes: 0,
            failures: 0,
            epochs: 0,
        }
    }

    fn run(mut self) -> Self {
        for _ in 0..STEPS {
            self.step();
        }
        self.cluster.set_faults(Faults::default());
        self.turns(1);
        for _ in 0..REST_MS / 1_000 {
            self.cluster.advance(1_000);
            settle(&mut self.runner).unwrap_or_else(|error| panic!("seed {}: {error:?}", self.seed));
        }
        self
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..45 => self.arrive(),
            45..60 => self.cluster.advance(i64::try_from(self.random.below(1_500)).unwrap()),
            60..90 => self.turns(1),
            90..94 => {
                let result = self.runner.commit();
                self.outlive(result);
            }
            94..96 => self.cluster.compact(),
            96 => self.start_epoch(),
            _ => {
                // A crash: all that is not in the log is gone.
                (self.runner, self.view) = start(&self.cluster, &mut self.random);
                self.crashes += 1;
            }
        }
    }

    /// A request comes in; whoever gets no answer may send again.
    fn arrive(&mut self) {
        let mut ingest = self.cluster.log("ingest");
        for _ in 0..=self.random.below(3) {
            let record = self.traffic.record(self.cluster.wall_ms());
            while ingest.append(vec![record.clone()]).is_err() && self.random.chance(70) {}
        }
    }

    /// A new epoch: sessions end, and are forgotten, after other times than before, or tokens cost something else, or both.
    fn start_epoch(&mut self) {
        let to = TopicPartition { topic: Topic::Control, partition: 0 };
        if self.cluster.records(to).is_empty() {
            // The seed comes first, from the worker.
            return;
        }
        let gap = 1_000 + i64::try_from(self.random.below(3_000)).unwrap();
        let settings = Settings { session_gap_ms: gap, reopen_horizon_ms: 2 * gap, ..quick_seed().settings };
        let prices = prices(i64::try_from(self.random.below(20_000_000)).unwrap());
        let (key, value) = match self.random.below(4) {
            // The first form of such a record, which logs still hold.
            0 => (SETTINGS_KEY, serde_json::to_vec(&settings).unwrap()),
            1 => (EPOCH_KEY, EpochChange::from(settings).to_json()),
            2 => (EPOCH_KEY, EpochChange::from(prices).to_json()),
            _ => (EPOCH_KEY, EpochChange { settings: Some(settings), prices: Some(prices), ..EpochChange::default() }.to_json()),
        };
        let record = NewRecord { to, key: Some(key.into()), value: Some(value.into()), headers: Vec::new() };
        // Whoever gets no answer leaves it: the next change comes soon enough.
        self.epochs += usize::from(self.cluster.log("operator").append(vec![record]).is_ok());
    }

    fn turns(&mut self, count: usize) {
        for _ in 0..count {
            let result = self.runner.turn();
            self.outlive(result);
        }
    }

    /// As [`Runner::run`] does, without waiting.
    fn outlive(&mut self, result: Result<(), RunError>) {
        match result {
            Ok(()) => {}
            Err(RunError::Log(_)) => {
                self.failures += 1;
                self.runner.drop_state();
                self.runner.log().recover().unwrap();
            }
            Err(error) => panic!("seed {}: the worker stopped: {error:?}", self.seed),
        }
    }

    fn results(&mut self) -> Results {
        Results::of(self.runner.log(), &self.view)
    }

    /// Every record of every topic.
    fn everything(&self) -> Vec<Record> {
        let mut log = self.cluster.log("reader");
        Topic::VARIANTS.iter().flat_map(|topic| read_topic(&mut log, *topic)).collect()
    }
}

/// A new worker process on the cluster, with its own habits of polling and committing.
fn start(cluster: &SimCluster, random: &mut Random) -> (Runner<SimLog>, Arc<View>) {
    let options = Options {
        commit_interval: NEVER,
        behind_interval: NEVER,
        records_max: usize::try_from(1 + random.below(30)).unwrap(),
        poll_max: usize::try_from(1 + random.below(40)).unwrap(),
        ticks: true,
        backoff: Duration::ZERO,
    };
    let mut log = cluster.log(WRITER);
    log.recover().unwrap();
    worker(log, &quick_seed(), options)
}

/// The same inputs through one worker that nothing happens to.
fn undisturbed(world: &mut World, poll_max: usize) -> Results {
    let cluster = SimCluster::new(0, &quick_seed());
    cluster.import(inputs(world.runner.log())).unwrap();
    replay(cluster.log(WRITER), &quick_seed(), poll_max).unwrap_or_else(|error| panic!("seed {}: {error:?}", world.seed))
}

/// How many log records the raw log holds; one that can't be read counts as one.
fn raw_records(world: &mut World) -> i64 {
    let records = read_topic(world.runner.log(), Topic::RawLogs);
    let count = |record: &Record| match ExportLogsServiceRequest::decode(record.value.as_deref().unwrap()) {
        Ok(request) => {
            let scopes = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
            i64::try_from(scopes.map(|scope| scope.log_records.len()).sum::<usize>()).unwrap()
        }
        Err(_) => 1,
    };
    records.iter().filter(|record| record.header(HEADER_TICK).is_none()).map(count).sum()
}

/// What happened in some runs: crashes, failures, epochs, corrections.
type Happened = [usize; 4];

fn check(seed: u64) -> Happened {
    let mut world = World::new(seed).run();
    let results = world.results();
    let what = format!("seed {seed} ({} crashes, {} failures)", world.crashes, world.failures);
    assert!(results.all_ended(), "{what}: sessions are still open");
    results.assert_same(&undisturbed(&mut world, 1_000), &what);
    assert_eq!(results.total("tacho_log_records_total"), raw_records(&mut world), "{what}: each record ends in one outcome");
    assert_eq!(results.total("tacho_sessions_active"), 0, "{what}");
    assert_eq!(results.total("tacho_cost_by_kind_usd_total"), results.total("tacho_cost_usd_total"), "{what}: kinds add up");
    assert!(results.total("tacho_cost_usd_total") > 0 && results.total("tacho_credits_total") > 0, "{what}: something has a price");
    [world.crashes, world.failures, world.epochs, results.corrections()]
}

fn check_all(seeds: std::ops::Range<u64>) {
    let happened = seeds.clone().map(check).fold([0; 4], |sum: Happened, one| [0, 1, 2, 3].map(|at| sum[at] + one[at]));
    // Else the seeds show nothing.
    let least = seeds.count();
    assert!(happened.iter().all(|count| *count > least), "[crashes, failures, epochs, corrections]: {happened:?} in {least} runs");
}

#[test]
fn whatever_happens_results_are_those_of_an_undisturbed_run() {
    check_all(0..SEEDS / 2);
}

/// A second half, so that two cores share the work.
#[test]
fn whatever_else_happens_results_are_those_of_an_undisturbed_run() {
    check_all(SEEDS / 2..SEEDS);
}

#[test]
fn results_do_not_depend_on_how_much_one_poll_takes() {
    for seed in 1_000..1_005 {
        let mut world = World::new(seed).run();
        undisturbed(&mut world, 1).assert_same(&undisturbed(&mut world, 7), &format!("seed {seed}"));
    }
}

#[test]
fn one_seed_is_one_run() {
    for seed in [7, 77] {
        let (first, second) = (World::new(seed).run(), World::new(seed).run());
        assert!(first.everything() == second.everything(), "two runs of seed {seed} differ");
    }
}
