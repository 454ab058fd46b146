//! A `tacho` that runs: it binds, opens and starts everything, waits to be told to end, and ends it in order.

pub mod greeting;
pub mod options;
mod start;

use crate::admin_file::Written;
use crate::{adapters, address, demo, policy};
use ingest::Policies;
use options::RunOptions;
use processor::admin::{Admin, router};
use processor::telemetry;
use processor::view::View;
use processor::workers::{StartError, Workers};
use processor_log::LogError;
use settings::log::LogSection;
use settings::process::{Failure, chain, told_to_end};
use start::{Started, start};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The page with its style and script, in one file.
const PAGE: &str = include_str!("page.html");
/// How long requests under way may take to end.
const REQUESTS_END_MAX: Duration = Duration::from_millis(800);
/// How long the inbox may take to finish its batch.
const INBOX_END_MAX: Duration = Duration::from_millis(400);
/// How long the worker may take to finish its commit.
const WORKER_END_MAX: Duration = Duration::from_millis(1200);
/// How long after the signal the process ends, whatever hangs. All that was answered with 200 is durable anyway.
const PROCESS_END_MAX: Duration = Duration::from_millis(2600);
/// How long the runtime may take to stop its threads.
const RUNTIME_END_MAX: Duration = Duration::from_millis(100);
/// How often the process's own histograms are folded.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Why a process that could start does not go on.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    /// A listener or a thread can't be had.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// The recorder of the process's own metrics can't be installed.
    #[error("own metrics")]
    OwnMetrics(#[source] Box<dyn Error + Send + Sync>),
    /// The log can't be opened for reading.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The workers can't be started.
    #[error(transparent)]
    Workers(#[from] StartError),
    /// A worker met what it can't mend; the text says what, where and the way out.
    #[error("{fault}")]
    Worker { fault: String },
    /// Ingest ended although nobody told it to.
    #[error("ingest ended by itself")]
    IngestEnded,
    /// Ingest panicked.
    #[error("ingest")]
    IngestPanicked(#[source] tokio::task::JoinError),
}

/// Runs until Ctrl-C or SIGTERM.
///
/// # Errors
/// The process can't start, or something that it needs fails while it runs.
pub fn run(options: RunOptions) -> Result<(), Failure> {
    LogSection::by_hand().init();
    let mut started = start(options).map_err(Failure::Start)?;
    let temporary = started.temporary.take();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Start(vec![format!("can't start threads: {error}")]))?;
    let result = runtime.block_on(serve(started, temporary.as_ref().map(tempfile::TempDir::path)));
    runtime.shutdown_timeout(RUNTIME_END_MAX);
    // The temporary directory goes last: until the runtime has ended, the log in it is open.
    drop(temporary);
    result.map_err(|error| Failure::Running(chain(&error)))
}

async fn serve(started: Started, temporary: Option<&Path>) -> Result<(), ServeError> {
    let mut running = Running::begin(started, temporary)?;
    let result = tokio::select! {
        signal = told_to_end() => signal.map_err(ServeError::System),
        fault = running.workers.failed() => Err(ServeError::Worker { fault }),
        ended = &mut running.ingest => Err(match ended {
            Ok(()) => ServeError::IngestEnded,
            Err(panic) => ServeError::IngestPanicked(panic),
        }),
    };
    end_in_time();
    eprintln!("tacho: ending");
    running.end().await;
    result
}

/// Everything that works while the process runs.
struct Running {
    workers: Workers,
    ingest: JoinHandle<()>,
    admin: JoinHandle<std::io::Result<()>>,
    /// Drains the inbox topics of a cluster.
    inbox: Option<ingest::inbox::Inbox>,
    /// Tells all tasks to end.
    end: watch::Sender<bool>,
    /// Tells the replays of the demo to end.
    demo_stop: Arc<AtomicBool>,
    /// The file `admin.json`, removed when this is dropped.
    written: Option<Written>,
}

impl Running {
    /// Starts workers, admin port, ingest, inbox and demo, in this order, and greets.
    fn begin(started: Started, temporary: Option<&Path>) -> Result<Self, ServeError> {
        let Started {
            options,
            http,
            grpc,
            admin,
            backend,
            admin_file,
            written,
            about,
            ..
        } = started;
        let (http_at, admin_at) = (http.local_addr()?, admin.local_addr()?);
        telemetry::install().map_err(|error| ServeError::OwnMetrics(error.into()))?;
        ingest::telemetry::describe();
        let view = Arc::new(View::of(&options.derivation.name));
        let workers = (backend.work)(&view)?;
        let demo_stop = Arc::new(AtomicBool::new(false));
        let (end, ending) = watch::channel(false);

        let policies = Arc::new(Policies::default());
        let control = (backend.open)()?;
        tokio::spawn(policy::follow(control, Arc::clone(&policies), ending.clone()));
        let setup = greeting::codex_config(http_at);
        let (sink, read_policies) = (Arc::clone(&backend.sink), Arc::clone(&policies));
        let shown = Admin {
            view,
            health: Arc::clone(&workers.health),
            ingest_ready: Box::new(move || {
                ingest::sink::Sink::ready(sink.as_ref()) && read_policies.is_read()
            }),
            open: backend.open,
            token: admin_file.token,
            page: PAGE,
            setup: setup.clone(),
            about: about.clone(),
        };
        let admin = serve_admin(shown, TcpListener::from_std(admin)?, ending.clone())?;
        let config = ingest::Config {
            keep_text: options.keep_text,
            hash_key: options.hash_key.clone(),
            ..ingest::Config::default()
        };
        let ingest = tokio::spawn(adapters::serve_ingest(
            config.clone(),
            Arc::clone(&policies),
            TcpListener::from_std(http)?,
            TcpListener::from_std(grpc)?,
            backend.sink,
            ending.clone(),
        ));
        tokio::spawn(upkeep(ending));
        let drain = backend.drain;
        let inbox = drain
            .map(|drain| drain(config, Arc::clone(&policies)))
            .transpose()?;
        greeting::greet(&options, &setup, admin_at, &about, temporary);
        if options.demo {
            demo::start(address::reachable(http_at), &policies, &demo_stop)?;
        }
        Ok(Self {
            workers,
            ingest,
            admin,
            inbox,
            end,
            demo_stop,
            written,
        })
    }

    /// Ends everything in order. Ingest ends first, so that the worker's last commit has what was just answered; that is
    /// durable in any case.
    async fn end(mut self) {
        self.demo_stop.store(true, Ordering::Relaxed);
        let _ = self.end.send(true);
        if !self.ingest.is_finished() {
            let _ = tokio::time::timeout(REQUESTS_END_MAX, &mut self.ingest).await;
        }
        let (inbox, workers) = (self.inbox, self.workers);
        let drained = tokio::task::spawn_blocking(move || inbox.is_none_or(|inbox| inbox.end(INBOX_END_MAX)));
        if let Ok(false) = drained.await {
            tracing::warn!("the inbox did not end in time; what is not committed is drained again");
        }
        if let Ok(false) = tokio::task::spawn_blocking(move || workers.end(WORKER_END_MAX)).await {
            tracing::warn!("the worker did not end in time; it will restore at the next start");
        }
        self.admin.abort();
        drop(self.written);
    }
}

/// Serves the admin port until the process is to end.
fn serve_admin(
    shown: Admin,
    listener: TcpListener,
    ending: watch::Receiver<bool>,
) -> std::io::Result<JoinHandle<std::io::Result<()>>> {
    let routes = router(shown, listener.local_addr()?.ip().is_loopback());
    let serving = axum::serve(listener, routes).with_graceful_shutdown(over(ending));
    Ok(tokio::spawn(serving.into_future()))
}

/// Resolves when the process is to end.
async fn over(mut ending: watch::Receiver<bool>) {
    // An error means that the sender is gone, and it lives until the process ends.
    let _ = ending.wait_for(|over| *over).await;
}

/// Folds the process's own histograms until the process is to end.
async fn upkeep(ending: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(UPKEEP_EVERY);
    while !*ending.borrow() {
        every.tick().await;
        telemetry::upkeep();
    }
}

/// Ends the process at [`PROCESS_END_MAX`], whatever hangs.
fn end_in_time() {
    std::thread::spawn(|| {
        std::thread::sleep(PROCESS_END_MAX);
        eprintln!("tacho: ended without waiting longer; what was answered with 200 is kept");
        std::process::exit(0);
    });
}

#[cfg(test)]
mod tests {
    use super::PAGE;

    #[test]
    fn page_asks_nobody_but_us_and_sets_text_only() {
        for part in [
            "http:",
            "https:",
            "//cdn",
            " src=",
            "@import",
            "url(",
            "innerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!PAGE.contains(part), "the page contains {part}");
        }
        assert_eq!(PAGE.matches("nonce=\"NONCE\"").count(), 2);
        assert_eq!(PAGE.matches("NONCE").count(), 2);
        assert_eq!(PAGE.matches("<link").count(), 1);
        assert!(PAGE.contains("<link rel=\"icon\" href=\"data:,\">"));
    }
}
