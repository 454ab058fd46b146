//! The process `tacho-processor`: workers of a consumer group, and the admin port that shows what they committed.

mod settings;

use crate::admin::{Admin, router};
use crate::telemetry;
use crate::view::View;
use crate::workers::{Config, StartError, Workers};
use ::settings::flags::Common;
use ::settings::process::{Failure, bind, chain, exit_code, repeat, told_to_end};
use clap::Parser;
use processor_log::LogError;
use processor_log::cluster::Cluster;
use processor_log::kafka::topics;
use schemas::settings::Seed;
use settings::{Effective, Settings};
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// How often the process's own metrics need their upkeep ([`telemetry::upkeep`]).
const UPKEEP: Duration = Duration::from_secs(5);
/// How long the workers may take at the end to commit and to leave the group.
const WORKERS_END: Duration = Duration::from_secs(20);
/// How long threads that still run may take at the end.
const THREADS_END: Duration = Duration::from_millis(200);
/// What this process serves in place of the page, which only `tacho` serves.
const PAGE: &str = "<!doctype html><title>tacho-processor</title><a href=\"/metrics\">metrics</a>";

/// Derives sessions, windows and totals from the raw topics of a Kafka cluster.
///
/// Settings come from defaults, then the file, then environment variables such as TACHO_KAFKA__BOOTSTRAP_SERVERS, then
/// flags. Topics are made by `tacho topics apply`.
#[derive(Debug, Parser)]
#[command(name = "tacho-processor", version)]
struct Flags {
    #[command(flatten)]
    common: Common,
    /// Prefix of derived topics, instead of the prefix of all topics: kafka.derived_prefix.
    #[arg(long, value_name = "PREFIX")]
    derived_prefix: Option<String>,
    /// The consumer group: group.id.
    #[arg(long, value_name = "ID")]
    group: Option<String>,
    /// Who this process is in the group: group.name.
    #[arg(long)]
    name: Option<String>,
    /// static or dynamic: group.membership.
    #[arg(long)]
    membership: Option<String>,
    /// How many workers: group.workers.
    #[arg(long, value_name = "NUMBER")]
    workers: Option<String>,
}

/// Runs the process to its end.
#[must_use]
pub fn main() -> ExitCode {
    exit_code("tacho-processor", run())
}

fn run() -> Result<(), Failure> {
    let Some(flags) = ::settings::flags::of_process::<Flags>()? else {
        return Ok(());
    };
    let env = ::settings::layers::environment();
    let print_config = flags.common.print_config;
    let more = vec![
        ("kafka.derived_prefix", flags.derived_prefix),
        ("group.id", flags.group),
        ("group.name", flags.name),
        ("group.membership", flags.membership),
        ("group.workers", flags.workers),
    ];
    let host = settings::host_name(&env);
    let settings = Settings::read(&flags.common.sources(env, more), host).map_err(Failure::Start)?;
    if print_config {
        print!("{}", ::settings::layers::print(&settings.given));
        return Ok(());
    }
    settings.given.log.init();
    if settings.given.kafka.is_password_in_the_clear() {
        tracing::warn!("SASL PLAIN without TLS sends the password in the clear");
    }
    let mut faults = Vec::new();
    let Some(admin) = bind("admin.listen", settings.given.admin.listen.0, &mut faults) else {
        return Err(Failure::Start(faults));
    };
    telemetry::install().map_err(|error| Failure::Running(format!("own metrics: {error}")))?;
    let seed = checked_topics(&settings.cluster)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Running(format!("can't start threads: {error}")))?;
    let result = runtime.block_on(serve(settings, seed, admin));
    runtime.shutdown_timeout(THREADS_END);
    result.map_err(|error| Failure::Running(chain(&error)))
}

/// Checks the topics, and gives the seed of the log, or the one to be written to an empty control topic.
fn checked_topics(cluster: &Cluster) -> Result<Seed, Failure> {
    let failed = |error: LogError| match error {
        LogError::Unavailable { .. } => Failure::Running(chain(&error)),
        other => Failure::Start(vec![chain(&other)]),
    };
    let (seed, faults) = topics::inspect(cluster, &Seed::shipped()).map_err(failed)?;
    let refused = topics::refusals(faults);
    if refused.is_empty() {
        Ok(seed)
    } else {
        Err(Failure::Start(refused.iter().map(ToString::to_string).collect()))
    }
}

/// Why the process could not go on serving.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    /// The admin port can't be served.
    #[error("the admin port can't be served")]
    Admin(#[source] std::io::Error),
    /// The workers did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The thread that starts the workers panicked.
    #[error("the start of the workers panicked")]
    Panic(#[source] tokio::task::JoinError),
    /// Signals can't be received.
    #[error("signals can't be received")]
    Signal(#[source] std::io::Error),
    /// A worker ended by itself.
    #[error("{fault}")]
    Worker {
        /// Why the worker ended, with all causes.
        fault: String,
    },
}

/// Serves the admin port and runs the workers until the process is stopped or a worker ends.
async fn serve(settings: Effective, seed: Seed, admin: TcpListener) -> Result<(), ServeError> {
    let admin_at = admin.local_addr().map_err(ServeError::Admin)?;
    let about = format!("Kafka at {}", settings.cluster.bootstrap);
    let log_name = settings.log;
    let config = Config {
        cluster: settings.cluster,
        group: settings.group,
        name: settings.name,
        is_static: settings.is_static,
        session_timeout: settings.session_timeout,
        workers: settings.workers,
        seed,
        options: settings.options,
    };
    let view = Arc::new(View::of(&log_name));
    let (group, name, count) = (config.group.clone(), config.name.clone(), config.workers);
    let shown = Arc::clone(&view);
    // Connecting blocks until brokers answer.
    let started = tokio::task::spawn_blocking(move || Workers::start(&config, &shown)).await;
    let mut workers = started.map_err(ServeError::Panic)??;
    let routes = router(
        Admin {
            view,
            health: Arc::clone(&workers.health),
            ingest_ready: Box::new(|| true),
            open: Box::new(|| Err(LogError::unavailable("read topics with `tacho read --kafka`"))),
            // Without a token, nobody can read topics through this port.
            token: String::new(),
            page: PAGE,
            setup: String::new(),
            about,
        },
        admin_at.ip().is_loopback(),
    );
    let admin = tokio::net::TcpListener::from_std(admin).map_err(ServeError::Admin)?;
    let admin = tokio::spawn(axum::serve(admin, routes).into_future());
    tokio::spawn(repeat(UPKEEP, telemetry::upkeep));
    tracing::info!(admin = %admin_at, group, name, workers = count, "listening");

    let result = tokio::select! {
        signal = told_to_end() => signal.map_err(ServeError::Signal),
        fault = workers.failed() => Err(ServeError::Worker { fault }),
    };
    tracing::info!("ending: what is folded is committed, partitions are handed over");
    if let Ok(false) = tokio::task::spawn_blocking(move || workers.end(WORKERS_END)).await {
        tracing::warn!("a worker did not end in time; its partitions are restored from the last commit");
    }
    admin.abort();
    tracing::info!("ended");
    result
}
