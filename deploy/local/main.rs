//! `tacho`: everything in one process. Takes OpenTelemetry in, derives from it, and shows what it derived.

mod adapters;
mod admin_file;
mod cli;
mod cluster;
mod commands;
mod demo;
mod hash_key;
mod policy;
mod run;
#[cfg(test)]
mod scrape;

use commands::{control, quarantine, read, topics};
use shell::process::{Failure, exit_code};
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = match cli::parse(std::env::args_os(), &cli::Env::of_process()) {
        Ok(cli::Action::Run(options)) => run::run(*options),
        Ok(cli::Action::Read(options)) => read::run(&options),
        Ok(cli::Action::Topics(options)) => topics::run(&options),
        Ok(cli::Action::Control(options)) => control::run(&options),
        Ok(cli::Action::Quarantine(options)) => quarantine::run(&options),
        Err(cli::Refused::Shown(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(cli::Refused::Faults(faults)) => Err(Failure::Start(faults)),
    };
    exit_code("tacho", outcome)
}
