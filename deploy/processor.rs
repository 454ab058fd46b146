//! `tacho-processor`: the consumer group. Everything is in the crate `processor`.

/// Not in `tacho-ingest`: this one keeps for a while what large requests took.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    processor::process::main()
}
