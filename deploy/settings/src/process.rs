//! How processes start listening and end: exit codes, faults in words, signals.

pub use processor_log::chain;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

/// Exit code of a start that can't be: wrong settings, a busy port, wrong topics (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;

/// Why a process ends with another code than 0.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The process could not start, and won't before somebody mends it: every fault that was found.
    Start(Vec<String>),
    /// The process failed while running, or something that it needs is not there now.
    Running(String),
}

/// The exit code of an outcome. What went wrong is written to stderr, each fault in one line.
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

/// A text with each run of white space, line ends included, as one space.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Listens on an address, which the setting or flag `name` gives. Where that is not possible, adds a fault.
pub fn bind(name: &str, address: SocketAddr, faults: &mut Vec<String>) -> Option<TcpListener> {
    let bound =
        TcpListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    bound
        .map_err(|error| {
            faults.push(format!(
                "{name}: can't listen on {address}: {error}; stop what uses it, or name another"
            ))
        })
        .ok()
}

/// Adds a fault for each pair of listeners that are to have one and the same address.
pub fn check_distinct(named: &[(&str, SocketAddr)], faults: &mut Vec<String>) {
    for (i, (a, first)) in named.iter().enumerate() {
        for (b, second) in &named[i + 1..] {
            if first == second && first.port() != 0 {
                faults.push(format!("{a} and {b} are both {first}: give each its own"));
            }
        }
    }
}

/// Does `work` at once, and again after each `period`; never resolves.
pub async fn repeat(period: Duration, work: fn()) {
    let mut every = tokio::time::interval(period);
    loop {
        every.tick().await;
        work();
    }
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
