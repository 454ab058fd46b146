//! `tacho-ingest`: OpenTelemetry in, raw topics out. Everything is in the crate `ingest`.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    ingest::process::main()
}
