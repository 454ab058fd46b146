//! The command line of a process with settings.

use crate::layers::Sources;
use crate::process::Failure;
use clap::{Args, FromArgMatches};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Flags that all processes with settings have.
#[derive(Clone, Debug, Default, Args)]
pub struct Common {
    /// Settings, as TOML; environment variables TACHO_TABLE__SETTING and flags go over them.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Prints the settings in force, secrets as ***, and ends.
    #[arg(long)]
    pub print_config: bool,
    /// The cluster: kafka.bootstrap_servers.
    #[arg(long, value_name = "HOST:PORT")]
    pub kafka: Option<String>,
    /// Goes before the names of all topics: kafka.prefix.
    #[arg(long)]
    pub prefix: Option<String>,
    /// Where /metrics and the probes are: admin.listen.
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// What is logged: log.filter.
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

impl Common {
    /// The sources of settings; `more` are the process's own flags by the names of their settings.
    #[must_use]
    pub fn sources(
        self,
        env: BTreeMap<String, String>,
        more: Vec<(&'static str, Option<String>)>,
    ) -> Sources {
        let own = [
            ("kafka.bootstrap_servers", self.kafka),
            ("kafka.prefix", self.prefix),
            ("admin.listen", self.admin),
            ("log.filter", self.log),
        ];
        let flags = own
            .into_iter()
            .chain(more)
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        Sources {
            file: self.config,
            env,
            flags,
        }
    }
}

/// The outcome of reading a command line.
#[derive(Debug)]
pub enum Asked<T> {
    /// The process is to go on with these flags.
    Go(T),
    /// Help or the version is to be printed: this text.
    Shown(String),
}

/// Why a command line can't be read, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0} (see --help)")]
pub struct FlagsError(String);

/// Reads the command line, the program's name first.
///
/// # Errors
/// A flag is unknown, lacks its value or has a wrong one.
pub fn parse<T: FromArgMatches + clap::CommandFactory>(
    args: impl IntoIterator<Item = OsString>,
) -> Result<Asked<T>, FlagsError> {
    let matches = T::command()
        .try_get_matches_from(args)
        .and_then(|matches| T::from_arg_matches(&matches));
    match matches {
        Ok(flags) => Ok(Asked::Go(flags)),
        Err(error) if error.use_stderr() => {
            let text = error.render().to_string();
            let first = text
                .lines()
                .take_while(|line| !line.trim().is_empty())
                .collect::<Vec<_>>()
                .join(" ");
            Err(FlagsError(first.trim_start_matches("error: ").to_owned()))
        }
        Err(error) => Ok(Asked::Shown(error.render().to_string())),
    }
}

/// The flags of this process; `None` if help or the version was asked for, which is printed then.
///
/// # Errors
/// The flags are wrong: says how.
pub fn of_process<T: FromArgMatches + clap::CommandFactory>() -> Result<Option<T>, Failure> {
    match parse(std::env::args_os()) {
        Ok(Asked::Go(flags)) => Ok(Some(flags)),
        Ok(Asked::Shown(text)) => {
            print!("{text}");
            Ok(None)
        }
        Err(error) => Err(Failure::Start(vec![error.to_string()])),
    }
}
