//! The flags of a `tacho` that takes telemetry in, and what follows from them.

use crate::address;
use crate::place::{Env, Place, PlaceArgs, seed_in};
use ingest::HashKey;
use processor::derivation::Derivation;
use schemas::settings::Seed;
use settings::process::check_distinct;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The flags of `tacho` without a command.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    at: PlaceArgs,
    /// Replays recorded sessions, in a temporary directory unless --data gives one.
    #[arg(long)]
    demo: bool,
    /// Keeps prompts, commands and outputs in the clear, whatever the privacy policy of the log says. Off by default: they
    /// hold secrets.
    #[arg(long)]
    keep_text: bool,
    /// Where OTLP over HTTP comes in.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4318")]
    http: String,
    /// Where OTLP over gRPC comes in.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4317")]
    grpc: String,
    /// Where the page, /metrics and the probes are.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9464")]
    admin: String,
    /// Settings of a new log, as in deploy/control.toml; an existing one keeps its own.
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
}

/// How to run.
#[derive(Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// Where the log is.
    pub place: Place,
    /// The directory that gets `admin.json`; none for a cluster without `--data`, and for a temporary directory, which is
    /// not there yet.
    pub admin_dir: Option<PathBuf>,
    /// Whether to replay recorded sessions.
    pub demo: bool,
    /// Whether texts are kept in the clear whatever the privacy policy says.
    pub keep_text: bool,
    /// The key of hashes, if the settings give one; a data directory has its own otherwise.
    pub hash_key: Option<HashKey>,
    /// Where OTLP over HTTP comes in.
    pub http: SocketAddr,
    /// Where OTLP over gRPC comes in.
    pub grpc: SocketAddr,
    /// Where the page, the metrics and the probes are.
    pub admin: SocketAddr,
    /// The settings of a new log.
    pub seed: Seed,
    /// The derivation of the log that this process works on.
    pub derivation: Derivation,
}

impl RunArgs {
    /// Everything that follows from the flags; what is wrong with them is added to `faults`.
    pub fn options(self, env: &Env, faults: &mut Vec<String>) -> Option<RunOptions> {
        let http = address::of_flag("--http", &self.http, faults);
        let grpc = address::of_flag("--grpc", &self.grpc, faults);
        let admin = address::of_flag("--admin", &self.admin, faults);
        let named = [("--http", http), ("--grpc", grpc), ("--admin", admin)];
        let named: Vec<_> = named
            .into_iter()
            .filter_map(|(flag, address)| Some((flag, address?)))
            .collect();
        check_distinct(&named, faults);
        self.check_demo(faults);
        let seed = self.seed(faults);
        let place = if self.demo && self.at == PlaceArgs::default() {
            Place::Temporary
        } else {
            self.at.resolve(env, faults)?
        };
        let admin_dir = match &place {
            Place::Directory { dir, .. } => Some(dir.clone()),
            Place::Kafka(_) => self.at.data.clone(),
            Place::Temporary => None,
        };
        let hash_key = self.at.cluster.hash_key(&env.vars, faults);
        let derivation = self.at.derivation(&place, env, faults);
        Some(RunOptions {
            place,
            admin_dir,
            demo: self.demo,
            keep_text: self.keep_text,
            hash_key,
            http: http?,
            grpc: grpc?,
            admin: admin?,
            seed: seed?,
            derivation,
        })
    }

    fn check_demo(&self, faults: &mut Vec<String>) {
        if self.demo && self.at.cluster.is_given() {
            faults.push(
                "--demo makes up sessions and stays away from clusters: leave out --kafka and --config"
                    .to_owned(),
            );
        }
        if self.demo && self.seed.is_some() {
            faults.push("--demo has settings of its own: leave out --seed".to_owned());
        }
    }

    fn seed(&self, faults: &mut Vec<String>) -> Option<Seed> {
        match &self.seed {
            Some(file) => seed_in(file, faults),
            None if self.demo => Some(crate::demo::seed()),
            None => Some(Seed::shipped()),
        }
    }
}
