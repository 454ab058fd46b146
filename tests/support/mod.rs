//! Support of the tests of the whole system.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "test code")]

pub mod broker;
pub mod facts;
pub mod fixtures;
pub mod old;
pub mod otlp;
pub mod processes;
pub mod replay;
pub mod samples;
pub mod tacho;
pub mod traffic;
pub mod veil;

use std::time::{Duration, Instant};

/// How long a test waits for what must come. It goes on as soon as that is there, so only a failure takes as long.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// The time between two calls of `look` in [`eventually`].
const LOOK_EVERY: Duration = Duration::from_millis(40);

/// Calls `look` until it gives `Ok`.
///
/// # Panics
/// `look` gave none within [`PATIENCE`]. The message holds the last error.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) => assert!(
                Instant::now() < deadline,
                "{what} did not come within {PATIENCE:?}: {why}"
            ),
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Wall time, ms since the Unix epoch.
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    i64::try_from(since.as_millis()).unwrap()
}
