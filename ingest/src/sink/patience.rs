//! Decides how long a request is held while Kafka does not answer: all requests of one outage share one time.
//!
//! A client that ends posts one request after the other, and several of a signal if it has many records. If each was held anew,
//! its user would wait for the sum. A refused request is still in the producer, which goes on trying
//! ([`crate::sink::kafka::GIVE_UP`]); the outage lasts until the fates of all such requests are known.

use crate::sink::HOLD_LOGS;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a request is held in any case, since it may be the first that is confirmed again.
const HOLD_MIN: Duration = Duration::from_millis(250);

/// Keeps account of the requests that were held and not confirmed.
#[derive(Debug, Default)]
pub(crate) struct Patience(Mutex<Outage>);

#[derive(Debug, Default)]
struct Outage {
    /// When the first unconfirmed request of the outage came; none while there is no outage.
    began: Option<Instant>,
    /// How many unconfirmed requests there are whose fate is not known yet.
    open: usize,
}

/// An unconfirmed request, until this is dropped because its fate is known.
#[derive(Debug)]
pub(crate) struct Unconfirmed(Arc<Patience>);

impl Patience {
    /// Until when a request that comes now is held, if it may be held for `hold` outside of an outage.
    pub fn until(&self, now: Instant, hold: Duration) -> Instant {
        match self.lock().began {
            Some(began) => (now + hold).min((began + HOLD_LOGS).max(now + HOLD_MIN)),
            None => now + hold,
        }
    }

    /// Notes a request that came at `came`, was held, and is not confirmed.
    pub fn unconfirmed(self: &Arc<Self>, came: Instant) -> Unconfirmed {
        let mut outage = self.lock();
        outage.began.get_or_insert(came);
        outage.open += 1;
        Unconfirmed(Arc::clone(self))
    }

    fn lock(&self) -> MutexGuard<'_, Outage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Unconfirmed {
    fn drop(&mut self) {
        let mut outage = self.0.lock();
        outage.open -= 1;
        if outage.open == 0 {
            outage.began = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::HOLD_OTHERS;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn requests_of_one_outage_are_held_until_one_time_together() {
        let (patience, start) = (Arc::new(Patience::default()), Instant::now());
        assert_eq!(patience.until(start, HOLD_LOGS), start + HOLD_LOGS);
        let first = patience.unconfirmed(start);
        assert_eq!(patience.until(start + 400 * MS, HOLD_OTHERS), start + 800 * MS);
        assert_eq!(patience.until(start + 1_200 * MS, HOLD_LOGS), start + HOLD_LOGS);
        let second = patience.unconfirmed(start + 400 * MS);
        drop(first);
        assert_eq!(patience.until(start + 3_900 * MS, HOLD_LOGS), start + 4_150 * MS);
        drop(second);
        assert_eq!(
            patience.until(start + 4_000 * MS, HOLD_LOGS),
            start + 4_000 * MS + HOLD_LOGS
        );
    }
}
