//! The partition clock: event-time progress of one raw partition.
//!
//! A running maximum of append times. Nothing else moves it: no event time, no wall clock of ours. A record whose
//! append time is far ahead of the clock must be confirmed by its writer's own wall time, so one wrong broker clock
//! alone moves nothing.

use schemas::settings::TimeRules;

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
pub fn advance(clock: &mut Option<i64>, appended: i64, wall: Option<i64>, rules: &TimeRules) -> Advance {
    let Some(now) = *clock else {
        *clock = Some(appended);
        return Advance::Moved;
    };
    let proven = wall.is_some_and(|wall| appended.abs_diff(wall) <= PROOF_MS.unsigned_abs());
    if appended.saturating_sub(now) > rules.max_step_ms && !proven {
        return Advance::Held;
    }
    *clock = Some(now.max(appended));
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
        assert_eq!(advance(&mut clock, 1_000, None, &rules), Advance::Moved);
        assert_eq!(advance(&mut clock, 500, None, &rules), Advance::Moved);
        assert_eq!(clock, Some(1_000), "never back");
        let far = 1_000 + rules.max_step_ms + 1;
        assert_eq!(advance(&mut clock, far, None, &rules), Advance::Held);
        assert_eq!(
            advance(&mut clock, far, Some(far - PROOF_MS - 1), &rules),
            Advance::Held
        );
        assert_eq!(clock, Some(1_000));
        assert_eq!(
            advance(&mut clock, far, Some(far + PROOF_MS), &rules),
            Advance::Moved
        );
        assert_eq!(clock, Some(far));
    }
}
