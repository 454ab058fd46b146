//! `tacho`: ingest, log, processor and admin port in one process, and the commands of an operator.
//!
//! The command line is read and checked as a whole by [`cli`]. Without a command [`run`] takes telemetry in until it is
//! told to end; [`commands`] has one module for each command. Which log is meant is the question of [`place`].

mod adapters;
mod address;
mod admin_file;
mod cli;
mod cluster;
mod commands;
mod demo;
mod hash_key;
mod place;
mod policy;
mod run;
#[cfg(test)]
mod scrape;

use commands::{control, derivations, prices, quarantine, read, topics};
use settings::process::{Failure, exit_code};
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = match cli::parse(std::env::args_os(), &place::Env::of_process()) {
        Ok(cli::Invocation::Run(options)) => run::run(*options),
        Ok(cli::Invocation::Read(options)) => read::run(&options),
        Ok(cli::Invocation::Topics(options)) => topics::run(&options),
        Ok(cli::Invocation::Control(options)) => control::run(&options),
        Ok(cli::Invocation::Prices(options)) => prices::run(&options),
        Ok(cli::Invocation::Derivations(options)) => derivations::run(&options),
        Ok(cli::Invocation::Quarantine(options)) => quarantine::run(&options),
        Err(cli::NothingToDo::Shown(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(cli::NothingToDo::Faults(faults)) => Err(Failure::Start(faults)),
    };
    exit_code("tacho", outcome)
}
