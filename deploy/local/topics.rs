//! `tacho topics`: makes the topics of a cluster, and says what is wrong with them.

use crate::adapters;
use crate::cli::{Env, seed_in};
use crate::cluster::ClusterArgs;
use processor_log::LogError;
use processor_log::cluster::Cluster;
use processor_log::control::{SEED_KEY, append};
use processor_log::kafka::topics::{self, Fault};
use schemas::settings::Seed;
use schemas::topic::Topic;
use settings::process::{Failure, chain};
use std::path::PathBuf;
use strum::VariantArray;

/// Raw partitions of a cluster, unless told otherwise. They can't be changed later.
const RAW_PARTITIONS: i32 = 12;
/// Most replicas of a partition.
const REPLICAS_MAX: i64 = 100;

/// `tacho topics …`
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Creates the topics that are missing, writes the settings of a new log, and checks all; changes nothing that is
    /// there.
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

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    cluster: Cluster,
    allow_single_broker: bool,
    /// None: only check.
    apply: Option<Apply>,
}

/// How to make topics.
#[derive(Debug, PartialEq, Eq)]
struct Apply {
    replication_factor: Option<i32>,
    seed: Seed,
}

impl Args {
    /// Everything that follows from the flags.
    pub fn options(self, env: &Env, faults: &mut Vec<String>) -> Option<Options> {
        let (check, apply) = match self.command {
            Command::Check(check) => (check, None),
            Command::Apply(args) => {
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
                    Some(Apply {
                        replication_factor: args.replication_factor,
                        seed,
                    }),
                )
            }
        };
        let cluster = check.cluster.required(&env.vars, faults)?;
        Some(Options {
            cluster,
            allow_single_broker: check.allow_single_broker,
            apply,
        })
    }
}

/// Does it.
pub fn run(options: &Options) -> Result<(), Failure> {
    let cluster = &options.cluster;
    let failed = |error: LogError| Failure::Running(format!("{}: {}", cluster.bootstrap, chain(&error)));
    if let Some(Apply {
        replication_factor,
        seed,
    }) = &options.apply
    {
        let seed = match topics::stored_seed(cluster).map_err(failed)? {
            Some(stored) => stored,
            None => topics::real_partitions(cluster, seed).map_err(failed)?,
        };
        for name in topics::create_topics(cluster, &seed, *replication_factor).map_err(failed)? {
            println!("created {name}");
        }
        // Only where the topics are right: what is written now holds for good.
        let faults = topics::faults(cluster, &seed).map_err(failed)?;
        if !faults.iter().any(Fault::is_refused) && topics::stored_seed(cluster).map_err(failed)?.is_none() {
            let mut log = adapters::kafka_log(cluster).map_err(Failure::Running)?;
            append(&mut log, SEED_KEY, seed.to_json()).map_err(failed)?;
            println!(
                "wrote the settings to {}{}: {} raw partitions",
                cluster.prefix,
                Topic::Control.name(),
                seed.raw_partitions
            );
        }
    }
    let (_, mut faults) = topics::inspect(cluster, &Seed::shipped()).map_err(failed)?;
    faults.retain(|fault| fault.is_refused() || !options.allow_single_broker);
    faults.iter().for_each(|fault| println!("{fault}"));
    match faults.len() {
        0 => {
            println!("{} topics are as they must be", Topic::VARIANTS.len());
            Ok(())
        }
        count if faults.iter().any(Fault::is_refused) => Err(Failure::Running(format!("{count} faults"))),
        _ => Err(Failure::Running(
            "topics have one replica: processes start, and warn; --allow-single-broker takes that for a cluster of one broker".to_owned(),
        )),
    }
}
