//! Sizes large buffers so that they go back to the system as soon as they are dropped, whichever allocator a program has.
//!
//! Allocators keep what is freed, by thread. glibc, for one, maps only allocations over a threshold by themselves. Freeing a
//! mapped block raises that threshold to the block's size, up to 32 MiB, and what an arena keeps to twice that: after a few
//! large requests each thread would hold tens of MiB for ever. A block over 32 MiB is always mapped and unmapped by itself,
//! and the part of it that is never written takes no memory.

/// The size of a block that is always mapped by itself: more than glibc's `DEFAULT_MMAP_THRESHOLD_MAX`.
const MAPPED_BYTES: usize = 33 << 20;
/// Up to that size buffers are allocated as usual.
const LARGE_BYTES: usize = 1 << 20;

/// How many bytes to reserve for a buffer that may come to hold `bytes`.
pub(crate) fn capacity(bytes: usize) -> usize {
    if bytes > LARGE_BYTES {
        bytes.max(MAPPED_BYTES)
    } else {
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_buffers_are_mapped() {
        assert_eq!(
            [0, LARGE_BYTES, LARGE_BYTES + 1, 64 << 20].map(capacity),
            [0, LARGE_BYTES, MAPPED_BYTES, 64 << 20]
        );
    }
}
