//! Where this program meets its parts: it gives each kind of log the same shape, for ingest, workers and readers.

use bytes::Bytes;
use ingest::inbox::{self, Inbox};
use ingest::sink::kafka::{ConnectError, KafkaSink};
use ingest::sink::partition::murmur2_partition;
use ingest::sink::{RawRecord, Sink, SinkError};
use ingest::{ConnectionLimits, Pipeline, Policies, Protocols};
use processor::admin::OpenLog;
use processor::derivation::Derivation;
use processor::runner::Options;
use processor::view::View;
use processor::workers::{self, StartError, Workers};
use processor_log::cluster::Cluster;
use processor_log::embedded::{Embedded, Limits};
use processor_log::kafka::{KafkaConfig, KafkaLog, KafkaReader, SESSION_TIMEOUT, topics};
use processor_log::{LogError, ReadLog};
use schemas::id::TopicPartition;
use schemas::record::{HEADER_POLICY, HEADER_WALL, NewRecord};
use schemas::settings::Seed;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// Starts the workers, whose commits show in the view.
pub type StartWorkers = dyn FnOnce(&Arc<View>) -> Result<Workers, StartError> + Send;

/// An opened log, with everything that works on it.
pub struct Backend {
    /// Opens a handle for reading the log.
    pub open: Box<OpenLog>,
    /// The sink into which ingest writes.
    pub sink: Arc<AnySink>,
    /// Drains what other Kafka writers put into the inbox topics; none where the log has no inbox.
    pub drain: Option<Box<DrainInbox>>,
    /// Starts the workers.
    pub work: Box<StartWorkers>,
}

/// Starts to drain the inbox topics, under the settings of ingest and its privacy policies.
pub type DrainInbox = dyn FnOnce(ingest::Config, Arc<Policies>) -> std::io::Result<Inbox> + Send;

/// Why a log can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The directory is in use, holds something else, or its store can't be read.
    #[error(transparent)]
    Embedded(#[from] LogError),
    /// The log of a cluster can't be used.
    #[error("--kafka {bootstrap}")]
    Kafka {
        /// The addresses of the cluster.
        bootstrap: String,
        /// What is wrong.
        #[source]
        source: Box<ClusterError>,
    },
}

/// Why the log of a cluster can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The cluster does not answer, or its topics are not as they must be.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The producer of ingest can't be made.
    #[error(transparent)]
    Producer(#[from] ConnectError),
    /// There are no threads to make the producer of ingest.
    #[error(transparent)]
    Threads(#[from] std::io::Error),
}

impl ClusterError {
    /// The same error, with the flag and the addresses of the cluster before it.
    fn at(self, cluster: &Cluster) -> BackendError {
        BackendError::Kafka {
            bootstrap: cluster.bootstrap.clone(),
            source: Box::new(self),
        }
    }
}

/// How workers of a derivation work, with the defaults for everything else.
fn worker_options(derivation: &Derivation) -> Options {
    Options {
        ticks: derivation.ticks,
        derived_prefix: derivation.prefix.clone(),
        ..Options::default()
    }
}

/// Opens the embedded log in `dir`; `seed` holds the settings of a new one.
///
/// # Errors
/// Another process has the directory, it holds something else, or the store can't be read.
pub fn embedded(dir: &Path, seed: &Seed, derivation: &Derivation) -> Result<Backend, BackendError> {
    let log = Embedded::open_with(dir, seed, &derivation.prefix, Limits::default())?;
    let options = worker_options(derivation);
    let (reader, worker) = (Arc::clone(&log), log.handle());
    let seed = seed.clone();
    Ok(Backend {
        open: Box::new(move || Ok(Box::new(reader.handle()))),
        sink: Arc::new(AnySink::Embedded(log)),
        drain: None,
        work: Box::new(move |view| Workers::alone(worker, &seed, &options, view)),
    })
}

/// Opens the log on a cluster, and creates the topics that are missing; `seed` holds the settings of a new prefix.
///
/// # Errors
/// The cluster does not answer, or its topics are not as they must be.
pub fn kafka(cluster: &Cluster, seed: &Seed, derivation: &Derivation) -> Result<Backend, BackendError> {
    let seed = topics::prepare(cluster, seed).map_err(|error| ClusterError::Log(error).at(cluster))?;
    let config = workers::Config {
        cluster: cluster.clone(),
        group: format!("{}{GROUP}", cluster.derived_prefix),
        name: "0".to_owned(),
        is_static: true,
        session_timeout: SESSION_TIMEOUT,
        workers: 1,
        seed: seed.clone(),
        options: worker_options(derivation),
    };
    let sink = connect_sink(cluster, seed.raw_partitions).map_err(|error| error.at(cluster))?;
    let reading = cluster.clone();
    let (inbox, raw_partitions) = (cluster.clone(), seed.raw_partitions);
    let drain = move |config, policies| {
        let (others, session_timeout) = (Vec::new(), inbox::SESSION_TIMEOUT);
        Inbox::start(inbox::Settings {
            cluster: inbox,
            raw_partitions,
            others,
            config,
            policies,
            session_timeout,
        })
    };
    Ok(Backend {
        open: Box::new(move || Ok(Box::new(connect_reader(&reading)?))),
        sink: Arc::new(AnySink::Kafka(sink)),
        drain: Some(Box::new(drain)),
        work: Box::new(move |view| Workers::start(&config, view)),
    })
}

/// The name of the consumer group after the prefix; the transactional ids of workers begin with the same.
const GROUP: &str = "tacho";

fn connect_sink(cluster: &Cluster, raw_partitions: i32) -> Result<KafkaSink, ClusterError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(KafkaSink::connect(cluster, raw_partitions))?)
}

fn connect_reader(cluster: &Cluster) -> Result<KafkaReader, LogError> {
    KafkaReader::connect(cluster, &read_group(cluster))
}

/// The group id of clients that take no part in a group.
fn read_group(cluster: &Cluster) -> String {
    format!("{}{GROUP}-read", cluster.derived_prefix)
}

/// The log of a cluster for a command that reads.
///
/// # Errors
/// No broker answers.
pub fn kafka_reader(cluster: &Cluster) -> Result<Box<dyn ReadLog>, BackendError> {
    let log = connect_reader(cluster).map_err(|error| ClusterError::Log(error).at(cluster))?;
    Ok(Box::new(log))
}

/// The log of a cluster for a command that reads and appends, but takes no part in the consumer group.
///
/// # Errors
/// No broker answers.
pub fn kafka_log(cluster: &Cluster) -> Result<KafkaLog, BackendError> {
    KafkaLog::connect(KafkaConfig::reader(cluster, &read_group(cluster)))
        .map_err(|error| ClusterError::Log(error).at(cluster))
}

/// Serves OTLP over HTTP and gRPC, on one pipeline and under one connection limit, until `ending` says so.
pub async fn serve_ingest(
    config: ingest::Config,
    policies: Arc<Policies>,
    http: tokio::net::TcpListener,
    grpc: tokio::net::TcpListener,
    sink: Arc<AnySink>,
    ending: watch::Receiver<bool>,
) {
    let over = |mut ending: watch::Receiver<bool>| async move {
        // An error means that the sender is gone, and it lives until the process ends.
        let _ = ending.wait_for(|over| *over).await;
    };
    let limits = ConnectionLimits::new(&config);
    let pipeline = Pipeline::new(config, policies, sink);
    let grpc_protocols = Protocols::grpc(Arc::clone(&pipeline));
    tokio::join!(
        ingest::connection::listener::run(
            http,
            Protocols::http(pipeline),
            Arc::clone(&limits),
            over(ending.clone())
        ),
        ingest::connection::listener::run(grpc, grpc_protocols, limits, over(ending)),
    );
}

/// The sink into which ingest writes: the log that this process uses.
pub enum AnySink {
    /// The embedded log.
    Embedded(Arc<Embedded>),
    /// A cluster, through producers of its own.
    Kafka(KafkaSink),
}

impl Sink for AnySink {
    async fn append(&self, records: Vec<RawRecord>) -> Result<(), SinkError> {
        match self {
            Self::Embedded(log) => {
                let records = records.into_iter().map(|record| raw(log, record)).collect();
                match log.append_async(records).await {
                    Ok(outcome) => outcome.map(drop).map_err(sink_error),
                    Err(_) => Err(SinkError::Unavailable("the log's writer is gone".to_owned())),
                }
            }
            Self::Kafka(sink) => sink.append(records).await,
        }
    }

    fn ready(&self) -> bool {
        match self {
            Self::Embedded(_) => true,
            Self::Kafka(sink) => sink.ready(),
        }
    }
}

/// A raw record as the embedded log takes it: with its partition, and the wall time of this attempt in a header.
fn raw(log: &Embedded, record: RawRecord) -> NewRecord {
    let topic = record.signal.raw();
    let partition = murmur2_partition(record.key.as_bytes(), log.partitions(topic));
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let mut headers = vec![(HEADER_WALL.to_owned(), Bytes::from(since.as_millis().to_string()))];
    headers.extend(
        record
            .policy
            .map(|epoch| (HEADER_POLICY.to_owned(), Bytes::from(epoch.to_string()))),
    );
    NewRecord {
        to: TopicPartition { topic, partition },
        key: Some(record.key.into()),
        value: Some(record.value),
        headers,
    }
}

fn sink_error(error: LogError) -> SinkError {
    match error {
        LogError::Full { reason } => SinkError::Full(reason),
        other => SinkError::Unavailable(other.to_string()),
    }
}
