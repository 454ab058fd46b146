//! Whether a request waits for others, so that they share requests to Kafka.
//!
//! Wake-ups and requests to Kafka are what records cost at low rates, so a crowd should go together; a client
//! that is alone should wait for nobody. There are two producers: one sends at once, one gathers for
//! [`WAIT_MS`] (5 ms). A request goes by the second only if two or more were under way at once within the
//! last 0.1 to 0.2 s and another is likely within that time. [`Crowd::waits`] is a pure function of arrivals:
//!
//! - Never were two requests under way at once: no wait. (A client that sends one after the other is one,
//!   however fast.)
//! - Nobody is likely to come within [`WAIT_MS`]: no wait.
//! - Otherwise for [`WAIT_MS`], by the linger of a producer of its own: the client gathers what comes in that
//!   time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// How long requests of a crowd wait for others, in ms.
pub(crate) const WAIT_MS: u64 = 5;
/// How many requests must have been under way at once to be a crowd.
const CROWD_MIN: u32 = 2;
/// The length of the two pieces of time that are looked at, in ms: the current one and the one before it.
const PIECE_MS: u64 = 100;

/// The requests of a piece of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Piece {
    arrivals: u32,
    /// The largest number of requests under way at once.
    peak: u32,
}

/// The requests of late. It is pure: the time is given to it.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    under_way: u32,
    piece: u64,
    now: Piece,
    before: Piece,
}

impl Crowd {
    /// Notes a request that comes at `at_ms`, in ms since any fixed moment.
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

    /// Notes that a request is done.
    pub fn leave(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Whether a request that comes now waits for others.
    pub fn waits(&self) -> bool {
        let arrivals = u64::from(self.now.arrivals.max(self.before.arrivals));
        self.now.peak.max(self.before.peak) >= CROWD_MIN && arrivals * WAIT_MS >= PIECE_MS
    }
}

/// Watches requests come and go, by the clock.
#[derive(Debug)]
pub(crate) struct Linger {
    began: Instant,
    crowd: Mutex<Crowd>,
}

/// A request that is under way until this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay {
    linger: Arc<Linger>,
    /// Whether the request should wait for others.
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

    /// Notes a request that comes now.
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
        // Many requests that hang do not make a lone client wait.
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
