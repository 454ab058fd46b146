//! The partition clock: event-time progress of one raw partition.
//!
//! The clock is the running maximum of the append times that the log stamps on the partition's records.
//! Nothing else moves it: no event time, no wall clock of this process, no idle timeout. An idle partition
//! gets ticks, empty records with an append time like any other (`processor/src/runner/ticks.rs`).
//!
//! A step of more than `max_step_ms` (10 min) counts only if the append time is within one minute of the
//! record's own `tacho-wall`, the wall time of the attempt to write it. Otherwise the clock is held, and that
//! is counted: one wrong broker clock alone moves nothing.
//!
//! **Invariant:** the clock never goes back, and the same records give the same clock.

use schemas::delta::Slot;
use schemas::settings::TimeRules;
use schemas::time::{AppendTime, EventTime, PartitionClock, WallTime, window_start};

/// How far an append time may be from the writer's wall time and still be confirmed by it, ms.
pub const PROOF_MS: i64 = 60_000;

/// What a record did to the partition clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// The clock is at the record's append time, or was there or later already.
    Moved,
    /// The append time is too far ahead of the clock and was not confirmed, so the clock was not moved.
    Held,
}

/// Advances `clock` to `appended`, and never sets it back; the first record sets it, whatever its append
/// time.
pub fn advance(
    clock: &mut Option<PartitionClock>,
    appended: AppendTime,
    wall: Option<WallTime>,
    rules: &TimeRules,
) -> Advance {
    let Some(now) = *clock else {
        *clock = Some(PartitionClock(appended.0));
        return Advance::Moved;
    };
    let proven = wall.is_some_and(|wall| appended.0.abs_diff(wall.0) <= PROOF_MS.unsigned_abs());
    if appended.0.saturating_sub(now.0) > rules.max_step_ms && !proven {
        return Advance::Held;
    }
    *clock = Some(now.max(PartitionClock(appended.0)));
    Advance::Moved
}

/// The slot of an event at `time` on a partition whose clock is at `clock`, with its late level and slot of
/// arrival.
pub fn slot(time: EventTime, clock: PartitionClock, rules: &TimeRules) -> Slot {
    let end = |size: i64| window_start(time, size).0.saturating_add(size);
    let late = rules
        .window_sizes_ms
        .iter()
        .take_while(|size| clock.0 >= end(**size).saturating_add(rules.grace_ms))
        .count();
    let arrival = PartitionClock(window_start(EventTime(clock.0), rules.slot_ms).0);
    Slot {
        start: window_start(time, rules.slot_ms),
        late: u32::try_from(late).unwrap_or(u32::MAX),
        arrival: (late > 0).then_some(arrival),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::settings::Seed;

    #[test]
    fn one_wrong_broker_clock_moves_nothing() {
        let rules = Seed::shipped().time;
        let mut clock = None;
        let mut step = |appended, wall: Option<i64>| {
            let advance = advance(&mut clock, AppendTime(appended), wall.map(WallTime), &rules);
            (advance, clock.map_or(0, |clock| clock.0))
        };
        assert_eq!(step(1_000, None), (Advance::Moved, 1_000));
        assert_eq!(step(500, None), (Advance::Moved, 1_000), "the clock went back");
        let far = 1_000 + rules.max_step_ms + 1;
        assert_eq!(step(far, None), (Advance::Held, 1_000));
        assert_eq!(step(far, Some(far - PROOF_MS - 1)), (Advance::Held, 1_000));
        assert_eq!(step(far, Some(far + PROOF_MS)), (Advance::Moved, far));
    }
}
