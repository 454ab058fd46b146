//! The workers of a process: threads, each with a consumer, a producer and tasks of its own.

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

/// The most workers of a process.
pub const WORKERS_MAX: usize = 64;

/// The settings of the workers of a process.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster, whose topics were checked.
    pub cluster: Cluster,
    /// The consumer group, prefix included.
    pub group: String,
    /// The name of this process, unique in the group and the same after a restart, such as the name of a pod.
    pub name: String,
    /// Whether members are static: the group knows them by name, so that a restart moves no partition.
    pub is_static: bool,
    /// How long a member may be silent before it loses its partitions.
    pub session_timeout: Duration,
    /// The number of workers, 1 to [`WORKERS_MAX`].
    pub workers: usize,
    /// The seed that is written to an empty control topic.
    pub seed: Seed,
    /// The options of each worker.
    pub options: Options,
}

/// A seed with a random id if it has none. The id tells the log from every other one if the seed begins a log.
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
    /// A thread can't be started.
    #[error("no thread for a worker")]
    Thread(#[from] std::io::Error),
}

/// Running workers.
pub struct Workers {
    /// The status of the workers.
    pub health: Arc<Health>,
    stop: Arc<AtomicBool>,
    failed: watch::Receiver<Option<String>>,
    /// A channel on which nothing is sent, and which closes when all workers have ended.
    done: Receiver<()>,
}

impl Workers {
    /// Connects and starts all workers. What they commit is shown in `view`.
    ///
    /// # Errors
    /// No broker answers, or a thread can't be started.
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

    /// Starts one worker on a log that no other worker uses.
    ///
    /// # Errors
    /// A thread can't be started.
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
                    // Dropping the runner leaves the group, which may take a while, and must be over when `done` closes.
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

    /// Resolves when a worker has ended by itself, with the fault.
    pub async fn failed(&mut self) -> String {
        match self.failed.wait_for(Option::is_some).await {
            Ok(fault) => fault.clone().unwrap_or_default(),
            // All workers were stopped, and ended without a fault.
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops all workers, which commit what is folded, and waits for them up to `max`. Returns whether all have ended.
    #[must_use]
    pub fn end(self, max: Duration) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + max;
        // Nothing is sent on the channel, which closes with the last worker.
        self.done
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            == Err(RecvTimeoutError::Disconnected)
    }
}
