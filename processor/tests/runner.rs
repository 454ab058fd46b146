//! The runner over the simulated log: epochs, restarts, and faults of the log that must stop the worker.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use processor::runner::{Options, RunError, Runner, SeedSource};
use processor::status::Status;
use processor::view::View;
use processor_log::simulated::{SimCluster, SimLog};
use processor_log::{Log, ReadLog};
use prost::Message;
use schemas::delta::Series;
use schemas::derived::{SegmentState, SessionRow};
use schemas::id::{Position, TopicPartition};
use schemas::metric::{Amount, Label};
use schemas::record::{HEADER_WALL, NewRecord};
use schemas::settings::Seed;
use schemas::time::{EventTime, format_rfc3339};
use schemas::topic::Topic;
use std::sync::Arc;
use std::time::Duration;

const RAW: TopicPartition = TopicPartition {
    topic: Topic::RawLogs,
    partition: 0,
};
const CONTROL: TopicPartition = TopicPartition {
    topic: Topic::Control,
    partition: 0,
};

/// A simulated cluster with one worker.
struct World {
    cluster: SimCluster,
    seed: Seed,
    view: Arc<View>,
    runner: Runner<SimLog>,
}

impl World {
    fn new(change: impl FnOnce(&mut Seed)) -> Self {
        let mut seed = Seed::shipped();
        seed.raw_partitions = 1;
        seed.delta_partitions = 2;
        change(&mut seed);
        let cluster = SimCluster::new(1, &seed);
        let (view, runner) = start(&cluster, &seed);
        Self {
            cluster,
            seed,
            view,
            runner,
        }
    }

    /// Drops the worker with everything that it has not committed, and starts another.
    fn crash(&mut self) {
        (self.view, self.runner) = start(&self.cluster, &self.seed);
    }

    /// Turns until both stages have folded and committed what is there, while the log's wall clock stands
    /// still.
    fn settle(&mut self) {
        for _ in 0..6 {
            self.runner.turn().unwrap();
            self.runner.commit().unwrap();
        }
    }

    /// Moves the log's wall clock in steps of a second, so that ticks come as in a running process.
    fn pass(&mut self, seconds: usize) {
        for _ in 0..seconds {
            self.cluster.advance(1_000);
            self.settle();
        }
    }

    fn append(&mut self, to: TopicPartition, key: &str, value: Vec<u8>) {
        let headers = vec![(
            HEADER_WALL.to_owned(),
            Bytes::from(self.cluster.wall_ms().to_string()),
        )];
        let record = NewRecord {
            to,
            key: Some(Bytes::from(key.to_owned())),
            value: Some(value.into()),
            headers,
        };
        self.cluster.log("ingest").append(vec![record]).unwrap();
    }

    fn prompt(&mut self, conversation: &str, team: &str) {
        let now = self.cluster.wall_ms();
        self.append(
            RAW,
            &format!("default/{conversation}"),
            prompt(conversation, team, now),
        );
    }

    fn sessions(&self) -> Vec<SessionRow> {
        let at = TopicPartition {
            topic: Topic::Sessions,
            partition: 0,
        };
        self.cluster
            .records(at)
            .iter()
            .map(|record| SessionRow::decode(record.value.as_ref().unwrap()).unwrap())
            .collect()
    }

    /// The sum of a counter over the series of a team, as shown.
    fn shown(&self, metric: &str, team: &str) -> i64 {
        let mut sum = 0;
        for partition in &self.view.partitions {
            for (key, shown) in &partition.series {
                let series = Series::parse(key).unwrap();
                if series.metric.def().name == metric
                    && series
                        .labels()
                        .any(|(label, value)| label == Label::Team && value == team)
                    && let Some(Amount::Count(count)) = shown.total
                {
                    sum += count;
                }
            }
        }
        sum
    }
}

fn start(cluster: &SimCluster, seed: &Seed) -> (Arc<View>, Runner<SimLog>) {
    let view = Arc::new(View::default());
    let options = Options {
        commit_interval: Duration::ZERO,
        ..Options::default()
    };
    let runner = Runner::new(
        cluster.log("worker"),
        SeedSource(seed.clone()),
        Arc::clone(&view),
        Arc::new(Status::default()),
        options,
    );
    (view, runner)
}

fn prompt(conversation: &str, team: &str, now: i64) -> Vec<u8> {
    let text = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    };
    let attributes = vec![
        text("event.name", "codex.user_prompt"),
        text("event.timestamp", &format_rfc3339(EventTime(now))),
        text("conversation.id", conversation),
    ];
    let record = LogRecord {
        observed_time_unix_nano: u64::try_from(now).unwrap() * 1_000_000,
        attributes,
        ..LogRecord::default()
    };
    let resource = Resource {
        attributes: vec![text("team.id", team)],
        ..Resource::default()
    };
    let scope_logs = vec![ScopeLogs {
        log_records: vec![record],
        ..ScopeLogs::default()
    }];
    let resource_logs = vec![ResourceLogs {
        resource: Some(resource),
        scope_logs,
        ..ResourceLogs::default()
    }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

#[test]
fn a_new_epoch_changes_settings_from_its_tick_on() {
    let mut world = World::new(|_| {});
    world.prompt("before", "a");
    world.settle();
    let mut settings = world.seed.settings.clone();
    settings.session_gap_ms = 20_000;
    settings.reopen_horizon_ms = 40_000;
    world.append(CONTROL, "settings", serde_json::to_vec(&settings).unwrap());
    // The worker reads the control topic every half second.
    world.cluster.advance(500);
    world.settle();
    assert!(
        world
            .cluster
            .records(RAW)
            .iter()
            .any(|record| record.header_number("epoch") == Some(1))
    );
    world.prompt("after", "a");
    world.pass(25);
    let ended: Vec<_> = world
        .sessions()
        .into_iter()
        .filter(|row| row.state == SegmentState::Ended)
        .collect();
    assert_eq!(
        ended.len(),
        1,
        "the session of epoch 0 did not keep its gap of half an hour"
    );
    assert_eq!((ended[0].conversation_id.as_str(), ended[0].epoch), ("after", 1));
    world.crash();
    world.settle();
    assert_eq!(
        world.shown("tacho_sessions_active", "a"),
        1,
        "a restarted worker does not know the epoch"
    );
    // A control record under an unknown key changes nothing, and one with faults stops the worker.
    world.append(CONTROL, "of tomorrow", b"{}".to_vec());
    world.cluster.advance(500);
    world.settle();
    world.append(
        CONTROL,
        "epoch",
        b"{\"prices\":{\"rows\":[{\"book\":\"x\",\"model\":\"m\",\"input\":1,\"output\":1,\"source\":\"s\"}]}}".to_vec(),
    );
    world.cluster.advance(500);
    let error = world.runner.turn().unwrap_err();
    assert!(matches!(error, RunError::Settings { offset: 3, .. }), "{error:?}");
}

#[test]
fn a_restart_goes_on_where_the_last_commit_was() {
    let mut world = World::new(|_| {});
    for round in 0..4 {
        world.prompt(&format!("c{round}"), "a");
        world.cluster.advance(1_000);
        if round % 2 == 0 {
            // The record is folded and not committed, so the restarted worker folds it again.
            world.runner.turn().unwrap();
            world.crash();
        }
        world.settle();
    }
    world.pass(4);
    assert_eq!(world.shown("tacho_turns_total", "a"), 4);
    assert_eq!(
        world
            .sessions()
            .iter()
            .map(|row| &row.conversation_id)
            .collect::<std::collections::BTreeSet<_>>()
            .len(),
        4
    );
    assert_eq!(
        world.view.recent_sessions().len(),
        4,
        "the page does not show all sessions"
    );
}

#[test]
fn old_records_are_committed_when_no_more_of_them_come() {
    let mut world = World::new(|_| {});
    world.settle();
    world.prompt("old", "red");
    world.cluster.advance(20_000);
    world.runner.turn().unwrap();
    assert_eq!(
        world.sessions().len(),
        0,
        "an old record was committed while more could follow"
    );
    world.runner.turn().unwrap();
    assert_eq!(world.sessions().len(), 1);
    world.prompt("new", "red");
    world.runner.turn().unwrap();
    assert_eq!(
        world.sessions().len(),
        2,
        "a new record was not committed at once"
    );
}

#[test]
fn label_values_beyond_the_cap_are_other_for_good() {
    let mut world = World::new(|seed| {
        seed.caps.insert("team".to_owned(), 2);
    });
    for team in ["a", "b", "c", "d", "a"] {
        world.prompt(team, team);
        world.settle();
        world.cluster.advance(10);
    }
    world.settle();
    let turns = |world: &World| ["a", "b", "c", "other"].map(|team| world.shown("tacho_turns_total", team));
    assert_eq!(turns(&world), [2, 1, 0, 2]);
    world.crash();
    world.settle();
    assert_eq!(turns(&world), [2, 1, 0, 2]);
    let teams: Vec<String> = world.sessions().into_iter().map(|row| row.team).collect();
    assert!(
        teams.contains(&"d".to_owned()),
        "a row does not hold the value as it came"
    );
}

#[test]
fn a_position_without_its_state_stops_the_worker() {
    let mut world = World::new(|_| {});
    world.prompt("c", "a");
    world.settle();
    let changelog = TopicPartition {
        topic: Topic::SessionsChangelog,
        partition: 0,
    };
    let end = world.runner.log().extent(changelog).unwrap().end;
    world.runner.log().trim(&[(changelog, end)]).unwrap();
    world.crash();
    let error = world.runner.turn().unwrap_err();
    assert!(
        matches!(
            error,
            RunError::Mismatch {
                input: RAW,
                state: None,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("nothing was folded"), "{error}");
}

#[test]
fn a_first_start_goes_on_after_records_that_were_deleted() {
    let mut world = World::new(|_| {});
    for conversation in ["gone", "kept"] {
        world.prompt(conversation, "a");
    }
    world.runner.log().trim(&[(RAW, Position(1))]).unwrap();
    world.settle();
    world.pass(4);
    assert_eq!(world.shown("tacho_turns_total", "a"), 1);
}

#[test]
fn raw_records_that_were_deleted_too_early_are_lost_and_no_more() {
    let mut world = World::new(|_| {});
    world.prompt("first", "a");
    world.settle();
    for conversation in ["gone", "gone too", "kept"] {
        world.prompt(conversation, "a");
    }
    let end = world.runner.log().extent(RAW).unwrap().end;
    world.runner.log().trim(&[(RAW, Position(end.0 - 1))]).unwrap();
    // The worker fails once, is restored, and goes on behind the hole; so does another one.
    let error = world.runner.turn().unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("deleted before they were folded"), "{text}");
    world.crash();
    world.settle();
    world.pass(4);
    assert_eq!(world.shown("tacho_turns_total", "a"), 2);
    world.prompt("later", "a");
    world.crash();
    world.pass(4);
    assert_eq!(world.shown("tacho_turns_total", "a"), 3);
}

#[test]
fn other_partition_counts_than_the_seed_stop_the_worker() {
    let mut world = World::new(|_| {});
    world.settle();
    let seed_record = world.cluster.records(CONTROL);
    let mut more = world.seed.clone();
    more.raw_partitions = 3;
    let other = SimCluster::new(1, &more);
    other.import(seed_record).unwrap();
    let (_, mut runner) = start(&other, &more);
    let error = runner.turn().unwrap_err();
    assert!(matches!(error, RunError::Log(_)), "{error}");
    let text = format!("{:?}", error);
    assert!(
        text.contains("codex.raw.logs.v1") && text.contains("pins 1"),
        "{text}"
    );
}
