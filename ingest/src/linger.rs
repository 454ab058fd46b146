//! How long a request waits for others, so that they share requests to Kafka.
//!
//! Wake-ups and requests are what records cost at low rates, so a crowd should go together; a client that is alone should
//! not wait for nobody. [`Crowd::wait`] decides by what was there in the last tenth of a second:
//!
//! - Never were four requests under way at once: no wait. (A client that sends one after the other is one, however fast.)
//! - Nobody is likely to come within the longest wait: no wait.
//! - Otherwise as long as [`GROUP_REQUESTS`] take to come, at most [`WAIT_MAX`].
//!
//! Who comes first opens a gate's time; it ends early when as many have gathered as were under way at once: then everybody
//! is there that could come.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The longest wait.
pub const WAIT_MAX: Duration = Duration::from_millis(10);
/// A group of that many is large enough.
const GROUP_REQUESTS: u32 = 256;
/// Fewer under way at once are no crowd.
const CROWD_MIN: u32 = 4;
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
            self.before = if piece == self.piece + 1 { self.now } else { Piece::default() };
            self.now = Piece { arrivals: 0, peak: self.under_way };
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

    /// Most that were under way at once.
    fn peak(&self) -> u32 {
        self.now.peak.max(self.before.peak)
    }

    /// How long to wait for others.
    pub fn wait(&self) -> Duration {
        let arrivals = u64::from(self.now.arrivals.max(self.before.arrivals));
        let wait_max_us = u64::try_from(WAIT_MAX.as_micros()).unwrap_or(u64::MAX);
        let piece_us = PIECE_MS * 1_000;
        // Fewer than two would come in the longest wait.
        if self.peak() < CROWD_MIN || arrivals * wait_max_us < 2 * piece_us {
            return Duration::ZERO;
        }
        Duration::from_micros((u64::from(GROUP_REQUESTS) * piece_us / arrivals).min(wait_max_us))
    }
}

/// Where requests gather.
#[derive(Debug)]
struct Gate {
    until: Instant,
    gathered: u32,
    open: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Shared {
    crowd: Crowd,
    gate: Option<Gate>,
}

/// Lets requests wait for others.
#[derive(Debug)]
pub(crate) struct Linger {
    began: Instant,
    shared: Mutex<Shared>,
}

/// A request that is under way, until this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Linger>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.shared.lock().unwrap_or_else(PoisonError::into_inner).crowd.leave();
    }
}

impl Linger {
    pub fn new() -> Self {
        Self { began: Instant::now(), shared: Mutex::default() }
    }

    /// Resolves when the request should go.
    pub async fn arrive(this: &Arc<Self>) -> UnderWay {
        let (gate, under_way) = (this.enter(), UnderWay(Arc::clone(this)));
        if let Some((until, mut open)) = gate {
            // The sender is gone when the gate is: open too.
            let _ = tokio::time::timeout_at(until, open.wait_for(|open| *open)).await;
        }
        under_way
    }

    fn enter(&self) -> Option<(Instant, watch::Receiver<bool>)> {
        let now = Instant::now();
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let Shared { crowd, gate } = &mut *shared;
        crowd.arrive(u64::try_from((now - self.began).as_millis()).unwrap_or(u64::MAX));
        if gate.as_ref().is_none_or(|gate| gate.until <= now) {
            let wait = crowd.wait();
            *gate = (!wait.is_zero()).then(|| Gate { until: now + wait, gathered: 0, open: watch::Sender::new(false) });
        }
        let here = gate.as_mut()?;
        here.gathered += 1;
        if here.gathered >= crowd.peak() {
            here.open.send_replace(true);
            *gate = None;
            return None;
        }
        Some((here.until, here.open.subscribe()))
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
            assert_eq!(crowd.wait(), Duration::ZERO);
            crowd.leave();
        }
        // Nor do three, nor many who come one after the other.
        (0..3).for_each(|_| crowd.arrive(1_000));
        assert_eq!(crowd.wait(), Duration::ZERO);
    }

    #[test]
    fn a_crowd_waits_and_the_denser_it_is_the_shorter() {
        let waits = [20, 200, 2_000, 20_000].map(|arrivals| {
            let mut crowd = Crowd::default();
            (0..arrivals).for_each(|_| crowd.arrive(5));
            crowd.wait()
        });
        assert_eq!(waits, [10_000, 10_000, 10_000, 1_280].map(Duration::from_micros));
    }

    #[test]
    fn a_crowd_that_is_gone_is_forgotten() {
        let mut crowd = Crowd::default();
        (0..50).for_each(|_| crowd.arrive(5));
        (0..50).for_each(|_| crowd.leave());
        crowd.arrive(150);
        assert!(crowd.wait() > Duration::ZERO, "a moment ago there were many");
        crowd.leave();
        crowd.arrive(350);
        assert_eq!(crowd.wait(), Duration::ZERO);
        // Four that hang do not make a lone client wait.
        (0..4).for_each(|_| crowd.arrive(360));
        crowd.arrive(1_000);
        assert_eq!(crowd.wait(), Duration::ZERO);
    }

    #[tokio::test]
    async fn the_gate_opens_when_all_are_there() {
        let linger = Linger::new();
        {
            let mut shared = linger.shared.lock().unwrap();
            (0..20).for_each(|_| shared.crowd.arrive(0));
            (0..20).for_each(|_| shared.crowd.leave());
        }
        let gates: Vec<_> = (0..19).map(|_| linger.enter()).collect();
        assert!(gates.iter().all(Option::is_some));
        assert!(linger.enter().is_none(), "the last one goes at once");
        for (_, mut open) in gates.into_iter().flatten() {
            assert!(*open.wait_for(|open| *open).await.unwrap());
        }
    }
}
