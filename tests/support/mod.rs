//! What the tests of the whole system share.
#![allow(dead_code, reason = "each test binary uses its part")]
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

/// How long a test waits for what must come. It ends as soon as it is there, so this only bounds a failure.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(40);

/// Looks until `look` gives something.
///
/// # Panics
/// Nothing came within [`PATIENCE`]: with the last reason why not.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) => assert!(
                Instant::now() < deadline,
                "{what}: not within {PATIENCE:?}: {why}"
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
