//! `tacho control`: shows and changes the settings, prices and privacy policy in the log.
//!
//! A change is an epoch: a record of the control topic, which processors and ingests take up while they run.

use crate::adapters;
use crate::admin_file::AdminFile;
use crate::commands::failed;
use crate::commands::read::source;
use crate::place::{Env, Place, PlaceArgs};
use processor_log::control::{CONTROL, append};
use processor_log::embedded::Embedded;
use processor_log::follow::Follower;
use processor_log::{Log, ReadLog};
use schemas::control::{EPOCH_KEY, EpochChange};
use schemas::privacy::Action;
use schemas::settings::Seed;
use schemas::topic::Topic;
use serde_json::{Value, json};
use settings::process::{Failure, chain};
use std::path::{Path, PathBuf};

/// The flags of `tacho control`.
#[derive(Debug, clap::Args)]
pub struct ControlArgs {
    #[command(subcommand)]
    command: ControlCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ControlCommand {
    /// Starts an epoch with what a file holds, and prints its number: `[settings]` as in deploy/control.toml, `[prices]` as
    /// in deploy/prices.toml (the whole table), `[privacy]` as in deploy/examples/privacy.toml (the whole policy), or several.
    /// On an embedded log no tacho may run meanwhile.
    Apply {
        /// A file with `[settings]`, `[prices]`, `[privacy]` or several of them, and nothing else.
        file: PathBuf,
        #[command(flatten)]
        at: PlaceArgs,
    },
    /// Prints the settings that are fixed, and what each epoch changed: one JSON object a line.
    Show {
        #[command(flatten)]
        at: PlaceArgs,
    },
}

/// What to do with the control topic of a log.
#[derive(Debug, PartialEq, Eq)]
pub struct ControlOptions {
    place: Place,
    /// The change that starts an epoch; none: the epochs are shown.
    apply: Option<EpochChange>,
}

impl ControlArgs {
    /// Everything that follows from the flags; what is wrong with them is added to `faults`.
    pub fn options(self, env: &Env, faults: &mut Vec<String>) -> Option<ControlOptions> {
        let (at, apply) = match self.command {
            ControlCommand::Show { at } => (at, None),
            ControlCommand::Apply { file, at } => (at, Some(change_in(&file, faults))),
        };
        let place = at.resolve(env, faults)?;
        let apply = match apply {
            None => None,
            Some(change) => Some(change?),
        };
        Some(ControlOptions { place, apply })
    }
}

/// Reads the change of an epoch from a file; what is wrong with it is added to `faults`.
pub fn change_in(file: &Path, faults: &mut Vec<String>) -> Option<EpochChange> {
    let fault = |why: String| format!("{}: {why}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| faults.push(fault(error.to_string())));
    EpochChange::from_toml(&text.ok()?)
        .map_err(|error| faults.push(fault(chain(&error))))
        .ok()
}

/// Starts an epoch and prints its number, or prints all epochs.
///
/// # Errors
/// The log can't be opened, read or written, or has no settings yet.
pub fn run(options: &ControlOptions) -> Result<(), Failure> {
    match &options.apply {
        Some(change) => apply(&options.place, change),
        None => show(&options.place),
    }
}

fn apply(place: &Place, change: &EpochChange) -> Result<(), Failure> {
    let mut log = open(place)?;
    let records = Follower::new(CONTROL).collect(log.as_mut()).map_err(failed)?;
    if records.is_empty() {
        let fault = format!(
            "{} is empty: `tacho topics apply`, or the first start, writes the settings that are fixed",
            Topic::Control.name()
        );
        return Err(Failure::Start(vec![fault]));
    }
    let epoch = append(log.as_mut(), EPOCH_KEY, change.to_json()).map_err(failed)?;
    println!(
        "epoch {epoch}: each partition begins it within a second or two; {}",
        consequences(change)
    );
    Ok(())
}

/// What follows from a change, for people: one part for each thing that it changes.
fn consequences(change: &EpochChange) -> String {
    let settings = change
        .settings
        .is_some()
        .then_some("a session goes by the settings of its last record");
    let prices = change
        .prices
        .as_ref()
        .map(|table| format!("from then on, prices are those of version {}", table.version));
    let privacy = change.privacy.as_ref().map(|policy| {
        let hashes = if policy.uses(Action::Hash) {
            "; hashes need privacy.hash_key_file at every ingest, or drop"
        } else {
            ""
        };
        match policy.rules_of(Action::Keep) {
            keeps if keeps.is_empty() => format!("no ingest stores a text as it came then{hashes}"),
            keeps => format!(
                "every ingest stores texts in the clear then: {}{hashes}",
                keeps.join(", ")
            ),
        }
    });
    let parts: Vec<&str> = settings
        .into_iter()
        .chain(prices.as_deref())
        .chain(privacy.as_deref())
        .collect();
    parts.join("; ")
}

/// Opens the log for writing. That of a data directory can be written only where no process holds it.
fn open(place: &Place) -> Result<Box<dyn Log>, Failure> {
    match place {
        Place::Kafka(cluster) => Ok(Box::new(adapters::kafka_log(cluster).map_err(failed)?)),
        Place::Directory { dir, .. } => {
            let refused = |fault: String| Failure::Start(vec![fault]);
            if !dir.exists() {
                return Err(refused(format!(
                    "{} holds no data: start tacho there first, or give --data",
                    dir.display()
                )));
            }
            if AdminFile::read(dir)
                .is_some_and(|file| source::Remote::new(file).partitions(Topic::Control).is_ok())
            {
                return Err(refused(format!(
                    "a tacho runs on {}: end it, change the settings, and start it again",
                    dir.display()
                )));
            }
            let log = Embedded::open_for_commands(dir, &Seed::shipped(), "")
                .map_err(|error| refused(chain(&error)))?;
            Ok(Box::new(log.handle()))
        }
        Place::Temporary => unreachable!("the command line gives `control` a place that lasts"),
    }
}

fn show(place: &Place) -> Result<(), Failure> {
    let mut source = source::open(place)?;
    let records = Follower::new(CONTROL).collect(source.as_mut()).map_err(failed)?;
    for record in records {
        let value = record.value.as_deref().unwrap_or_default();
        let what = match EpochChange::of_record(record.key.as_deref(), value) {
            _ if record.offset == 0 => {
                json!({"seed": serde_json::from_slice::<Value>(value).unwrap_or_default()})
            }
            // A second seed and a record of an unknown kind change nothing.
            None => continue,
            Some(Ok(change)) => json!(change),
            Some(Err(error)) => json!({"fault": chain(&error)}),
        };
        let mut shown = json!({"epoch": record.offset, "appended_ms": record.appended.0});
        if let (Some(shown), Value::Object(what)) = (shown.as_object_mut(), what) {
            shown.extend(what);
        }
        println!("{shown}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("settings.toml");
        std::fs::write(&file, text).unwrap();
        let mut faults = Vec::new();
        let change = change_in(&file, &mut faults);
        assert_eq!(change.is_none(), !faults.is_empty());
        faults.join("; ")
    }

    #[test]
    fn the_example_of_a_policy_is_right() {
        assert_eq!(faults(include_str!("../../examples/privacy.toml")), "");
        let text = faults("[privacy.default]\nprompt = \"mask\"\nbodies = \"keep\"\n");
        assert!(text.contains("mask") && text.contains("bodies"), "{text}");
    }

    #[test]
    fn settings_and_prices_are_checked_before_they_are_written() {
        let right = "[settings]\nsemantics = 1\nsession_gap_ms = 1000\nreopen_horizon_ms = 2000\nrow_interval_ms = 0\n";
        assert_eq!(faults(right), "");
        let text = faults(&right.replace("= 1\n", "= 7\n").replace("1000", "0"));
        assert!(
            text.contains("semantics") && text.contains("session_gap_ms"),
            "{text}"
        );
        assert!(
            faults(&right.replace("row_interval_ms = 0", "row_intervall_ms = 0"))
                .contains("row_intervall_ms")
        );
        assert!(faults(&format!("raw_partitions = 4\n{right}")).contains("raw_partitions"));
        assert!(faults("").contains("neither"));
        assert_eq!(faults(schemas::price::SHIPPED_PRICES_TOML), "");
        assert_eq!(
            faults(&format!("{right}{}", schemas::price::SHIPPED_PRICES_TOML)),
            ""
        );
        let text = faults(
            &schemas::price::SHIPPED_PRICES_TOML
                .replacen("\"api_usd\"", "\"api\"", 1)
                .replacen("= 250_000", "= -1", 1),
        );
        assert!(
            text.contains("book must") && text.contains("input must"),
            "{text}"
        );
    }
}
