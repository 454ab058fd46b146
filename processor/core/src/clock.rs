//! The partition clock: event-time progress of one raw partition.
//!
//! A running maximum of append times. Nothing else moves it: no event time, no wall clock of ours. A record whose
//! append time is far ahead of the clock must be confirmed by its writer's own wall time, so one wrong broker clock
//! alone moves nothing.

use schemas::settings::TimeRules;
use schemas::time::{AppendTime, PartitionClock, WallTime};

/// How near an append time must be to the writer's wall time to prove a large step, ms.
pub const PROOF_MS: i64 = 60_000;

/// What a record did to the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// It set or moved it, or confirmed it.
    Moved,
    /// It was too far ahead without proof: the clock stays.
    Held,
}

/// Advances `clock` to `appended`, never back; the first record sets it.
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
        assert_eq!(step(500, None), (Advance::Moved, 1_000), "never back");
        let far = 1_000 + rules.max_step_ms + 1;
        assert_eq!(step(far, None), (Advance::Held, 1_000));
        assert_eq!(step(far, Some(far - PROOF_MS - 1)), (Advance::Held, 1_000));
        assert_eq!(step(far, Some(far + PROOF_MS)), (Advance::Moved, far));
    }
}
