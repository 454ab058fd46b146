//! `tacho topics`: makes the topics of a cluster, and names what is wrong with them.

use crate::adapters;
use crate::cluster::ClusterArgs;
use crate::commands::failed;
use crate::place::{Env, seed_in};
use processor::workers::identified;
use processor_log::LogError;
use processor_log::cluster::Cluster;
use processor_log::control::{SEED_KEY, append};
use processor_log::kafka::topics::{self, Fault, Severity};
use schemas::settings::Seed;
use schemas::topic::Topic;
use settings::process::{Failure, chain};
use std::path::PathBuf;
use strum::VariantArray;

/// The number of raw partitions of a new prefix, unless flags say otherwise. It can't be changed later.
const RAW_PARTITIONS: i32 = 12;
/// The most replicas of a partition that can be asked for.
const REPLICAS_MAX: i64 = 100;

/// The flags of `tacho topics`.
#[derive(Debug, clap::Args)]
pub struct TopicsArgs {
    #[command(subcommand)]
    command: TopicsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TopicsCommand {
    /// Creates the topics that are missing, gives those that an older version made the settings of this one, writes the settings
    /// of a new log, and checks all.
    Apply(ApplyArgs),
    /// Names every fault of the topics, each with the command that mends it; exit code 1 if there is one.
    Check(CheckArgs),
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Takes topics with one replica as they are: for a cluster of one broker.
    #[arg(long)]
    allow_single_broker: bool,
}

#[derive(Debug, clap::Args)]
struct ApplyArgs {
    #[command(flatten)]
    check: CheckArgs,
    /// Replicas of each new partition [default: 3, or as many as there are brokers].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(1..=REPLICAS_MAX))]
    replication_factor: Option<i32>,
    /// Partitions of new raw topics: fixed for good [default: 12].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(1..=1024))]
    raw_partitions: Option<i32>,
    /// Settings of a new log, as in deploy/control.toml; an existing one keeps its own.
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
}

/// What to do with the topics of a cluster.
#[derive(Debug, PartialEq, Eq)]
pub struct TopicsOptions {
    cluster: Cluster,
    allow_single_broker: bool,
    /// How to make the topics; none: they are only checked.
    apply: Option<TopicsToMake>,
}

/// How to make the topics that are missing.
#[derive(Debug, PartialEq, Eq)]
struct TopicsToMake {
    replication_factor: Option<i32>,
    seed: Seed,
}

impl TopicsArgs {
    /// Everything that follows from the flags; what is wrong with them is added to `faults`.
    pub fn options(self, env: &Env, faults: &mut Vec<String>) -> Option<TopicsOptions> {
        let (check, apply) = match self.command {
            TopicsCommand::Check(check) => (check, None),
            TopicsCommand::Apply(args) => {
                let seed = args.seed.as_deref().map(|file| seed_in(file, faults));
                let seed = match seed {
                    Some(seed) => Seed {
                        raw_partitions: args.raw_partitions.unwrap_or(seed.as_ref()?.raw_partitions),
                        ..seed?
                    },
                    None => Seed {
                        raw_partitions: args.raw_partitions.unwrap_or(RAW_PARTITIONS),
                        ..Seed::shipped()
                    },
                };
                (
                    args.check,
                    Some(TopicsToMake {
                        replication_factor: args.replication_factor,
                        seed,
                    }),
                )
            }
        };
        let cluster = check.cluster.required(&env.vars, faults)?;
        Some(TopicsOptions {
            cluster,
            allow_single_broker: check.allow_single_broker,
            apply,
        })
    }
}

/// Makes the topics if that was asked for, and checks all of them; prints what was created and what is wrong.
///
/// # Errors
/// The cluster does not answer, or topics are not as they must be.
pub fn run(options: &TopicsOptions) -> Result<(), Failure> {
    let cluster = &options.cluster;
    if let Some(wanted) = &options.apply {
        make(cluster, wanted)?;
    }
    let (_, mut faults) = topics::inspect(cluster, &Seed::shipped()).map_err(of_cluster(cluster))?;
    faults.retain(|fault| fault.severity != Severity::OneReplica || !options.allow_single_broker);
    faults.iter().for_each(|fault| println!("{fault}"));
    match faults.len() {
        0 => {
            println!("{} topics are as they must be", Topic::VARIANTS.len());
            Ok(())
        }
        count if faults.iter().any(Fault::is_refused) => Err(Failure::Running(format!("{count} faults"))),
        _ if faults.iter().any(Fault::is_outdated) => Err(Failure::Running(
            "topics were made by an older version: processes start, and warn; `tacho topics apply` changes them".to_owned(),
        )),
        _ => Err(Failure::Running(
            "topics have one replica: processes start, and warn; --allow-single-broker takes that for a cluster of one broker".to_owned(),
        )),
    }
}

/// Creates the topics that are missing, gives those of an older table the settings of this one, and writes the settings of a
/// new log.
///
/// The settings hold for good once they are written, so that is done only if no topic has a fault.
fn make(cluster: &Cluster, wanted: &TopicsToMake) -> Result<(), Failure> {
    let seed = match topics::stored_seed(cluster).map_err(of_cluster(cluster))? {
        Some(stored) => stored,
        None => topics::real_partitions(cluster, &wanted.seed).map_err(of_cluster(cluster))?,
    };
    let created = topics::create_topics(cluster, &seed, wanted.replication_factor);
    for name in created.map_err(of_cluster(cluster))? {
        println!("created {name}");
    }
    for change in topics::renew(cluster).map_err(of_cluster(cluster))? {
        println!("changed {change}");
    }
    let faults = topics::faults(cluster, &seed).map_err(of_cluster(cluster))?;
    let is_new = || topics::stored_seed(cluster).map(|stored| stored.is_none());
    if !faults.iter().any(Fault::is_refused) && is_new().map_err(of_cluster(cluster))? {
        let mut log = adapters::kafka_log(cluster).map_err(failed)?;
        append(&mut log, SEED_KEY, identified(&seed).to_json()).map_err(of_cluster(cluster))?;
        println!(
            "wrote the settings to {}: {} raw partitions",
            cluster.topic(Topic::Control),
            seed.raw_partitions
        );
    }
    Ok(())
}

/// What the log of a cluster said, with the cluster's addresses before it.
fn of_cluster(cluster: &Cluster) -> impl Fn(LogError) -> Failure {
    let bootstrap = cluster.bootstrap.clone();
    move |error| Failure::Running(format!("{bootstrap}: {}", chain(&error)))
}
