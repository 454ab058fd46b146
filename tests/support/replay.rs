//! Replay: runs the real runner over a log, and collects the results.

use processor::runner::{Options, RunError, Runner, SeedSource};
use processor::status::Status;
use processor::view::View;
use processor_log::Log;
use schemas::derived::{COMPLETE, SegmentState, SessionRow};
use schemas::id::{Position, TopicPartition};
use schemas::metric::Amount;
use schemas::record::Record;
use schemas::settings::Seed;
use schemas::topic::Topic;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The results of a log: payloads of derived rows, and totals. They must be the same, byte for byte, whatever
/// happened while they were derived.
#[derive(Debug, Default, PartialEq)]
pub struct Results {
    /// Final windows and corrections by topic, key and value, sorted; none may be there twice. Rows that tell that a window
    /// is complete are left out: each tick of an idle log brings more of them.
    pub windows: Vec<(&'static str, String, Vec<u8>)>,
    /// The last row of each session segment, by key.
    pub sessions: BTreeMap<String, Vec<u8>>,
    /// The total of each series.
    pub totals: BTreeMap<String, Amount>,
}

impl Results {
    /// Reads the results from a log, and totals from the view of the last commit.
    pub fn of(log: &mut impl Log, view: &View) -> Self {
        let mut results = Self::default();
        for topic in [Topic::Windows1m, Topic::Windows5m, Topic::Windows1h] {
            results.windows.extend(
                read_topic(log, topic)
                    .into_iter()
                    .map(|record| (topic.name(), key(&record), value(&record)))
                    .filter(|(_, key, _)| !key.starts_with(COMPLETE)),
            );
        }
        results.windows.sort();
        results.sessions.extend(
            read_topic(log, Topic::Sessions)
                .iter()
                .map(|record| (key(record), value(record))),
        );
        for partition in &view.partitions {
            for (series, shown) in &partition.series {
                if let Some(total) = &shown.total {
                    assert!(
                        results.totals.insert(series.clone(), total.clone()).is_none(),
                        "{series:?} is in two partitions"
                    );
                }
            }
        }
        results
    }

    /// The results without the texts in rows that a privacy policy can drop or hash.
    pub fn anonymous(mut self) -> Self {
        for row in self.sessions.values_mut() {
            let decoded = SessionRow::decode(row).unwrap();
            *row = SessionRow {
                user_email: String::new(),
                user_account_id: String::new(),
                ..decoded
            }
            .encode();
        }
        self
    }

    /// Compares the results with others.
    ///
    /// # Panics
    /// The results differ. The message holds the first differences.
    pub fn assert_same(&self, other: &Self, what: &str) {
        let only = |a: &Self, b: &Self| {
            let windows = a
                .windows
                .iter()
                .filter(|row| b.windows.binary_search(row).is_err())
                .map(|(topic, series, value)| {
                    let row = schemas::derived::Row::decode(Topic::by_name(topic).unwrap(), value);
                    format!("{topic} {series} {row:?}")
                });
            let sessions = a
                .sessions
                .iter()
                .filter(|(key, row)| b.sessions.get(*key) != Some(row));
            let sessions = sessions.map(|(key, row)| format!("session {key} {:?}", SessionRow::decode(row)));
            let totals = a
                .totals
                .iter()
                .filter(|(series, total)| b.totals.get(*series) != Some(total));
            let totals = totals.map(|(series, total)| format!("total {series:?} {total:?}"));
            windows
                .chain(sessions)
                .chain(totals)
                .take(4)
                .collect::<Vec<_>>()
                .join("\n  ")
        };
        assert!(
            self == other,
            "{what}: results differ.\nonly in the first ({} windows):\n  {}\nonly in the second ({} windows):\n  {}",
            self.windows.len(),
            only(self, other),
            other.windows.len(),
            only(other, self)
        );
    }

    /// Whether every session has ended.
    pub fn all_ended(&self) -> bool {
        self.sessions
            .values()
            .all(|row| SessionRow::decode(row).unwrap().state == SegmentState::Ended)
    }

    /// How many window rows are corrections.
    pub fn corrections(&self) -> usize {
        let is = |value: &[u8]| {
            schemas::derived::WindowRow::decode(value)
                .unwrap()
                .arrival_ms
                .is_some()
        };
        self.windows.iter().filter(|(_, _, value)| is(value)).count()
    }

    /// The sum of a counter over all of its series.
    pub fn total(&self, metric: &str) -> i64 {
        let of = |series: &str| series.split('\u{1f}').next() == Some(metric);
        let counts = self
            .totals
            .iter()
            .filter(|(series, _)| of(series))
            .map(|(_, total)| match total {
                Amount::Count(count) => *count,
                other => panic!("{metric} is no counter: {other:?}"),
            });
        counts.sum()
    }
}

fn key(record: &Record) -> String {
    String::from_utf8(record.key.clone().unwrap().to_vec()).unwrap()
}

fn value(record: &Record) -> Vec<u8> {
    record.value.clone().unwrap().to_vec()
}

/// All committed records of a topic that were not deleted.
pub fn read_topic(log: &mut (impl Log + ?Sized), topic: Topic) -> Vec<Record> {
    let mut records = Vec::new();
    for partition in 0..log.partitions(topic).unwrap() {
        let at = TopicPartition { topic, partition };
        let extent = log.extent(at).unwrap();
        let mut from = extent.start;
        while from < extent.end {
            let batch = log.read(at, from, 10_000).unwrap();
            from = batch.next;
            records.extend(batch.records);
        }
    }
    records
}

/// The topics that results are a function of.
pub fn inputs(log: &mut impl Log) -> Vec<Record> {
    [Topic::RawLogs, Topic::Control, Topic::Labels]
        .into_iter()
        .flat_map(|topic| read_topic(log, topic))
        .collect()
}

/// A worker with a view of its own.
pub fn worker<L: Log>(log: L, seed: &Seed, options: Options) -> (Runner<L>, Arc<View>) {
    let view = Arc::new(View::default());
    (
        Runner::new(
            log,
            SeedSource(seed.clone()),
            Arc::clone(&view),
            Arc::new(Status::default()),
            options,
        ),
        view,
    )
}

/// Runs a worker without ticks over a log that does not grow until nothing is left to do, and gives the
/// results.
pub fn replay<L: Log>(log: L, seed: &Seed, poll_max: usize) -> Result<Results, RunError> {
    Ok(replay_into_view(log, seed, poll_max)?.0)
}

/// Replays a log as [`replay`] does, and gives the text of `/metrics` too.
pub fn replay_into_view<L: Log>(
    log: L,
    seed: &Seed,
    poll_max: usize,
) -> Result<(Results, Arc<View>), RunError> {
    let options = Options {
        commit_interval: Duration::ZERO,
        records_max: 1,
        poll_max,
        ticks: false,
        backoff: Duration::ZERO,
        ..Options::default()
    };
    let (mut runner, view) = worker(log, seed, options);
    settle(&mut runner)?;
    Ok((Results::of(runner.log(), &view), view))
}

/// Runs turns of a worker until nothing is left to do and all is committed.
pub fn settle<L: Log>(runner: &mut Runner<L>) -> Result<(), RunError> {
    let mut idle = 0;
    let mut seen = None;
    while idle < 2 {
        runner.turn()?;
        runner.commit()?;
        // Folded records are committed at once, and each commit writes a meta record, so the worker is done
        // when none was written.
        let now = Some(changelogs(runner.log()));
        idle = if now == seen { idle + 1 } else { 0 };
        seen = now;
    }
    Ok(())
}

fn changelogs(log: &mut impl Log) -> Vec<Position> {
    let topics = [Topic::SessionsChangelog, Topic::SeriesChangelog];
    let mut ends = Vec::new();
    for topic in topics {
        for partition in 0..log.partitions(topic).unwrap() {
            ends.push(log.extent(TopicPartition { topic, partition }).unwrap().end);
        }
    }
    ends
}
