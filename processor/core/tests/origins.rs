//! The law of origins: however often and by whomever the records of an inbox are drained, they count once.

#![allow(clippy::unwrap_used, reason = "numbers of tests fit")]

mod support;

use proptest::prelude::*;
use schemas::delta::Series;
use schemas::metric::{Amount, Label, Metric};
use schemas::origin::Origin;
use schemas::settings::Seed;
use std::collections::BTreeMap;
use support::{Driven, Event, NOON, count, encode, event, prompt, text};

const CONVERSATIONS: [&str; 3] = ["c0", "c1", "c2"];
const SOURCES: [&str; 2] = ["codex.inbox.logs.v1/0", "codex.inbox.logs.v1/1"];

/// What a source holds for the raw partition, in its order: offset, part, conversation.
type Stream = Vec<(i64, u32, usize)>;

/// What happens while an inbox is drained.
#[derive(Clone, Debug)]
enum Step {
    /// The group commits a position, which is not above the first record that is not durable.
    Commit(prop::sample::Index),
    /// A further drainer begins at the group's position; earlier ones are slow or dead.
    Begin,
    /// One of the drainers that ever began appends its next records.
    Append(prop::sample::Index, usize),
    /// The processor commits, and then restarts if `restart` is set.
    Processor { restart: bool },
}

fn stream() -> impl Strategy<Value = Stream> {
    // Offsets and parts have holes, since other parts went to other raw partitions.
    proptest::collection::vec((1i64..4, 1u32..3, 0..CONVERSATIONS.len(), 0u32..4), 1..30).prop_map(
        |records| {
            let (mut offset, mut part, mut stream) = (0, 0, Vec::new());
            for (further, parts, conversation, same) in records {
                (offset, part) = if same == 0 && !stream.is_empty() {
                    (offset, part + parts)
                } else {
                    (offset + further, parts - 1)
                };
                stream.push((offset, part, conversation));
            }
            stream
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let step = prop_oneof![
        2 => any::<prop::sample::Index>().prop_map(Step::Commit),
        2 => Just(Step::Begin),
        8 => (any::<prop::sample::Index>(), 1usize..8).prop_map(|(who, records)| Step::Append(who, records)),
        1 => any::<bool>().prop_map(|restart| Step::Processor { restart }),
    ];
    proptest::collection::vec((0..SOURCES.len(), step), 0..80)
}

/// Events of which two do not derive. They have no dedup mark, so only the origin keeps them from counting
/// twice.
fn events(conversation: usize) -> Vec<Event> {
    let noise = |time| {
        event(
            CONVERSATIONS[conversation],
            time,
            "codex.sse_event",
            vec![("event.kind", text("response.created"))],
        )
    };
    vec![
        noise(NOON),
        prompt(CONVERSATIONS[conversation], NOON),
        noise(NOON + 1),
    ]
}

/// A source, and how far it was drained.
struct Drained {
    stream: Stream,
    /// How many records of the stream are durable, from its start without a hole.
    durable: usize,
    /// The group's position in the stream.
    committed: usize,
    /// The position in the stream of each drainer that ever began.
    runs: Vec<usize>,
}

struct World {
    driven: Driven,
    sources: Vec<Drained>,
    deltas: BTreeMap<String, i64>,
    appended: i64,
}

impl World {
    fn new(streams: &[Stream]) -> Self {
        let drained = |stream: &Stream| Drained {
            stream: stream.clone(),
            durable: 0,
            committed: 0,
            runs: vec![0],
        };
        let sources = streams.iter().map(drained).collect();
        Self {
            driven: Driven::new(Seed {
                raw_partitions: 1,
                ..Seed::shipped()
            }),
            sources,
            deltas: BTreeMap::new(),
            appended: 0,
        }
    }

    fn append(&mut self, source: usize, run: usize) -> bool {
        let from = &mut self.sources[source];
        let Some(&(offset, part, conversation)) = from.stream.get(from.runs[run]) else {
            return false;
        };
        from.runs[run] += 1;
        from.durable = from.durable.max(from.runs[run]);
        let origin = Origin {
            source: SOURCES[source],
            offset,
            part,
            stamped_ms: NOON + offset,
        };
        let key = format!("default/{}", CONVERSATIONS[conversation]);
        self.driven
            .drained(NOON, Some(origin), &key, &encode(&events(conversation)));
        self.appended += 1;
        true
    }

    fn step(&mut self, source: usize, step: &Step) {
        let from = &mut self.sources[source];
        match step {
            Step::Commit(to) => from.committed = from.committed.max(to.index(from.durable + 1)),
            Step::Begin => from.runs.push(from.committed),
            Step::Append(who, records) => {
                let run = who.index(from.runs.len());
                (0..*records).take_while(|_| self.append(source, run)).count();
            }
            Step::Processor { restart } => self.commit(*restart),
        }
    }

    fn commit(&mut self, restart: bool) {
        for (series, slots) in self.driven.commit().deltas {
            for amount in slots.values() {
                if let Amount::Count(count) = amount {
                    *self.deltas.entry(series.clone()).or_default() += count;
                }
            }
        }
        if restart {
            self.driven.restart();
        }
    }

    /// Drains all sources to the end. Gives the counters by series, without those that count duplicates too;
    /// how many log records were duplicates; and how many raw records were appended.
    fn finish(mut self) -> (BTreeMap<String, i64>, i64, i64) {
        for source in 0..SOURCES.len() {
            self.step(source, &Step::Begin);
            let run = self.sources[source].runs.len() - 1;
            while self.append(source, run) {}
        }
        self.commit(true);
        let is_repeated = |series: &str| {
            let series = Series::parse(series).unwrap();
            let def = series.metric.def();
            let outcome = def
                .labels
                .iter()
                .position(|label| *label == Label::Outcome)
                .map(|at| series.values[at]);
            series.metric == Metric::EventTimeSource || outcome == Some("duplicate")
        };
        let repeated = self
            .deltas
            .iter()
            .filter(|(series, _)| is_repeated(series) && series.contains("duplicate"));
        let repeated = repeated.map(|(_, count)| *count).sum();
        self.deltas.retain(|series, _| !is_repeated(series));
        (self.deltas, repeated, self.appended)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn records_count_once_whoever_drains_them(streams in proptest::collection::vec(stream(), SOURCES.len()), steps in steps()) {
        let (once, none, records) = World::new(&streams).finish();
        let total: usize = streams.iter().map(Vec::len).sum();
        prop_assert_eq!(i64::try_from(total).unwrap(), records);
        let mut world = World::new(&streams);
        steps.iter().for_each(|(source, step)| world.step(*source, step));
        let (often, repeated, appended) = world.finish();
        prop_assert_eq!(once, often);
        // All prompts of a conversation are equal records, of which all but the first are duplicates in any
        // case.
        prop_assert_eq!(repeated, none + 3 * (appended - records), "a log record of a raw record that came again is no duplicate");
    }
}

#[test]
fn a_raw_record_that_came_again_and_can_not_be_read_is_one_duplicate() {
    let mut driven = Driven::new(Seed {
        raw_partitions: 1,
        ..Seed::shipped()
    });
    let origin = Some(Origin {
        source: SOURCES[0],
        offset: 7,
        part: 0,
        stamped_ms: NOON,
    });
    driven.drained(NOON, origin, "default/c0", b"\xff");
    driven.drained(NOON, origin, "default/c0", b"\xff");
    let effects = driven.commit();
    assert_eq!(effects.quarantined.len(), 1);
    assert_eq!(
        count(&effects.deltas, "tacho_log_records_total", &["quarantined"]),
        1
    );
    assert_eq!(
        count(&effects.deltas, "tacho_log_records_total", &["duplicate"]),
        1
    );
}

#[test]
fn without_an_origin_nothing_is_dropped() {
    let mut driven = Driven::new(Seed {
        raw_partitions: 1,
        ..Seed::shipped()
    });
    let origin = Some(Origin {
        source: SOURCES[0],
        offset: 7,
        part: 0,
        stamped_ms: NOON,
    });
    let noise = &encode(&events(0)[..1]);
    driven.drained(NOON, origin, "default/c0", noise);
    driven.raw(NOON, "default/c0", noise);
    driven.tick(NOON);
    driven.drained(NOON, origin, "default/c0", noise);
    let effects = driven.commit();
    assert_eq!(count(&effects.deltas, "tacho_log_records_total", &["applied"]), 2);
    assert_eq!(
        count(&effects.deltas, "tacho_log_records_total", &["duplicate"]),
        1
    );
    assert_eq!(
        effects
            .changes
            .iter()
            .filter(|change| change.key == "i/codex.inbox.logs.v1/0")
            .count(),
        1
    );
}
