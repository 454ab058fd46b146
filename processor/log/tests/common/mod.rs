//! Commits of tests, by records and positions.

use processor_log::{Commit, Part};
use schemas::id::{Position, TopicPartition};
use schemas::record::NewRecord;
use schemas::topic::Topic;

/// A commit of these records and positions; without a position, that of a partition of which nothing is consumed.
pub fn commit(records: Vec<NewRecord>, mut positions: Vec<(TopicPartition, Position)>) -> Commit {
    if positions.is_empty() {
        let (topic, partition) = (Topic::Deltas, 0);
        positions.push((TopicPartition { topic, partition }, Position(0)));
    }
    let part = |(input, position)| Part {
        input,
        position,
        records: Vec::new(),
    };
    let mut parts: Vec<Part> = positions.into_iter().map(part).collect();
    parts[0].records = records;
    Commit { parts }
}
