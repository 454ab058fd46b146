//! Runs the process `tacho-ingest`: OTLP in, raw topics of a cluster out.

mod deferred;
mod ports;
mod serve;
mod settings;

use crate::control::remembered::Remembered;
use crate::sink::spool::{SpoolError, Taken};
use crate::telemetry;
use ::settings::flags::Common;
use ::settings::process::{Failure, chain, exit_code};
use clap::Parser;
use deferred::Destination;
use ports::Ports;
use processor_log::cluster::Cluster;
pub use settings::PrivacySection;
use settings::{Effective, Settings};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How long threads that still work may go on at the end.
const THREADS_END: Duration = Duration::from_millis(200);

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
    let Some(flags) = ::settings::flags::of_process::<Flags>()? else {
        return Ok(());
    };
    let env = ::settings::layers::environment();
    let print_config = flags.common.print_config;
    let keep_text = flags.keep_text.then(|| "true".to_owned());
    let more = vec![
        ("http.listen", flags.http),
        ("grpc.listen", flags.grpc),
        ("keep_text", keep_text),
    ];
    let settings = Settings::read(&flags.common.sources(env, more)).map_err(Failure::Start)?;
    if print_config {
        print!("{}", ::settings::layers::print(&settings.given));
        return Ok(());
    }
    settings.given.log.init();
    if settings.given.kafka.is_password_in_the_clear() {
        tracing::warn!("SASL PLAIN without TLS sends the password in the clear");
    }
    let destinations = destinations(&settings)
        .map_err(|errors| Failure::Start(errors.iter().map(DestinationError::to_string).collect()))?;
    let ports = Ports::bind(&settings.given).map_err(Failure::Start)?;
    telemetry::install().map_err(|error| Failure::Running(format!("metrics: {error}")))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(serving_threads())
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::Running(format!("can't start threads: {error}")))?;
    let result = runtime.block_on(serve::serve(settings, ports, destinations));
    runtime.shutdown_timeout(THREADS_END);
    result.map_err(|error| Failure::Running(chain(&error)))
}

/// How many threads serve connections: half of the cores. The Kafka client has threads of its own, and so has the work on large
/// bodies; more threads would mostly wake each other.
#[must_use]
pub fn serving_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

/// Why the spool of a prefix can't be opened.
#[derive(Debug, thiserror::Error)]
enum DestinationError {
    /// The directory can't be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// Records wait in the directory for topics of another prefix.
    #[error(
        "spool.directory: {} holds records of a process with another kafka.prefix: start that once more",
        .directory.display()
    )]
    OtherPrefix { directory: PathBuf },
}

/// The prefixes that records go to: the main one, then those of the routes. Each has a spool of its own, where there are
/// spools.
fn destinations(settings: &Effective) -> Result<Vec<Destination>, Vec<DestinationError>> {
    let main = &settings.cluster;
    let others = settings.limits.routes.prefixes().iter().map(|prefix| Cluster {
        prefix: prefix.clone(),
        ..main.clone()
    });
    let (mut destinations, mut errors) = (Vec::new(), Vec::new());
    for cluster in std::iter::once(main.clone()).chain(others) {
        let directory = settings.given.spool.directory.as_ref().map(|directory| {
            if cluster.prefix == main.prefix {
                directory.clone()
            } else {
                directory.join(format!("prefix-{}", cluster.prefix))
            }
        });
        let spool = directory
            .map(|directory| open_spool(&directory, settings.given.spool.bytes_max.0, &cluster.prefix))
            .transpose();
        match spool {
            Ok(spool) => destinations.push(Destination { cluster, spool }),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok(destinations)
    } else {
        Err(errors)
    }
}

/// Takes the directory of a spool. Records that wait in it must be for topics of that prefix.
fn open_spool(directory: &Path, bytes_max: u64, prefix: &str) -> Result<Taken, DestinationError> {
    let taken = Taken::open(directory, bytes_max)?;
    if taken.records() > 0 && Remembered::is_of_another(directory, prefix) {
        return Err(DestinationError::OtherPrefix {
            directory: directory.to_owned(),
        });
    }
    Ok(taken)
}
