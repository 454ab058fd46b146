//! The workers of a process: threads, each with its own consumer, producer and tasks.

use crate::runner::{Options, Runner, SeedSource};
use crate::status::{Health, Status};
use crate::view::View;
use processor_log::LogError;
use processor_log::cluster::Cluster;
use processor_log::kafka::{KafkaConfig, KafkaLog, Member};
use schemas::settings::Seed;
use settings::process::chain;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Most workers of one process.
pub const WORKERS_MAX: usize = 64;

/// Who the workers are, and how they work.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster; its topics are there and checked.
    pub cluster: Cluster,
    /// The consumer group, prefix included.
    pub group: String,
    /// The name of this process, unique in the group and stable over restarts: the pod's.
    pub name: String,
    /// Whether the group remembers a member by name, so that a restart moves no partition.
    pub is_static: bool,
    /// A member that is silent for so long loses its partitions.
    pub session_timeout: Duration,
    /// How many workers, at most [`WORKERS_MAX`].
    pub workers: usize,
    /// Written to an empty control topic.
    pub seed: Seed,
    /// When to commit.
    pub options: Options,
}

/// The same seed with a random id, where it has none: what tells the log from every other, should this seed begin one.
#[must_use]
pub fn identified(seed: &Seed) -> Seed {
    let mut seed = seed.clone();
    if seed.id.is_empty() {
        seed.id = uuid::Uuid::new_v4().simple().to_string();
    }
    seed
}

/// Why workers did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The cluster can't be used.
    #[error("the cluster can't be used")]
    Log(#[from] LogError),
    /// No thread.
    #[error("no thread for a worker")]
    Thread(#[from] std::io::Error),
}

/// Running workers.
pub struct Workers {
    /// How they are doing.
    pub health: Arc<Health>,
    stop: Arc<AtomicBool>,
    failed: watch::Receiver<Option<String>>,
    /// Closes when all have ended.
    done: Receiver<()>,
}

impl Workers {
    /// Connects and starts all workers; what they commit shows in `view`.
    ///
    /// # Errors
    /// No broker answers, or there are no threads.
    pub fn start(config: &Config, view: &Arc<View>) -> Result<Self, StartError> {
        let mut logs = Vec::new();
        for number in 0..config.workers.clamp(1, WORKERS_MAX) {
            logs.push(KafkaLog::connect(KafkaConfig {
                cluster: config.cluster.clone(),
                group: config.group.clone(),
                member: Some(Member {
                    name: format!("{}-{number}", config.name),
                    is_static: config.is_static,
                    session_timeout: config.session_timeout,
                }),
            })?);
        }
        let lease = config.session_timeout / 2;
        Self::run(logs, lease, &config.seed, &config.options, view)
    }

    /// One worker that has a log for itself.
    ///
    /// # Errors
    /// There are no threads.
    pub fn alone(
        log: impl processor_log::Log + 'static,
        seed: &Seed,
        options: &Options,
        view: &Arc<View>,
    ) -> Result<Self, StartError> {
        Self::run(vec![log], Duration::MAX, seed, options, view)
    }

    fn run<L: processor_log::Log + 'static>(
        logs: Vec<L>,
        lease: Duration,
        seed: &Seed,
        options: &Options,
        view: &Arc<View>,
    ) -> Result<Self, StartError> {
        let (fail, failed) = watch::channel(None);
        let (alive, done) = sync_channel::<()>(1);
        let stop = Arc::new(AtomicBool::new(false));
        let mut statuses = Vec::new();
        for (number, log) in logs.into_iter().enumerate() {
            let status = Arc::new(Status::new(lease));
            statuses.push(Arc::clone(&status));
            let mut runner = Runner::new(
                log,
                SeedSource(identified(seed)),
                Arc::clone(view),
                status,
                options.clone(),
            );
            let (fail, alive, stop) = (fail.clone(), alive.clone(), Arc::clone(&stop));
            std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    let _alive = alive;
                    let result = runner.run(&stop);
                    // Leaves the group, which may take a while: before anybody hears that this worker has ended.
                    drop(runner);
                    match result {
                        Err(error) => drop(fail.send_replace(Some(chain(&error)))),
                        Ok(()) if !stop.load(Ordering::Relaxed) => {
                            drop(fail.send_replace(Some("a worker ended by itself".to_owned())))
                        }
                        Ok(()) => {}
                    }
                })?;
        }
        Ok(Self {
            health: Arc::new(Health { workers: statuses }),
            stop,
            failed,
            done,
        })
    }

    /// Resolves when a worker has failed for good: why.
    pub async fn failed(&mut self) -> String {
        match self.failed.wait_for(Option::is_some).await {
            Ok(fault) => fault.clone().unwrap_or_default(),
            // All workers have ended as they were told to.
            Err(_) => std::future::pending().await,
        }
    }

    /// Tells all workers to commit and end, and waits for that up to `max`; whether they did.
    #[must_use]
    pub fn end(self, max: Duration) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + max;
        // Nothing is ever sent: the channel closes with the last worker.
        self.done
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            == Err(RecvTimeoutError::Disconnected)
    }
}
