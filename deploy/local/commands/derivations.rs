//! `tacho derivations`: lists the derivations of a data directory, and retires those that nobody goes on with. On a cluster
//! nothing waits for a derivation: its topics can be deleted.

use crate::admin_file::AdminFile;
use crate::commands::failed;
use crate::commands::read::source::Remote;
use crate::place::Env;
use processor_log::ReadLog;
use processor_log::embedded::Embedded;
use schemas::settings::Seed;
use schemas::topic::Topic;
use settings::process::Failure;
use std::path::{Path, PathBuf};

/// The flags of `tacho derivations`.
#[derive(Debug, clap::Args)]
pub struct DerivationsArgs {
    #[command(subcommand)]
    command: DerivationsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum DerivationsCommand {
    /// Prints the derivations of a data directory: prefix, and whether it is retired.
    List(DirectoryArgs),
    /// Retires a derivation for good: its rows can be read, it is not gone on with, and raw records are no longer kept for
    /// it.
    Retire {
        #[command(flatten)]
        at: DirectoryArgs,
        /// Prefix of the derivation; empty for the one that was begun without a prefix.
        #[arg(long, value_name = "PREFIX")]
        derived_prefix: String,
    },
}

#[derive(Debug, clap::Args)]
struct DirectoryArgs {
    /// Directory of the embedded log [default: $XDG_DATA_HOME/tachograph or ~/.local/share/tachograph].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// What to do with the derivations of a directory.
#[derive(Debug, PartialEq, Eq)]
pub struct DerivationsOptions {
    dir: PathBuf,
    /// The prefix of the derivation to be retired; none: all are listed.
    retire: Option<String>,
}

impl DerivationsArgs {
    /// Everything that follows from the flags; what is wrong with them is added to `faults`.
    pub fn options(self, env: &Env, faults: &mut Vec<String>) -> Option<DerivationsOptions> {
        let (at, retire) = match self.command {
            DerivationsCommand::List(at) => (at, None),
            DerivationsCommand::Retire { at, derived_prefix } => (at, Some(derived_prefix)),
        };
        let Some(dir) = at.data.or_else(|| env.data_dir()) else {
            faults.push("there is no home directory to keep data in: give --data".to_owned());
            return None;
        };
        Some(DerivationsOptions { dir, retire })
    }
}

/// Prints the derivations of a directory, after one was retired if that was asked for.
///
/// # Errors
/// The directory holds no data, a process holds it, or it has no such derivation.
pub fn run(options: &DerivationsOptions) -> Result<(), Failure> {
    let DerivationsOptions { dir, retire } = options;
    is_free(dir)?;
    let seed = Seed::shipped();
    if let Some(prefix) = retire {
        Embedded::retire(dir, &seed, prefix).map_err(failed)?;
    }
    for (prefix, is_retired) in Embedded::derivations(dir, &seed).map_err(failed)? {
        println!("{prefix:?}{}", if is_retired { " retired" } else { "" });
    }
    Ok(())
}

/// Checks that the directory is there, and that no process holds it.
fn is_free(dir: &Path) -> Result<(), Failure> {
    let refused = |what: &str| Err(Failure::Start(vec![format!("{} {what}", dir.display())]));
    if !dir.exists() {
        return refused("holds no data: give --data");
    }
    let runs = |file: AdminFile| Remote::new(file).partitions(Topic::Control).is_ok();
    if AdminFile::read(dir).is_some_and(runs) {
        return refused("is in use by a tacho: end it first");
    }
    Ok(())
}
