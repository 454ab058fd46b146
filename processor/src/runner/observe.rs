//! The worker's own gauges, set now and then: how much state there is, and how far behind it is.

use super::{RunError, State, is_due};
use crate::telemetry;
use processor_log::Log;
use schemas::id::TopicPartition;

/// How often the gauges are set. The lag asks the log for the end of every input partition.
const EVERY_MS: u64 = 5_000;

/// Sets the gauges, if it is time.
pub fn gauges<L: Log>(state: &mut State, log: &mut L) -> Result<(), RunError> {
    let now = log.wall_ms();
    if !is_due(now, state.observed_ms, EVERY_MS) {
        return Ok(());
    }
    state.observed_ms = now;
    let inputs: Vec<TopicPartition> = state.committed.keys().copied().collect();
    for (end, (at, committed)) in log.ends(&inputs)?.iter().zip(&state.committed) {
        telemetry::consumer_lag(at.topic.name(), at.partition, end.0 - committed);
    }
    let epoch = state.rules.latest();
    telemetry::price_table(state.rules.prices(epoch).version(), epoch);
    for task in state.sessions.values() {
        telemetry::state_keys("sessions", task.partition(), task.conversations());
        if let Some(clock) = task.clock() {
            telemetry::clock_lag(task.partition(), now - clock);
        }
    }
    for task in state.series.values() {
        telemetry::state_keys("series", task.partition(), task.series());
    }
    Ok(())
}

/// Counts what one commit made true: records that could not move a clock, and how old the newest results are.
pub fn committed(state: &mut State, now_ms: i64, touched: impl Iterator<Item = i32>) {
    for task in state.sessions.values() {
        let before = state.held.insert(task.partition(), task.held()).unwrap_or(0);
        telemetry::clock_held(task.partition(), task.held().saturating_sub(before));
    }
    for newest in touched.filter_map(|partition| state.series.get(&partition)?.newest_clock()) {
        telemetry::end_to_end(now_ms - newest);
    }
}
