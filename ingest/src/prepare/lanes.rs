//! Bounds how many requests are prepared at once, by size, so that memory is bounded and small requests do not wait for
//! large ones.
//!
//! Preparing a request takes up to about six times its decoded size: the body, what it is decoded to, its cleaned form at
//! three depths, its parts.

use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// How long a request waits for its turn before it is refused.
const TURN_TIME_MAX: Duration = Duration::from_secs(4);
/// How many small requests are prepared at once.
const SMALL_WORKERS: usize = 6;
/// How many shares middle and large requests divide: a middle one takes half of them, a large one all.
const LARGE_SHARES: u32 = 4;

/// What a request needs to be prepared, by its decoded size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Up to 1 MiB: [`SMALL_WORKERS`] at once.
    Small,
    /// Up to 6 MiB: two at once.
    Middle,
    /// Of any size that may come in: one alone.
    Large,
}

impl Lane {
    /// The narrowest lane for a body of that many bytes.
    pub const fn of(bytes: usize) -> Self {
        if bytes <= Self::Small.bytes_max() {
            Self::Small
        } else if bytes <= Self::Middle.bytes_max() {
            Self::Middle
        } else {
            Self::Large
        }
    }

    /// The largest decoded request of the lane, in bytes.
    pub const fn bytes_max(self) -> usize {
        match self {
            Self::Small => 1 << 20,
            Self::Middle => 6 << 20,
            Self::Large => usize::MAX,
        }
    }

    /// The next wider lane; the widest stays.
    pub const fn wider(self) -> Self {
        match self {
            Self::Small => Self::Middle,
            Self::Middle | Self::Large => Self::Large,
        }
    }
}

/// The turns that requests wait for.
#[derive(Debug)]
pub(crate) struct Lanes {
    small: Semaphore,
    large: Semaphore,
}

impl Lanes {
    pub const fn new() -> Self {
        Self {
            small: Semaphore::const_new(SMALL_WORKERS),
            large: Semaphore::const_new(LARGE_SHARES as usize),
        }
    }

    /// Waits for a turn; none when it does not come within [`TURN_TIME_MAX`].
    pub async fn turn(&self, lane: Lane) -> Option<SemaphorePermit<'_>> {
        let turn = async {
            match lane {
                Lane::Small => self.small.acquire().await,
                Lane::Middle => self.large.acquire_many(LARGE_SHARES / 2).await,
                Lane::Large => self.large.acquire_many(LARGE_SHARES).await,
            }
        };
        tokio::time::timeout(TURN_TIME_MAX, turn).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_fits_is_not_turned_away() {
        for bytes in [0, 1 << 20, (1 << 20) + 1, 6 << 20, (6 << 20) + 1, 64 << 20] {
            assert!(bytes <= Lane::of(bytes).bytes_max(), "{bytes}");
        }
        assert_eq!(Lane::of(0).wider().wider(), Lane::Large);
    }

    #[tokio::test]
    async fn the_large_wait_for_each_other_and_the_small_for_none_of_them() {
        let lanes = Lanes::new();
        // Gives a turn only where there is one without waiting.
        let now = async |lane| {
            tokio::time::timeout(Duration::ZERO, lanes.turn(lane))
                .await
                .ok()
                .flatten()
        };
        let large = now(Lane::Large).await.unwrap();
        let _small = now(Lane::Small).await.unwrap();
        assert!(now(Lane::Middle).await.is_none());
        drop(large);
        let _one = now(Lane::Middle).await.unwrap();
        let _other = now(Lane::Middle).await.unwrap();
        assert!(now(Lane::Large).await.is_none());
    }
}
