//! The process `tacho-ingest`: OTLP in, raw topics of a cluster out.

mod late;
mod settings;

use crate::connection::listener::{self as serve, Gate};
use crate::connection::protocols::Entrance;
use crate::control::policy::Policies;
use crate::control::remembered::Remembered;
use crate::inbox::{self, Inbox};
use crate::prepare::config::Config;
use crate::prepare::pipeline::Door;
use crate::sink::spool::Taken;
use crate::telemetry;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use clap::Parser;
use late::{Late, Place};
use schemas::cluster::Cluster;
pub use settings::PrivacySection;
use settings::{Effective, Settings};
use shell::flags::Common;
use shell::process::{Failure, bind, exit_code, repeat, told_to_end};
use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often histograms are folded.
const UPKEEP: Duration = Duration::from_secs(5);
/// What threads that still work get at the end.
const THREADS_END: Duration = Duration::from_millis(200);
/// How long the inbox may take to finish its batch at the end.
const INBOX_END: Duration = Duration::from_secs(4);
/// How long the producer and the spool may take at the end.
const SINK_END: Duration = Duration::from_secs(4);
/// The exposition's content type.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Takes OpenTelemetry in and writes it to the raw topics of a Kafka cluster.
///
/// Settings come from defaults, then the file, then environment variables such as TACHO_KAFKA__BOOTSTRAP_SERVERS, then
/// flags. Topics are made by `tacho topics apply`.
#[derive(Debug, Parser)]
#[command(name = "tacho-ingest", version)]
struct Flags {
    #[command(flatten)]
    common: Common,
    /// Where OTLP over HTTP comes in: http.listen. The same address as --grpc: both on one port.
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Where OTLP over gRPC comes in: grpc.listen.
    #[arg(long, value_name = "ADDR")]
    grpc: Option<String>,
    /// Keeps prompts, commands and outputs in the clear, whatever the privacy policy says: keep_text. They hold secrets.
    #[arg(long)]
    keep_text: bool,
}

/// Runs the process to its end.
#[must_use]
pub fn main() -> ExitCode {
    exit_code("tacho-ingest", run())
}

fn run() -> Result<(), Failure> {
    let Some(flags) = shell::flags::of_process::<Flags>()? else {
        return Ok(());
    };
    let env = shell::layers::environment();
    let print_config = flags.common.print_config;
    let keep_text = flags.keep_text.then(|| "true".to_owned());
    let more = vec![
        ("http.listen", flags.http),
        ("grpc.listen", flags.grpc),
        ("keep_text", keep_text),
    ];
    let settings = Settings::read(&flags.common.sources(env, more)).map_err(Failure::Start)?;
    if print_config {
        print!("{}", shell::layers::print(&settings.given));
        return Ok(());
    }
    settings.given.log.init();
    if settings.given.kafka.is_password_in_the_clear() {
        tracing::warn!("SASL PLAIN without TLS sends the password in the clear");
    }
    let places = places(&settings).map_err(Failure::Start)?;
    let ports = Ports::bind(&settings.given).map_err(Failure::Start)?;
    telemetry::install().map_err(|error| Failure::Running(format!("metrics: {error}")))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(serving_threads())
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::Running(format!("can't start threads: {error}")))?;
    let result = runtime.block_on(attend(settings, ports, places));
    runtime.shutdown_timeout(THREADS_END);
    result.map_err(Failure::Running)
}

/// Threads that serve connections: half of the cores. The Kafka client has threads of its own, and so has the work on large
/// bodies; more would mostly wake each other.
#[must_use]
pub fn serving_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

/// Where records go: to the main prefix, then to those of the routes. Each has a spool of its own, where there is one.
fn places(settings: &Effective) -> Result<Vec<Place>, Vec<String>> {
    let (main, mut faults) = (&settings.cluster, Vec::new());
    let others = settings.limits.routes.prefixes().iter().map(|prefix| Cluster {
        prefix: prefix.clone(),
        ..main.clone()
    });
    let places =
        std::iter::once(main.clone()).chain(others).filter_map(|cluster| {
            let directory = settings.given.spool.directory.as_ref().map(|directory| {
                match cluster.prefix == main.prefix {
                    true => directory.clone(),
                    false => directory.join(format!("prefix-{}", cluster.prefix)),
                }
            });
            let spool = directory
                .map(|directory| open_spool(&directory, settings.given.spool.bytes_max.0, &cluster.prefix))
                .transpose();
            spool
                .map_err(|fault| faults.push(fault))
                .ok()
                .map(|spool| Place { cluster, spool })
        });
    let places = places.collect();
    if faults.is_empty() {
        Ok(places)
    } else {
        Err(faults)
    }
}

/// Takes a spool's directory. Records that wait in it are for one prefix.
fn open_spool(directory: &Path, bytes_max: u64, prefix: &str) -> Result<Taken, String> {
    let taken = Taken::open(directory, bytes_max).map_err(|error| error.to_string())?;
    if taken.records() > 0 && Remembered::is_of_another(directory, prefix) {
        let directory = directory.display();
        return Err(format!(
            "spool.directory: {directory} holds records of a process with another kafka.prefix: start that once more"
        ));
    }
    Ok(taken)
}

/// The listeners.
struct Ports {
    http: TcpListener,
    /// None: gRPC comes in where HTTP does.
    grpc: Option<TcpListener>,
    admin: TcpListener,
}

impl Ports {
    fn bind(settings: &Settings) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let http = bind("http.listen", settings.http.listen.0, &mut faults);
        let grpc = (!settings.is_one_port())
            .then(|| bind("grpc.listen", settings.grpc.listen.0, &mut faults))
            .flatten();
        let admin = bind("admin.listen", settings.admin.listen.0, &mut faults);
        match (http, admin) {
            (Some(http), Some(admin)) if faults.is_empty() => Ok(Self { http, grpc, admin }),
            _ => Err(faults),
        }
    }
}

async fn attend(settings: Effective, ports: Ports, places: Vec<Place>) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let (end, ending) = watch::channel(false);
    let sink = Arc::new(Late::new(ending.clone()));
    let http_at = ports.http.local_addr().map_err(text)?;
    let grpc_at = ports
        .grpc
        .as_ref()
        .map_or(Ok(http_at), TcpListener::local_addr)
        .map_err(text)?;
    let admin_at = ports.admin.local_addr().map_err(text)?;
    let admin = tokio::net::TcpListener::from_std(ports.admin).map_err(text)?;
    let admin = tokio::spawn(axum::serve(admin, admin_router(Arc::clone(&sink))).into_future());
    let limits = settings.limits;
    let policies = Arc::new(Policies::default());
    let door = Door::new(limits.clone(), Arc::clone(&policies), Arc::clone(&sink));
    let http = tokio::net::TcpListener::from_std(ports.http).map_err(text)?;
    let gate = Gate::new(&limits);
    let mut doors = match ports.grpc {
        None => tokio::spawn(serve::run(http, Entrance::both(door), gate, over(ending.clone()))),
        Some(grpc) => {
            let grpc = tokio::net::TcpListener::from_std(grpc).map_err(text)?;
            let grpc = serve::run(
                grpc,
                Entrance::grpc(Arc::clone(&door)),
                Arc::clone(&gate),
                over(ending.clone()),
            );
            let http = serve::run(http, Entrance::http(door), gate, over(ending.clone()));
            tokio::spawn(async move {
                tokio::join!(http, grpc);
            })
        }
    };
    tracing::info!(http = %http_at, grpc = %grpc_at, admin = %admin_at, kafka = settings.cluster.bootstrap, "listening");
    let behind = tokio::spawn(behind(
        settings.given,
        settings.cluster,
        limits,
        policies,
        Arc::clone(&sink),
        ending,
        places,
    ));
    tokio::spawn(repeat(UPKEEP, telemetry::upkeep));

    let ended = tokio::select! {
        signal = told_to_end() => {
            signal.map_err(text)?;
            None
        }
        ended = &mut doors => Some(ended),
    };
    tracing::info!("ending: open requests are finished");
    // Readiness goes first, and with it new connections.
    let _ = end.send(true);
    let ended = match ended {
        Some(Ok(())) => Err("a door closed by itself".to_owned()),
        Some(Err(panic)) => Err(panic.to_string()),
        // Bounded: each door gives open requests five seconds.
        None => doors.await.map_err(|panic| panic.to_string()),
    };
    // Ended by itself, or by what it says in the log.
    let _ = behind.await;
    let ending = tokio::task::spawn_blocking(move || sink.end());
    if tokio::time::timeout(SINK_END, ending).await.is_err() {
        tracing::warn!("the sink did not end in time; what is spooled is drained by the next process");
    }
    admin.abort();
    tracing::info!("ended");
    ended
}

/// What is behind the doors: the connection to the cluster, and once that is there the control topic and the inbox, until
/// the end.
async fn behind(
    given: Settings,
    cluster: Cluster,
    config: Config,
    policies: Arc<Policies>,
    sink: Arc<Late>,
    ending: watch::Receiver<bool>,
    places: Vec<Place>,
) {
    let (control, others) = tokio::select! {
        connected = late::connect(places, &policies, &sink) => connected,
        () = over(ending.clone()) => return,
    };
    let raw_partitions = control.raw_partitions;
    let until = ending.clone();
    if let Err(error) = std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || control.follow(&until))
    {
        tracing::error!(%error, "the control topic is not followed: there is no thread for it");
    }
    if !given.inbox.enabled {
        return;
    }
    let session_timeout = given.inbox.session_timeout.0;
    let inbox = Inbox::start(inbox::Settings {
        cluster,
        raw_partitions,
        others,
        config,
        policies,
        session_timeout,
    });
    match inbox {
        Ok(inbox) => {
            over(ending).await;
            if let Ok(false) = tokio::task::spawn_blocking(move || inbox.end(INBOX_END)).await {
                tracing::warn!("the inbox did not end in time; what is not committed is drained again");
            }
        }
        Err(error) => tracing::error!(%error, "the inbox is not drained: there is no thread for it"),
    }
}

/// Resolves when the process is to end.
async fn over(mut ending: watch::Receiver<bool>) {
    // The sender is gone only when the process ends.
    let _ = ending.wait_for(|over| *over).await;
}

fn admin_router(sink: Arc<Late>) -> Router {
    let spool = Arc::clone(&sink);
    let metrics = move || async move {
        spool.observe();
        ([(header::CONTENT_TYPE, METRICS_TYPE)], telemetry::render()).into_response()
    };
    let ready = move || async move {
        match sink.not_ready() {
            None => (StatusCode::OK, "ok\n".to_owned()),
            Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        }
    };
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}
