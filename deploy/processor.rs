//! `tacho-processor`: the consumer group. Everything is in the crate `processor`.

fn main() -> std::process::ExitCode {
    processor::process::main()
}
