//! `tacho`: everything in one process. Takes OpenTelemetry in, derives from it, and shows what it derived.

mod adapters;
mod admin_file;
mod cli;
mod demo;
mod read;
mod run;
#[cfg(test)]
mod scrape;
mod setup;
mod show;

use std::process::ExitCode;

/// Exit code of a start that can't be: wrong flags, a busy port, a locked or foreign data directory (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let outcome = match cli::parse(std::env::args_os(), &cli::Env::of_process()) {
        Ok(cli::Action::Run(options)) => run::run(*options),
        Ok(cli::Action::Read(options)) => read::run(&options),
        Err(cli::Refused::Shown(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(cli::Refused::Faults(faults)) => Err(Failure::Start(faults)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Start(faults)) => {
            eprintln!("tacho: {}", one_line(&faults.join("; ")));
            ExitCode::from(EXIT_USAGE)
        }
        Err(Failure::Running(fault)) => {
            eprintln!("tacho: {}", one_line(&fault));
            ExitCode::FAILURE
        }
    }
}

/// Why the process ends with another code than 0.
#[derive(Debug)]
pub enum Failure {
    /// It could not start: every fault that was found.
    Start(Vec<String>),
    /// It failed while running.
    Running(String),
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
