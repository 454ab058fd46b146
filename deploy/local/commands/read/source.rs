//! Where commands read records from: a cluster, the process that holds a data directory, or the directory itself.

use crate::adapters;
use crate::admin_file::{self, AdminFile};
use crate::place::Place;
use processor::admin::{ExtentReply, ReadReply};
use processor_log::cluster::Cluster;
use processor_log::embedded::Embedded;
use processor_log::{Batch, Extent, LogError, ReadLog};
use prost::Message;
use schemas::id::{Position, TopicPartition};
use schemas::settings::Seed;
use schemas::topic::Topic;
use settings::process::{Failure, chain};
use std::path::Path;
use std::time::Duration;

/// How long an answer of the running process may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer of the running process, bytes: 500 records of the largest message that a log takes are less.
const ANSWER_BYTES_MAX: u64 = 4 << 30;

/// Opens the log of a place for reading. The command line gives readers no [`Place::Temporary`].
///
/// # Errors
/// The cluster does not answer, or the directory holds no data or can't be read.
pub fn open(place: &Place) -> Result<Box<dyn ReadLog>, Failure> {
    match place {
        Place::Kafka(at) => cluster(at),
        Place::Directory { dir, derived_prefix } => directory(dir, derived_prefix),
        Place::Temporary => unreachable!("the command line gives readers a place that lasts"),
    }
}

/// Opens the log of a cluster for reading.
fn cluster(cluster: &Cluster) -> Result<Box<dyn ReadLog>, Failure> {
    adapters::kafka_reader(cluster).map_err(|error| Failure::Start(vec![chain(&error)]))
}

/// Opens the log in a data directory for reading: through the process that holds it, if it answers, else the store itself. That
/// process shows its own derivation, also where none is named.
///
/// # Errors
/// The directory holds no data, its store can't be read, or the process that holds it goes on with another derivation.
pub fn directory(dir: &Path, derived_prefix: &str) -> Result<Box<dyn ReadLog>, Failure> {
    if let Some(file) = AdminFile::read(dir) {
        let held = file.derived_prefix.clone();
        let mut remote = Remote::new(file);
        if remote.partitions(Topic::Control).is_ok() {
            if derived_prefix.is_empty() || derived_prefix == held {
                return Ok(Box::new(remote));
            }
            return Err(Failure::Start(vec![format!(
                "a tacho runs on {} with the derivation under {held:?}: end it to read another one",
                dir.display()
            )]));
        }
    }
    let empty = std::fs::read_dir(dir).map_or(true, |entries| {
        entries
            .flatten()
            .all(|entry| entry.file_name() == admin_file::NAME)
    });
    if empty {
        return Err(Failure::Start(vec![format!(
            "{} holds no data: start tacho there first, or give --data",
            dir.display()
        )]));
    }
    let log = Embedded::open_for_commands(dir, &Seed::shipped(), derived_prefix)
        .map_err(|error| Failure::Start(vec![chain(&error)]))?;
    Ok(Box::new(log.handle()))
}

/// The log of a running process, through its admin port.
pub struct Remote {
    file: AdminFile,
    agent: ureq::Agent,
}

impl Remote {
    /// The log of the process that wrote `file`.
    pub fn new(file: AdminFile) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER_TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .build();
        Self {
            file,
            agent: config.into(),
        }
    }

    fn get<M: Message + Default>(&self, path: &str, at: TopicPartition, more: &str) -> Result<M, LogError> {
        let url = format!(
            "http://{}{path}?topic={}&partition={}{more}",
            self.file.addr,
            at.topic.name(),
            at.partition
        );
        let down = |reason: String| LogError::unavailable(format!("{}: {reason}", self.file.addr));
        let request = self
            .agent
            .get(&url)
            .header("authorization", format!("Bearer {}", self.file.token));
        let mut answer = request.call().map_err(|error| down(error.to_string()))?;
        let status = answer.status().as_u16();
        let body = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .map_err(|error| down(error.to_string()))?;
        match status {
            200 => M::decode(body.as_slice()).map_err(|error| down(error.to_string())),
            410 => Err(LogError::OutOfRange {
                at,
                wanted: -1,
                start: String::from_utf8_lossy(&body).trim().parse().unwrap_or(0),
            }),
            _ => Err(down(format!(
                "status {status}: {}",
                String::from_utf8_lossy(&body).trim()
            ))),
        }
    }
}

impl ReadLog for Remote {
    fn partitions(&mut self, topic: Topic) -> Result<i32, LogError> {
        let reply: ExtentReply = self.get("/api/extent", TopicPartition { topic, partition: 0 }, "")?;
        Ok(reply.partitions)
    }

    fn extent(&mut self, at: TopicPartition) -> Result<Extent, LogError> {
        let reply: ExtentReply = self.get("/api/extent", at, "")?;
        Ok(Extent {
            start: Position(reply.start),
            end: Position(reply.end),
        })
    }

    fn read(&mut self, at: TopicPartition, from: Position, max: usize) -> Result<Batch, LogError> {
        let reply: ReadReply = self.get("/api/read", at, &format!("&from={}&max={max}", from.0))?;
        Ok(reply.into_batch(at))
    }
}
