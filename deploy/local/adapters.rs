//! Puts the parts together: a log, ingest over it, and a worker.

use crate::cli::Cluster;
use ingest::sink::{RawRecord, Sink, SinkError};
use ingest::{Config, KafkaSink, murmur2_partition};
use processor::admin::{OpenLog, Status};
use processor::log::embedded::Embedded;
use processor::log::kafka::{KafkaConfig, KafkaLog, topics};
use processor::log::{Log, LogError};
use processor::runner::{Options, Runner, SeedSource};
use processor::view::View;
use schemas::id::TopicPartition;
use schemas::record::{HEADER_WALL, NewRecord};
use schemas::settings::Seed;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Between two tries to fence earlier users of the log.
const RECOVER_PAUSE: Duration = Duration::from_millis(500);
/// The consumer group of the worker, after the prefix.
const GROUP: &str = "tachograph";
/// The one worker's `transactional.id`, after the prefix: a second process on the same topics fences the first.
const WORKER: &str = "tachograph-worker-0";

/// What the worker's thread needs.
pub struct Job {
    /// What it shows.
    pub view: Arc<View>,
    /// How it says that it is well.
    pub status: Arc<Status>,
    /// When to end.
    pub stop: Arc<AtomicBool>,
}

/// Runs the worker until it is told to stop; the error says why it could not go on.
pub type Work = Box<dyn FnOnce(&Job) -> Result<(), String> + Send>;

/// A log with everything that hangs on it.
pub struct Backend {
    /// Opens a handle for reading.
    pub open: Box<OpenLog>,
    /// Where ingest writes.
    pub sink: Arc<AnySink>,
    /// The worker.
    pub work: Work,
}

/// The embedded log in `dir`; `seed` is for a new one.
pub fn embedded(dir: &Path, seed: &Seed) -> Result<Backend, String> {
    let log = Embedded::open(dir, seed).map_err(|error| chain(&error))?;
    let (reader, worker) = (Arc::clone(&log), log.handle());
    let seed = seed.clone();
    Ok(Backend {
        open: Box::new(move || Ok(Box::new(reader.handle()))),
        sink: Arc::new(AnySink::Embedded(log)),
        work: Box::new(move |job| work(worker, seed, job)),
    })
}

/// The log on a cluster; `seed` is for a new prefix. Creates the topics that are missing.
pub fn kafka(cluster: &Cluster, seed: &Seed) -> Result<Backend, String> {
    let Cluster { bootstrap, prefix } = cluster;
    let fault = |what: String| format!("--kafka {bootstrap}: {what}");
    let seed = topics::prepare(bootstrap, prefix, seed).map_err(|error| fault(chain(&error)))?;
    let config = KafkaConfig {
        bootstrap: bootstrap.clone(),
        prefix: prefix.clone(),
        group: format!("{prefix}{GROUP}"),
        transactional_id: Some(format!("{prefix}{WORKER}")),
    };
    let worker = KafkaLog::connect(config).map_err(|error| fault(chain(&error)))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| fault(chain(&error)))?;
    let sink = runtime.block_on(KafkaSink::connect(bootstrap, prefix, seed.raw_partitions)).map_err(|error| fault(chain(&error)))?;
    let reader = cluster.clone();
    Ok(Backend {
        open: Box::new(move || open_reader(&reader)),
        sink: Arc::new(AnySink::Kafka(sink)),
        work: Box::new(move |job| work(worker, seed, job)),
    })
}

/// The topics of a cluster, for reading only.
pub fn kafka_reader(cluster: &Cluster) -> Result<Box<dyn Log>, String> {
    open_reader(cluster).map_err(|error| format!("--kafka {}: {}", cluster.bootstrap, chain(&error)))
}

fn open_reader(cluster: &Cluster) -> Result<Box<dyn Log>, LogError> {
    let Cluster { bootstrap, prefix } = cluster.clone();
    let group = format!("{prefix}{GROUP}-read");
    Ok(Box::new(KafkaLog::connect(KafkaConfig { bootstrap, prefix, group, transactional_id: None })?))
}

fn work(mut log: impl Log, seed: Seed, job: &Job) -> Result<(), String> {
    // Fences whoever had the log before, so that nothing it left open can be committed behind our back.
    while let Err(error) = log.recover() {
        tracing::warn!(%error, "the log does not take this worker yet");
        job.status.beat();
        std::thread::sleep(RECOVER_PAUSE);
        if job.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
    let mut runner = Runner::new(log, SeedSource(seed), Arc::clone(&job.view), Arc::clone(&job.status), Options::default());
    runner.run(&job.stop).map_err(|error| chain(&error))
}

/// Serves OTLP over HTTP until `shutdown` resolves.
pub async fn serve_ingest(
    keep_text: bool,
    listener: tokio::net::TcpListener,
    sink: Arc<AnySink>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), String> {
    ingest::serve(Config { keep_text, ..Config::default() }, listener, sink, shutdown).await.map_err(|error| chain(&error))
}

/// Where ingest writes: the log that this process uses.
pub enum AnySink {
    /// The embedded one.
    Embedded(Arc<Embedded>),
    /// A cluster.
    Kafka(KafkaSink),
}

impl Sink for AnySink {
    async fn append(&self, records: Vec<RawRecord>) -> Result<(), SinkError> {
        match self {
            Self::Kafka(sink) => sink.append(records).await,
            Self::Embedded(log) => {
                let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis()).to_string();
                let to_log = |record: RawRecord| NewRecord {
                    to: TopicPartition {
                        topic: record.topic,
                        partition: murmur2_partition(record.key.as_bytes(), log.partitions(record.topic)),
                    },
                    key: Some(record.key.into_bytes().into()),
                    value: Some(record.value),
                    headers: vec![(HEADER_WALL.to_owned(), wall.clone().into_bytes().into())],
                };
                let answer = log.append_async(records.into_iter().map(to_log).collect());
                match answer.await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(LogError::Full { reason })) => Err(SinkError::Full(reason)),
                    Ok(Err(error)) => Err(SinkError::Unavailable(chain(&error))),
                    Err(_) => Err(SinkError::Unavailable("the log is closed".to_owned())),
                }
            }
        }
    }

    fn ready(&self) -> bool {
        match self {
            Self::Kafka(sink) => sink.ready(),
            Self::Embedded(_) => true,
        }
    }
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
