//! `tacho-ingest`: OpenTelemetry in, raw topics out. Everything is in the crate `ingest`.

fn main() -> std::process::ExitCode {
    ingest::process::main()
}
