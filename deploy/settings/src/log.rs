//! The table `[log]`: what a process says about itself, on stderr.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// How a process logs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// The form of a line.
    pub format: Format,
    /// What is logged, as in `RUST_LOG`: `info`, `warn,processor=debug`.
    pub filter: String,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line, for machines.
    #[default]
    Json,
    /// For people.
    Text,
}

impl Default for LogSection {
    fn default() -> Self {
        Self {
            format: Format::Json,
            filter: "info".to_owned(),
        }
    }
}

impl LogSection {
    /// Adds what is wrong to `faults`.
    pub fn check(&self, faults: &mut Vec<String>) {
        if let Err(error) = EnvFilter::try_new(&self.filter) {
            faults.push(format!(
                "log.filter: {:?} is not a filter such as info or warn,processor=debug: {error}",
                self.filter
            ));
        }
    }

    /// Begins to log; a second call in one process changes nothing.
    pub fn init(&self) {
        let filter = EnvFilter::try_new(&self.filter).unwrap_or_else(|_| EnvFilter::new("info"));
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr);
        // A second subscriber within one process is a test's: its own is as good.
        let _ = match self.format {
            Format::Json => log.json().flatten_event(true).try_init(),
            Format::Text => log.with_target(false).try_init(),
        };
    }

    /// For a process that people start by hand: text, and what `RUST_LOG` says, else warnings.
    #[must_use]
    pub fn by_hand() -> Self {
        Self {
            format: Format::Text,
            filter: std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned()),
        }
    }
}
