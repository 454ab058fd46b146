//! The table `[log]`: what a process says about itself, on stderr.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// How a process logs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// The form of a line.
    pub format: Format,
    /// The filter of what is logged, in the form of `RUST_LOG`: `info`, or `warn,processor=debug`.
    pub filter: String,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line, for machines.
    #[default]
    Json,
    /// Plain text, for people.
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
    /// Adds a fault to `faults` if the filter is none.
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
        // Only tests install a second subscriber within one process, and the first serves them as well.
        let _ = match self.format {
            Format::Json => log.json().flatten_event(true).try_init(),
            Format::Text => log.with_target(false).try_init(),
        };
    }

    /// How a process logs that people start by hand: as text, by the filter in `RUST_LOG`, else warnings only.
    #[must_use]
    pub fn by_hand() -> Self {
        Self {
            format: Format::Text,
            filter: std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned()),
        }
    }
}
