//! Names the log of a command: the embedded one in a data directory, or that of a cluster.
//!
//! The flags `--kafka` and `--config` name a cluster. Without them the log is in the directory of `--data`, and without
//! that in the user's data directory.

use crate::cluster::ClusterArgs;
use processor::derivation::Derivation;
use processor_log::cluster::Cluster;
use schemas::settings::Seed;
use settings::process::chain;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where the log is.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// The embedded log in a directory, as the derivation of that prefix sees it.
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The prefix of the derivation; empty for the first one.
        derived_prefix: String,
    },
    /// The embedded log in a temporary directory, which is removed when the process ends: only for the demo.
    Temporary,
    /// The topics of a cluster.
    Kafka(Cluster),
}

impl Place {
    /// The prefix of the derivation.
    pub fn derived_prefix(&self) -> &str {
        match self {
            Self::Directory { derived_prefix, .. } => derived_prefix,
            Self::Temporary => "",
            Self::Kafka(cluster) => &cluster.derived_prefix,
        }
    }

    /// The data directory, where it is one that lasts.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory { dir, .. } => Some(dir),
            Self::Temporary | Self::Kafka(_) => None,
        }
    }
}

/// The flags that name a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct PlaceArgs {
    /// Directory of the embedded log [default: $XDG_DATA_HOME/tachograph or ~/.local/share/tachograph].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

impl PlaceArgs {
    /// The log that the flags name: the cluster if there is one, else a directory. Never [`Place::Temporary`]. What is
    /// wrong with the flags is added to `faults`.
    pub fn resolve(&self, env: &Env, faults: &mut Vec<String>) -> Option<Place> {
        if let Some(cluster) = self.cluster.resolve(&env.vars, faults) {
            return Some(Place::Kafka(cluster));
        }
        let dir = self.data.clone().or_else(|| env.data_dir());
        if dir.is_none() {
            faults.push("there is no home directory to keep data in: give --data".to_owned());
        }
        let derived_prefix = self.cluster.derived_prefix.clone().unwrap_or_default();
        dir.map(|dir| Place::Directory { dir, derived_prefix })
    }
}

impl PlaceArgs {
    /// The derivation of a log that the flags, the environment and the file of settings name. What is wrong with it is added
    /// to `faults`.
    pub fn derivation(&self, place: &Place, env: &Env, faults: &mut Vec<String>) -> Derivation {
        let section = self.cluster.derivation(&env.vars, faults);
        match place {
            Place::Kafka(cluster) => section.derivation(cluster, faults),
            Place::Directory { derived_prefix, .. } => section.of_directory(derived_prefix, faults),
            Place::Temporary => section.of_directory("", faults),
        }
    }
}

/// The environment variables that defaults and settings depend on.
#[derive(Clone, Debug, Default)]
pub struct Env {
    /// `XDG_DATA_HOME`.
    pub xdg_data_home: Option<OsString>,
    /// `HOME`.
    pub home: Option<OsString>,
    /// All variables by name; layered settings take those with their prefix.
    pub vars: BTreeMap<String, String>,
}

impl Env {
    /// The variables of this process.
    pub fn of_process() -> Self {
        Self {
            xdg_data_home: std::env::var_os("XDG_DATA_HOME"),
            home: std::env::var_os("HOME"),
            vars: settings::layers::environment(),
        }
    }

    /// The user's data directory of this program. A relative `XDG_DATA_HOME` or `HOME` is ignored, as the XDG base
    /// directory specification demands.
    pub(crate) fn data_dir(&self) -> Option<PathBuf> {
        let absolute =
            |value: &Option<OsString>| value.clone().map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute(&self.xdg_data_home).or_else(|| Some(absolute(&self.home)?.join(".local/share")));
        Some(base?.join("tachograph"))
    }
}

/// Reads the settings of a new log from the file of `--seed`; what is wrong with it is added to `faults`.
pub fn seed_in(file: &Path, faults: &mut Vec<String>) -> Option<Seed> {
    let fault = |why: String| format!("--seed {}: {why}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| faults.push(fault(error.to_string())));
    Seed::from_toml(&text.ok()?)
        .map_err(|error| faults.push(fault(chain(&error))))
        .ok()
}
