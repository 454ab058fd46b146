//! The gauges of a worker: how much state there is, and how far behind the log it is.

use super::tasks::Tasks;
use super::{RunError, Work, is_due};
use crate::telemetry;
use crate::view::View;
use processor_log::Log;
use schemas::id::TopicPartition;

/// How often the gauges are set, ms. It is seldom, since the log is asked for the end of every input partition.
const EVERY_MS: u64 = 5_000;

/// Sets the gauges, at most every [`EVERY_MS`].
pub fn gauges<L: Log>(work: &mut Work, log: &mut L, view: &View) -> Result<(), RunError> {
    let now = log.wall_ms();
    if !is_due(now, work.observed_ms, EVERY_MS) {
        return Ok(());
    }
    work.observed_ms = now;
    let inputs: Vec<TopicPartition> = work.tasks.iter().map(|(input, _)| input).collect();
    let ends = log.ends(&inputs)?;
    for ((at, held), end) in work.tasks.iter().zip(ends) {
        telemetry::consumer_lag(at.topic.name(), at.partition, end.0 - held.committed.0);
        telemetry::state_keys(held.task.stage().def().name, at.partition, held.task.state_keys());
        if let Some(clock) = held.task.clock() {
            telemetry::clock_lag(at.partition, now - clock.0);
        }
    }
    telemetry::log_info(&view.log, &work.derivation_id);
    let epoch = work.rules.latest();
    telemetry::price_table(work.rules.prices(epoch).version(), epoch.0);
    Ok(())
}

/// Counts what a commit made true: records that could not move a clock, and the latency of the newest results.
pub fn committed(tasks: &mut Tasks, now_ms: i64, touched: impl Iterator<Item = i32>) {
    for (at, held) in tasks.iter_mut() {
        if let Some(task) = held.task.sessions() {
            let before = std::mem::replace(&mut held.clock_holds, task.clock_holds());
            telemetry::clock_held(at.partition, held.clock_holds.saturating_sub(before));
        }
    }
    for newest in touched.filter_map(|partition| tasks.series(partition)?.newest_clock()) {
        telemetry::end_to_end(now_ms - newest.0);
    }
}
