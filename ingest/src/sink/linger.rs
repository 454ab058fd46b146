//! Whether a request waits for others, so that they share requests to Kafka.
//!
//! Wake-ups and requests are what records cost, so a crowd should go together; a client that is alone should not wait for
//! nobody. [`Crowd::waits`] decides by what was there in the last tenth of a second:
//!
//! - Never were two requests under way at once: no wait. (A client that sends one after the other is one, however fast.)
//! - Nobody is likely to come within [`WAIT_MS`]: no wait.
//! - Otherwise for [`WAIT_MS`], by the linger of a producer of its own: the client gathers what comes in that time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// How long a crowd waits.
pub(crate) const WAIT_MS: u64 = 5;
/// Fewer under way at once are no crowd.
const CROWD_MIN: u32 = 2;
/// What was there is looked at in pieces of that length: the current one and the one before it.
const PIECE_MS: u64 = 100;

/// What was there in a piece of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Piece {
    arrivals: u32,
    /// Most requests under way at once.
    peak: u32,
}

/// Who came of late. Pure: time comes in.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    under_way: u32,
    piece: u64,
    now: Piece,
    before: Piece,
}

impl Crowd {
    /// One more at that time, ms since whenever.
    pub fn arrive(&mut self, at_ms: u64) {
        let piece = at_ms / PIECE_MS;
        if piece != self.piece {
            self.before = if piece == self.piece + 1 {
                self.now
            } else {
                Piece::default()
            };
            self.now = Piece {
                arrivals: 0,
                peak: self.under_way,
            };
            self.piece = piece;
        }
        self.under_way += 1;
        self.now.arrivals += 1;
        self.now.peak = self.now.peak.max(self.under_way);
    }

    /// One is done.
    pub fn leave(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Whether to wait for others.
    pub fn waits(&self) -> bool {
        let arrivals = u64::from(self.now.arrivals.max(self.before.arrivals));
        self.now.peak.max(self.before.peak) >= CROWD_MIN && arrivals * WAIT_MS >= PIECE_MS
    }
}

/// Watches requests come and go.
#[derive(Debug)]
pub(crate) struct Linger {
    began: Instant,
    crowd: Mutex<Crowd>,
}

/// A request that is under way, until this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay {
    linger: Arc<Linger>,
    /// Whether it should wait for others.
    pub waits: bool,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.linger
            .crowd
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .leave();
    }
}

impl Linger {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            crowd: Mutex::default(),
        }
    }

    /// One more request.
    pub fn arrive(this: &Arc<Self>) -> UnderWay {
        let at_ms = u64::try_from(this.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut crowd = this.crowd.lock().unwrap_or_else(PoisonError::into_inner);
        crowd.arrive(at_ms);
        let waits = crowd.waits();
        drop(crowd);
        UnderWay {
            linger: Arc::clone(this),
            waits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_alone_never_waits_however_fast() {
        let mut crowd = Crowd::default();
        for at in 0..1_000 {
            crowd.arrive(at);
            assert!(!crowd.waits());
            crowd.leave();
        }
    }

    #[test]
    fn a_crowd_waits_if_somebody_is_likely_to_come() {
        let waits = |arrivals: u32| {
            let mut crowd = Crowd::default();
            (0..arrivals).for_each(|_| crowd.arrive(5));
            crowd.waits()
        };
        assert_eq!([2, 19, 20, 2_000].map(waits), [false, false, true, true]);
    }

    #[test]
    fn a_crowd_that_is_gone_is_forgotten() {
        let mut crowd = Crowd::default();
        (0..50).for_each(|_| crowd.arrive(5));
        (0..50).for_each(|_| crowd.leave());
        crowd.arrive(150);
        assert!(crowd.waits(), "a moment ago there were many");
        crowd.leave();
        crowd.arrive(350);
        assert!(!crowd.waits());
        // Many that hang do not make a lone client wait.
        (0..40).for_each(|_| crowd.arrive(360));
        crowd.arrive(1_000);
        assert!(!crowd.waits());
    }

    #[test]
    fn who_is_done_is_under_way_no_longer() {
        let linger = Arc::new(Linger::new());
        let both = (Linger::arrive(&linger), Linger::arrive(&linger));
        assert_eq!(linger.crowd.lock().unwrap().under_way, 2);
        drop(both);
        assert_eq!(linger.crowd.lock().unwrap().under_way, 0);
    }
}
