//! How processes end: exit codes, faults in words, signals.

use std::error::Error;
use std::process::ExitCode;

/// Exit code of a start that can't be: wrong settings, a busy port, wrong topics (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;

/// Why a process ends with another code than 0.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// It could not start, and won't before somebody mends it: every fault that was found.
    Start(Vec<String>),
    /// It failed while running, or something that it needs is not there now.
    Running(String),
}

/// The exit code; what went wrong is told on stderr, each fault in one line.
#[must_use]
pub fn exit_code(process: &str, outcome: Result<(), Failure>) -> ExitCode {
    let (faults, code) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Start(faults)) => (faults, ExitCode::from(EXIT_USAGE)),
        Err(Failure::Running(fault)) => (vec![fault], ExitCode::FAILURE),
    };
    for fault in faults {
        eprintln!("{process}: {}", one_line(&fault));
    }
    code
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An error with its causes, in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Resolves when the process is told to end: SIGINT or SIGTERM.
///
/// # Errors
/// The signals can't be listened for.
pub async fn told_to_end() -> std::io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt,
        _ = terminate.recv() => Ok(()),
    }
}
