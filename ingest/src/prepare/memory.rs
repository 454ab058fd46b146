//! Large buffers that go back to the system as soon as they are dropped, whichever allocator a program has.
//!
//! Allocators keep what is freed, by thread. glibc, for one, maps only allocations over a threshold by themselves, and that
//! threshold rises to the largest mapped block of up to 32 MiB that is ever freed, and what an arena keeps to twice that: after
//! a few large requests each thread would hold tens of MiB for ever. A larger block is mapped and unmapped by itself, and what
//! of it is never written takes no memory.

/// More than glibc's `DEFAULT_MMAP_THRESHOLD_MAX`.
const MAPPED_BYTES: usize = 33 << 20;
/// Smaller buffers are allocated as usual.
const LARGE_BYTES: usize = 1 << 20;

/// What to reserve for a buffer that may come to hold so many bytes.
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
