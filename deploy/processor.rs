//! `tacho-processor`: the consumer group. Everything is in the crate `processor`.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    processor::process::main()
}
