//! The few places where this program meets its parts: logs, ingest, the runner and the rows.

use bytes::Bytes;
use ingest::inbox::{self, Inbox};
use ingest::sink::kafka::KafkaSink;
use ingest::sink::partition::murmur2_partition;
use ingest::sink::{RawRecord, Sink, SinkError};
use ingest::{ConnectionLimits, Pipeline, Policies, Protocols};
use processor::admin::OpenLog;
use processor::log::embedded::Embedded;
use processor::log::kafka::{KafkaConfig, KafkaLog, SESSION_TIMEOUT, topics};
use processor::log::{Log, LogError};
use processor::runner::Options;
use processor::view::View;
use processor::workers::{self, Workers};
use schemas::cluster::Cluster;
use schemas::id::TopicPartition;
use schemas::record::{HEADER_POLICY, HEADER_WALL, NewRecord};
use schemas::settings::Seed;
use shell::process::chain;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// Starts the workers, whose commits show in the view.
pub type Work = Box<dyn FnOnce(&Arc<View>) -> Result<Workers, String> + Send>;

/// A log with everything that hangs on it.
pub struct Backend {
    /// Opens a handle for reading.
    pub open: Box<OpenLog>,
    /// Where ingest writes.
    pub sink: Arc<AnySink>,
    /// Drains what foreign writers put into the cluster's inbox; takes whether texts are kept, and the policy.
    pub drain: Option<Box<DrainInbox>>,
    /// The workers.
    pub work: Work,
}

/// Starts to drain an inbox.
pub type DrainInbox = dyn FnOnce(ingest::Config, Arc<Policies>) -> std::io::Result<Inbox> + Send;

/// The embedded log in `dir`; `seed` is for a new one.
pub fn embedded(dir: &Path, seed: &Seed) -> Result<Backend, String> {
    let log = Embedded::open(dir, seed).map_err(|error| chain(&error))?;
    let (reader, worker) = (Arc::clone(&log), log.handle());
    let seed = seed.clone();
    Ok(Backend {
        open: Box::new(move || Ok(Box::new(reader.handle()))),
        sink: Arc::new(AnySink::Embedded(log)),
        drain: None,
        work: Box::new(move |view| Workers::alone(worker, &seed, view).map_err(|error| chain(&error))),
    })
}

/// The log on a cluster; `seed` is for a new prefix.
pub fn kafka(cluster: &Cluster, seed: &Seed) -> Result<Backend, String> {
    let text = |error: LogError| format!("--kafka {}: {error}", cluster.bootstrap);
    let seed = topics::prepare(cluster, seed).map_err(text)?;
    let config = workers::Config {
        cluster: cluster.clone(),
        group: format!("{}{GROUP}", cluster.prefix),
        name: "0".to_owned(),
        is_static: true,
        session_timeout: SESSION_TIMEOUT,
        workers: 1,
        seed: seed.clone(),
        options: Options::default(),
    };
    let sink = connect_sink(cluster, seed.raw_partitions)?;
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
        work: Box::new(move |view| Workers::start(&config, view).map_err(|error| chain(&error))),
    })
}

/// The consumer group, and what the transactional id begins with.
const GROUP: &str = "tacho";

fn connect_sink(cluster: &Cluster, raw_partitions: i32) -> Result<KafkaSink, String> {
    let text = |error: &dyn std::fmt::Display| format!("--kafka {}: {error}", cluster.bootstrap);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| text(&error))?;
    runtime
        .block_on(KafkaSink::connect(cluster, raw_partitions))
        .map_err(|error| text(&error))
}

fn connect_reader(cluster: &Cluster) -> Result<KafkaLog, LogError> {
    KafkaLog::connect(KafkaConfig::reader(
        cluster,
        &format!("{}{GROUP}-read", cluster.prefix),
    ))
}

/// The topics of a cluster, for reading only.
pub fn kafka_reader(cluster: &Cluster) -> Result<Box<dyn Log>, String> {
    let log = connect_reader(cluster).map_err(|error| format!("--kafka {}: {error}", cluster.bootstrap))?;
    Ok(Box::new(log))
}

/// Serves OTLP over HTTP and gRPC, each on its port, until `ending` says so.
pub async fn serve_ingest(
    config: ingest::Config,
    policies: Arc<Policies>,
    http: tokio::net::TcpListener,
    grpc: tokio::net::TcpListener,
    sink: Arc<AnySink>,
    ending: watch::Receiver<bool>,
) {
    let over = |mut ending: watch::Receiver<bool>| async move {
        // The sender is gone only when the process ends.
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

/// A raw record as the embedded log takes it: its partition, and the wall time of this attempt.
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
