//! The command line of `tacho`, checked as a whole: every fault is named at once.

use crate::commands::control::{ControlArgs, ControlOptions};
use crate::commands::derivations::{DerivationsArgs, DerivationsOptions};
use crate::commands::prices::{PricesArgs, PricesOptions};
use crate::commands::quarantine::{QuarantineArgs, QuarantineOptions};
use crate::commands::read::{ReadArgs, ReadOptions};
use crate::commands::topics::{TopicsArgs, TopicsOptions};
use crate::place::Env;
use crate::run::options::{RunArgs, RunOptions};
use clap::{Parser, Subcommand};
use settings::flags::{Asked, parse as parse_flags};
use std::ffi::OsString;

/// Event-sourced metrics and sessions from the OpenTelemetry that the Codex CLI sends.
///
/// Without a command, takes telemetry in and shows results until Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "tacho", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints the records of a topic: the latest row of each key of a compacted topic, the last 1,000 records of others.
    Read(ReadArgs),
    /// Makes the topics of a Kafka cluster, or checks them.
    Topics(TopicsArgs),
    /// Changes settings while everything runs, or shows them.
    Control(ControlArgs),
    /// Checks a price table, and says what it would change.
    Prices(PricesArgs),
    /// Lists the derivations of a data directory, or retires one.
    Derivations(DerivationsArgs),
    /// Lists, shows or sends again the records that could not be understood.
    Quarantine(QuarantineArgs),
}

/// What a command line without faults asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Take telemetry in and show results.
    Run(Box<RunOptions>),
    /// Print a topic.
    Read(ReadOptions),
    /// Make or check topics.
    Topics(TopicsOptions),
    /// Change or show settings.
    Control(ControlOptions),
    /// Check a price table.
    Prices(PricesOptions),
    /// List or retire derivations.
    Derivations(DerivationsOptions),
    /// Look at what could not be understood, or send it again.
    Quarantine(QuarantineOptions),
}

/// Why a command line leaves nothing to do.
#[derive(Debug, PartialEq, Eq)]
pub enum NothingToDo {
    /// Help or the version was asked for: this text is to be printed.
    Shown(String),
    /// The command line is wrong: all of its faults.
    Faults(Vec<String>),
}

/// Reads a command line, which begins with the program's name.
///
/// # Errors
/// Help or the version was asked for, or there are faults.
pub fn parse(args: impl IntoIterator<Item = OsString>, env: &Env) -> Result<Invocation, NothingToDo> {
    let cli = match parse_flags::<Cli>(args) {
        Ok(Asked::Go(cli)) => cli,
        Ok(Asked::Shown(text)) => return Err(NothingToDo::Shown(text)),
        Err(error) => return Err(NothingToDo::Faults(vec![error.to_string()])),
    };
    let mut faults = Vec::new();
    let invocation = match cli.command {
        None => cli
            .run
            .options(env, &mut faults)
            .map(Box::new)
            .map(Invocation::Run),
        Some(Command::Read(args)) => args.options(env, &mut faults).map(Invocation::Read),
        Some(Command::Topics(args)) => args.options(env, &mut faults).map(Invocation::Topics),
        Some(Command::Control(args)) => args.options(env, &mut faults).map(Invocation::Control),
        Some(Command::Prices(args)) => args.options(env, &mut faults).map(Invocation::Prices),
        Some(Command::Derivations(args)) => args.options(env, &mut faults).map(Invocation::Derivations),
        Some(Command::Quarantine(args)) => args.options(env, &mut faults).map(Invocation::Quarantine),
    };
    invocation
        .filter(|_| faults.is_empty())
        .ok_or(NothingToDo::Faults(faults))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(dir: &str) -> Place {
        Place::Directory {
            dir: dir.into(),
            derived_prefix: String::new(),
        }
    }
    use crate::place::Place;
    use processor_log::cluster::Cluster;
    use schemas::settings::Seed;
    use schemas::topic::Topic;

    fn parse_from(args: &str) -> Result<Invocation, NothingToDo> {
        let env = Env {
            xdg_data_home: None,
            home: Some("/home/me".into()),
            ..Env::default()
        };
        parse(
            std::iter::once("tacho")
                .chain(args.split_whitespace())
                .map(OsString::from),
            &env,
        )
    }

    fn faults(args: &str) -> String {
        match parse_from(args) {
            Err(NothingToDo::Faults(faults)) => faults.join("; "),
            other => panic!("{args}: {other:?}"),
        }
    }

    fn run_of(args: &str) -> RunOptions {
        match parse_from(args) {
            Ok(Invocation::Run(options)) => *options,
            other => panic!("{args}: {other:?}"),
        }
    }

    #[test]
    fn no_command_runs_on_the_fixed_ports_in_the_home_directory() {
        let options = run_of("");
        assert_eq!(options.place, directory("/home/me/.local/share/tachograph"));
        assert_eq!(options.http, "127.0.0.1:4318".parse().unwrap());
        assert_eq!(options.admin, "127.0.0.1:9464".parse().unwrap());
        assert_eq!(options.seed, Seed::shipped());
        assert!(!options.demo && !options.keep_text);
    }

    #[test]
    fn data_directory_follows_the_flag_then_xdg_then_home() {
        let xdg = Env {
            xdg_data_home: Some("/x".into()),
            home: Some("/home/me".into()),
            ..Env::default()
        };
        assert_eq!(xdg.data_dir(), Some("/x/tachograph".into()));
        let relative = Env {
            xdg_data_home: Some("x".into()),
            ..Env::default()
        };
        assert_eq!(relative.data_dir(), None);
        assert_eq!(run_of("--data d").place, directory("d"));
        let none = parse([OsString::from("tacho")], &Env::default());
        assert!(matches!(none, Err(NothingToDo::Faults(faults)) if faults[0].contains("--data")));
    }

    #[test]
    fn demo_is_temporary_and_seeds_a_short_gap() {
        let options = run_of("--demo --http localhost:0 --grpc 127.0.0.1:0 --admin 127.0.0.1:0");
        assert_eq!((options.place, options.admin_dir), (Place::Temporary, None));
        assert_eq!(options.seed.settings.session_gap_ms, 20_000);
        assert_eq!(run_of("--demo --data d").place, directory("d"));
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let text =
            faults("--http nowhere --admin 1:2 --prefix a/b --seed /does/not/exist --demo --kafka kafka");
        for part in [
            "--http",
            "--admin",
            "the prefix \"a/b\"",
            "--seed /does/not/exist",
            "--demo makes up",
            "--demo has settings",
            "\"kafka\" are not HOST:PORT",
        ] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        assert!(faults("--http 127.0.0.1:1 --admin 127.0.0.1:1").contains("--http and --admin are both"));
        assert!(faults("--prefix x").contains("--kafka"));
        assert!(faults("--nonsense").contains("--nonsense"));
        assert!(faults("read nonsense").contains("codex.sessions.v1"));
        assert!(faults("read").contains("<TOPIC>"));
    }

    #[test]
    fn read_knows_topics_with_and_without_the_prefix() {
        for topic in ["codex.sessions.v1", "lab.codex.sessions.v1"] {
            let action = parse_from(&format!("read {topic} --follow --json --kafka h:1 --prefix lab."));
            let place = Place::Kafka(Cluster::plain("h:1", "lab."));
            let expected = ReadOptions {
                topic: Topic::Sessions,
                from_start: false,
                follow: true,
                json: true,
                place,
            };
            assert_eq!(action, Ok(Invocation::Read(expected)));
        }
    }

    #[test]
    fn help_and_version_are_no_faults() {
        assert!(matches!(parse_from("--help"), Err(NothingToDo::Shown(text)) if text.contains("--demo")));
        assert!(matches!(parse_from("--version"), Err(NothingToDo::Shown(_))));
    }
}
