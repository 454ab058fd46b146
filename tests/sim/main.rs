//! Simulation: the real runner over the simulated log. A seed decides arrivals, failures, crashes and the clock, and the results
//! at the end are those of an undisturbed run over the same raw log.
#![allow(clippy::unwrap_used, reason = "test code")]

#[path = "../support/mod.rs"]
mod support;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use processor::runner::{Options, RunError, Runner};
use processor::view::View;
use processor_log::simulated::{Faults, Happened, SimCluster, SimLog};
use processor_log::{Log, LogError};
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

/// How many seeds are run with one worker, and with a group.
const SEEDS: u64 = 100;
const SEEDS_GROUP: u64 = 60;
/// How many steps a run has before it comes to rest.
const STEPS: usize = 120;
/// How long a run rests, simulated ms; then all windows are final, and all sessions have ended.
const REST_MS: i64 = 30_000;
/// How many turns the last worker gets before that, until it has all partitions.
const REST_TURNS: usize = 20;
/// A duration that is never over, since no step of a run may depend on real time.
const NEVER: Duration = Duration::from_secs(24 * 3600);
const WRITER: &str = "worker";

/// The parameters of runs with one worker.
const FAULTS: Faults = Faults {
    commit_lost: 60,
    commit_aborted: 40,
    commit_unanswered: 60,
    append_lost: 30,
    append_unanswered: 30,
    mark_late: 200,
    news_late: 0,
    leader_moves: 20,
};
/// The parameters of runs with a group.
const FAULTS_GROUP: Faults = Faults {
    news_late: 500,
    mark_late: 500,
    ..FAULTS
};
/// How many members a group has.
const GROUP: [&str; 3] = ["a", "b", "c"];
/// A time longer than the session timeout of the simulated group, ms.
const AWAY_MS: i64 = 7_000;

/// The place of a worker process.
struct Worker {
    name: &'static str,
    /// The runner of the process; `None` while no process runs.
    running: Option<(Runner<SimLog>, Arc<View>)>,
    /// Whether the process is paused, as by SIGSTOP.
    is_asleep: bool,
}

/// A simulated cluster with worker processes.
struct World {
    seed: u64,
    random: Random,
    traffic: Traffic,
    cluster: SimCluster,
    workers: Vec<Worker>,
    crashes: usize,
    failures: usize,
    epochs: usize,
}

impl World {
    fn new(seed: u64, names: &[&'static str], faults: Faults) -> Self {
        let cluster = SimCluster::new(seed, &quick_seed());
        let mut random = Random(seed);
        let mut place = |name: &&'static str| Worker {
            name,
            running: Some(start(&cluster, &mut random, name)),
            is_asleep: false,
        };
        let workers = names.iter().map(&mut place).collect();
        cluster.set_faults(faults);
        Self {
            seed,
            random,
            traffic: Traffic::new(seed, quick_seed().raw_partitions),
            cluster,
            workers,
            crashes: 0,
            failures: 0,
            epochs: 0,
        }
    }

    /// A cluster with one worker process.
    fn alone(seed: u64) -> Self {
        Self::new(seed, &[WRITER], FAULTS)
    }

    fn run(mut self) -> Self {
        for _ in 0..STEPS * self.workers.len() {
            self.step();
        }
        self.come_to_rest();
        self
    }

    /// Ends all failures and all processes but one, and lets that one do what is left.
    fn come_to_rest(&mut self) {
        self.cluster.set_faults(Faults::default());
        self.wake(0);
        for at in 1..self.workers.len() {
            self.wake(at);
            if self.random.chance(50) {
                self.leave(at)
            } else {
                self.crash(at)
            }
        }
        self.be_there(0);
        self.cluster.advance(AWAY_MS);
        for _ in 0..REST_TURNS {
            self.turn(0);
        }
        for _ in 0..REST_MS / 1_000 {
            self.cluster.advance(1_000);
            settle(&mut self.workers[0].running.as_mut().unwrap().0)
                .unwrap_or_else(|error| panic!("seed {}: {error:?}", self.seed));
        }
    }

    fn step(&mut self) {
        let at = usize::try_from(self.random.below(self.workers.len() as u64)).unwrap();
        match self.random.below(100) {
            0..45 => self.arrive(),
            45..60 => self
                .cluster
                .advance(i64::try_from(self.random.below(1_500)).unwrap()),
            60..88 => self.turn(at),
            88..92 => self.commit(at),
            92..94 => self.cluster.compact(),
            94 => self.start_epoch(),
            95 if self.workers.len() > 1 => self.sleep_or_wake(at),
            96 if self.workers.len() > 1 => self.leave(at),
            97 if self.workers.len() > 1 => self.crash(at),
            // The clock jumps, as after a sleep of the machine or a wrong setting.
            95 => self
                .cluster
                .advance(i64::try_from(self.random.below(60_000)).unwrap()),
            _ => {
                self.crash(at);
                self.be_there(at);
            }
        }
    }

    fn turn(&mut self, at: usize) {
        self.be_there(at);
        self.act(at, Runner::turn);
    }

    fn commit(&mut self, at: usize) {
        self.act(at, Runner::commit);
    }

    /// Runs a turn as [`Runner::run`] does, without waiting. A paused or ended process does nothing.
    fn act(&mut self, at: usize, what: impl Fn(&mut Runner<SimLog>) -> Result<(), RunError>) {
        let worker = &mut self.workers[at];
        let Some((runner, _)) = worker.running.as_mut().filter(|_| !worker.is_asleep) else {
            return;
        };
        match what(runner) {
            Ok(()) => {}
            Err(RunError::Log(
                LogError::Aborted { .. } | LogError::NotCommitted { .. } | LogError::Unavailable { .. },
            )) => {
                runner.drop_state();
                self.failures += 1;
                self.after_failure(at);
            }
            Err(error) => panic!("seed {}: worker {} stopped: {error:?}", self.seed, worker.name),
        }
    }

    /// Decides what follows a failure of the log: the process is killed or paused, which leaves its transaction open, or the
    /// worker recovers.
    fn after_failure(&mut self, at: usize) {
        match self.random.below(4) {
            0 if self.workers.len() > 1 => {
                self.crash(at);
                self.cluster.advance(AWAY_MS);
            }
            1 if self.workers.len() > 1 => self.sleep_or_wake(at),
            _ => {}
        }
        let worker = &mut self.workers[at];
        if let Some((runner, _)) = worker.running.as_mut().filter(|_| !worker.is_asleep) {
            runner.log().recover().unwrap();
        }
    }

    /// Starts a process that does not run.
    fn be_there(&mut self, at: usize) {
        let Self {
            workers,
            cluster,
            random,
            ..
        } = self;
        if workers[at].running.is_none() {
            workers[at].running = Some(start(cluster, random, workers[at].name));
        }
    }

    /// Kills a process: all that is not in the log is lost.
    fn crash(&mut self, at: usize) {
        self.workers[at].running = None;
        self.workers[at].is_asleep = false;
        self.crashes += 1;
    }

    /// Stops a process as its operator does: it commits, and leaves the group.
    fn leave(&mut self, at: usize) {
        if self.workers[at].is_asleep {
            return;
        }
        self.commit(at);
        if let Some((mut runner, _)) = self.workers[at].running.take() {
            runner.log().leave();
        }
    }

    fn sleep_or_wake(&mut self, at: usize) {
        if self.workers[at].is_asleep {
            return self.wake(at);
        }
        self.workers[at].is_asleep = true;
        self.cluster.set_silent(self.workers[at].name, true);
        if self.random.chance(50) {
            self.cluster.advance(AWAY_MS);
        }
    }

    fn wake(&mut self, at: usize) {
        if std::mem::take(&mut self.workers[at].is_asleep) {
            self.cluster.set_silent(self.workers[at].name, false);
        }
    }

    /// Appends a raw record. A sender that gets no answer may send it again.
    fn arrive(&mut self) {
        let mut ingest = self.cluster.log("ingest");
        for _ in 0..=self.random.below(3) {
            let record = self.traffic.record(self.cluster.wall_ms());
            while ingest.append(vec![record.clone()]).is_err() && self.random.chance(70) {}
        }
    }

    /// Starts an epoch that changes the times after which sessions end and are removed, or prices, or both.
    fn start_epoch(&mut self) {
        let to = TopicPartition {
            topic: Topic::Control,
            partition: 0,
        };
        if self.cluster.records(to).is_empty() {
            // The worker has not written the seed yet.
            return;
        }
        let gap = 1_000 + i64::try_from(self.random.below(3_000)).unwrap();
        let settings = Settings {
            session_gap_ms: gap,
            reopen_horizon_ms: 2 * gap,
            ..quick_seed().settings
        };
        let prices = prices(i64::try_from(self.random.below(20_000_000)).unwrap());
        let (key, value) = match self.random.below(4) {
            // The record has the first form of records that start epochs, which logs still hold.
            0 => (SETTINGS_KEY, serde_json::to_vec(&settings).unwrap()),
            1 => (EPOCH_KEY, EpochChange::from(settings).to_json()),
            2 => (EPOCH_KEY, EpochChange::from(prices).to_json()),
            _ => (
                EPOCH_KEY,
                EpochChange {
                    settings: Some(settings),
                    prices: Some(prices),
                    ..EpochChange::default()
                }
                .to_json(),
            ),
        };
        let record = NewRecord {
            to,
            key: Some(key.into()),
            value: Some(value.into()),
            headers: Vec::new(),
        };
        // A change without an answer is not sent again, since further changes come.
        self.epochs += usize::from(self.cluster.log("operator").append(vec![record]).is_ok());
    }

    /// The runner of the process that is left.
    fn last(&mut self) -> (&mut Runner<SimLog>, &View) {
        let (runner, view) = self.workers[0].running.as_mut().unwrap();
        (runner, view)
    }

    fn results(&mut self) -> Results {
        let (runner, view) = self.last();
        Results::of(runner.log(), view)
    }

    /// Every record of every topic.
    fn everything(&self) -> Vec<Record> {
        let mut log = self.cluster.log("reader");
        Topic::VARIANTS
            .iter()
            .flat_map(|topic| read_topic(&mut log, *topic))
            .collect()
    }
}

/// A new worker on the cluster, with numbers of its own for polls and commits.
fn start(cluster: &SimCluster, random: &mut Random, name: &str) -> (Runner<SimLog>, Arc<View>) {
    let options = Options {
        commit_interval: NEVER,
        behind_interval: NEVER,
        records_max: usize::try_from(1 + random.below(30)).unwrap(),
        poll_max: usize::try_from(1 + random.below(40)).unwrap(),
        ticks: true,
        backoff: Duration::ZERO,
        ..Options::default()
    };
    let mut log = cluster.log(name);
    log.recover().unwrap();
    worker(log, &quick_seed(), options)
}

/// The results of the same inputs by one worker without any failure.
fn undisturbed(world: &mut World, poll_max: usize) -> Results {
    let cluster = SimCluster::new(0, &quick_seed());
    cluster.import(inputs(world.last().0.log())).unwrap();
    replay(cluster.log(WRITER), &quick_seed(), poll_max)
        .unwrap_or_else(|error| panic!("seed {}: {error:?}", world.seed))
}

/// How many log records the raw log holds; a raw record that can't be read counts as one.
fn raw_records(world: &mut World) -> i64 {
    let records = read_topic(world.last().0.log(), Topic::RawLogs);
    let count = |record: &Record| match ExportLogsServiceRequest::decode(record.value.as_deref().unwrap()) {
        Ok(request) => {
            let scopes = request
                .resource_logs
                .iter()
                .flat_map(|resource| &resource.scope_logs);
            i64::try_from(scopes.map(|scope| scope.log_records.len()).sum::<usize>()).unwrap()
        }
        Err(_) => 1,
    };
    records
        .iter()
        .filter(|record| record.header(HEADER_TICK).is_none())
        .map(count)
        .sum()
}

/// What happened in runs: crashes, failures, epochs, corrections, late marks; and with a group: aborted commits, waits for marks,
/// rebalances, expelled members, fenced writers.
type Counts = [usize; 10];

fn check(mut world: World) -> Counts {
    world = world.run();
    let results = world.results();
    let what = format!(
        "seed {} ({} crashes, {} failures)",
        world.seed, world.crashes, world.failures
    );
    assert!(results.all_ended(), "{what}: sessions are still open");
    results.assert_same(&undisturbed(&mut world, 1_000), &what);
    assert_eq!(
        results.total("tacho_log_records_total"),
        raw_records(&mut world),
        "{what}: the outcomes are not as many as the log records"
    );
    assert_eq!(results.total("tacho_sessions_active"), 0, "{what}");
    assert_eq!(
        results.total("tacho_cost_by_kind_usd_total"),
        results.total("tacho_cost_usd_total"),
        "{what}: the costs by kind do not add up to the cost"
    );
    assert!(
        results.total("tacho_cost_usd_total") > 0 && results.total("tacho_credits_total") > 0,
        "{what}: nothing has a price"
    );
    let Happened {
        rebalances,
        expelled,
        aborted,
        fenced,
        late_marks,
        waits,
    } = world.cluster.happened();
    [
        world.crashes,
        world.failures,
        world.epochs,
        results.corrections(),
        late_marks,
        aborted,
        waits,
        rebalances,
        expelled,
        fenced,
    ]
}

/// The least that must happen in half of the seeds for the runs to mean anything.
const LEAST_ALONE: Counts = [50, 50, 50, 50, 50, 0, 0, 0, 0, 0];
const LEAST_GROUP: Counts = [30, 30, 30, 30, 30, 30, 10, 30, 30, 3];

fn check_all(worlds: impl Iterator<Item = World>, least: Counts) {
    let mut sums: Counts = [0; 10];
    for counts in worlds.map(check) {
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    assert!(
        sums.iter().zip(least).all(|(sum, least)| *sum >= least),
        "{sums:?} happened, and {least:?} at least must"
    );
}

#[test]
fn whatever_happens_results_are_those_of_an_undisturbed_run() {
    check_all((0..SEEDS / 2).map(World::alone), LEAST_ALONE);
}

/// The second half of the seeds, so that two cores share the work.
#[test]
fn whatever_else_happens_results_are_those_of_an_undisturbed_run() {
    check_all((SEEDS / 2..SEEDS).map(World::alone), LEAST_ALONE);
}

#[test]
fn whatever_a_group_does_results_are_those_of_one_undisturbed_worker() {
    check_all(
        (0..SEEDS_GROUP / 2).map(|seed| World::new(seed, &GROUP, FAULTS_GROUP)),
        LEAST_GROUP,
    );
}

#[test]
fn whatever_else_a_group_does_results_are_those_of_one_undisturbed_worker() {
    check_all(
        (SEEDS_GROUP / 2..SEEDS_GROUP).map(|seed| World::new(seed, &GROUP, FAULTS_GROUP)),
        LEAST_GROUP,
    );
}

#[test]
fn results_do_not_depend_on_how_much_one_poll_takes() {
    for seed in 1_000..1_005 {
        let mut world = World::alone(seed).run();
        undisturbed(&mut world, 1).assert_same(&undisturbed(&mut world, 7), &format!("seed {seed}"));
    }
}

#[test]
fn one_seed_is_one_run() {
    for seed in [7, 77] {
        let (first, second) = (World::alone(seed).run(), World::alone(seed).run());
        assert!(
            first.everything() == second.everything(),
            "two runs of seed {seed} differ"
        );
        let group = || World::new(seed, &GROUP, FAULTS_GROUP).run().everything();
        assert!(group() == group(), "two runs of seed {seed} differ, of a group");
    }
}
