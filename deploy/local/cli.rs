//! The command line, checked as a whole: every fault is named at once.

use crate::cluster::ClusterArgs;
use crate::{control, quarantine, topics};
use clap::{Args, Parser, Subcommand};
use ingest::prepare::hash::HashKey;
use schemas::cluster::Cluster;
use schemas::settings::Seed;
use schemas::topic::Topic;
use shell::flags::{Asked, parse as parse_flags};
use shell::process::check_distinct;
use shell::units::Listen;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use strum::VariantArray;

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
    Topics(topics::Args),
    /// Changes settings while everything runs, or shows them.
    Control(control::Args),
    /// What could not be understood: lists it, shows it, sends it again.
    Quarantine(quarantine::Args),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Directory that keeps everything [default: $XDG_DATA_HOME/tachograph or ~/.local/share/tachograph].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Replays recorded sessions, in a temporary directory unless --data gives one.
    #[arg(long)]
    demo: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
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

#[derive(Debug, Args)]
struct ReadArgs {
    /// For example codex.sessions.v1.
    topic: String,
    /// All records, from the first that is still there.
    #[arg(long)]
    from_start: bool,
    /// Goes on with what comes in.
    #[arg(long)]
    follow: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// Directory of the embedded log [default: as above].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Take telemetry in and show results.
    Run(Box<RunOptions>),
    /// Print a topic.
    Read(ReadOptions),
    /// Make or check topics.
    Topics(topics::Options),
    /// Change or show settings.
    Control(control::Options),
    /// Look at what could not be understood, or send it again.
    Quarantine(quarantine::Options),
}

/// Which log.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// The embedded one, in a directory.
    Directory(PathBuf),
    /// The embedded one, in a temporary directory that goes at the end.
    Temporary,
    /// A cluster.
    Kafka(Cluster),
}

/// How to run.
#[derive(Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// The log.
    pub place: Place,
    /// Where `admin.json` goes; none for a cluster without `--data`.
    pub admin_dir: Option<PathBuf>,
    /// Whether to replay recorded sessions.
    pub demo: bool,
    /// Whether to keep texts.
    pub keep_text: bool,
    /// The key of hashes; none: the directory's own.
    pub hash_key: Option<HashKey>,
    /// OTLP over HTTP.
    pub http: SocketAddr,
    /// OTLP over gRPC.
    pub grpc: SocketAddr,
    /// The page, metrics and probes.
    pub admin: SocketAddr,
    /// Settings of a new log.
    pub seed: Seed,
}

/// What to print.
#[derive(Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// The topic.
    pub topic: Topic,
    /// From the first record that is still there.
    pub from_start: bool,
    /// Go on.
    pub follow: bool,
    /// One JSON object a line.
    pub json: bool,
    /// The log; never [`Place::Temporary`].
    pub place: Place,
}

/// Why there is nothing to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// Help or version was asked for: print it.
    Shown(String),
    /// Everything that is wrong.
    Faults(Vec<String>),
}

/// What the command line's defaults depend on.
#[derive(Clone, Debug, Default)]
pub struct Env {
    /// `XDG_DATA_HOME`.
    pub xdg_data_home: Option<OsString>,
    /// `HOME`.
    pub home: Option<OsString>,
    /// All variables, of which the cluster's settings take those that are theirs.
    pub vars: BTreeMap<String, String>,
}

impl Env {
    /// That of this process.
    pub fn of_process() -> Self {
        Self {
            xdg_data_home: std::env::var_os("XDG_DATA_HOME"),
            home: std::env::var_os("HOME"),
            vars: shell::layers::environment(),
        }
    }

    fn data_dir(&self) -> Option<PathBuf> {
        let given =
            |value: &Option<OsString>| value.clone().map(PathBuf::from).filter(|path| path.is_absolute());
        let base = given(&self.xdg_data_home).or_else(|| Some(given(&self.home)?.join(".local/share")));
        Some(base?.join("tachograph"))
    }
}

/// Reads the command line, the program's name first.
pub fn parse(args: impl IntoIterator<Item = OsString>, env: &Env) -> Result<Action, Refused> {
    let cli = match parse_flags::<Cli>(args) {
        Ok(Asked::Go(cli)) => cli,
        Ok(Asked::Shown(text)) => return Err(Refused::Shown(text)),
        Err(fault) => return Err(Refused::Faults(vec![fault])),
    };
    let mut faults = Vec::new();
    let action = match cli.command {
        None => run_options(cli.run, env, &mut faults)
            .map(Box::new)
            .map(Action::Run),
        Some(Command::Read(args)) => read_options(args, env, &mut faults).map(Action::Read),
        Some(Command::Topics(args)) => args.options(env, &mut faults).map(Action::Topics),
        Some(Command::Control(args)) => args.options(env, &mut faults).map(Action::Control),
        Some(Command::Quarantine(args)) => args.options(env, &mut faults).map(Action::Quarantine),
    };
    action
        .filter(|_| faults.is_empty())
        .ok_or(Refused::Faults(faults))
}

fn run_options(args: RunArgs, env: &Env, faults: &mut Vec<String>) -> Option<RunOptions> {
    let http = address("--http", &args.http, faults);
    let grpc = address("--grpc", &args.grpc, faults);
    let admin = address("--admin", &args.admin, faults);
    let named = [("--http", http), ("--grpc", grpc), ("--admin", admin)];
    let named: Vec<_> = named
        .into_iter()
        .filter_map(|(flag, address)| Some((flag, address?)))
        .collect();
    check_distinct(&named, faults);
    if args.demo && args.cluster.is_given() {
        faults.push(
            "--demo makes up sessions and stays away from clusters: leave out --kafka and --config"
                .to_owned(),
        );
    }
    if args.demo && args.seed.is_some() {
        faults.push("--demo has settings of its own: leave out --seed".to_owned());
    }
    let seed = seed(args.seed, args.demo, faults);
    let nowhere = args.data.is_none() && args.cluster == ClusterArgs::default();
    let place = if args.demo && nowhere {
        Some(Place::Temporary)
    } else {
        place(args.data.clone(), &args.cluster, env, faults)
    };
    let place = place?;
    let admin_dir = match &place {
        Place::Directory(dir) => Some(dir.clone()),
        Place::Kafka(_) => args.data,
        Place::Temporary => None,
    };
    let hash_key = args.cluster.hash_key(&env.vars, faults);
    let (demo, keep_text) = (args.demo, args.keep_text);
    Some(RunOptions {
        place,
        admin_dir,
        demo,
        keep_text,
        hash_key,
        http: http?,
        grpc: grpc?,
        admin: admin?,
        seed: seed?,
    })
}

fn seed(file: Option<PathBuf>, demo: bool, faults: &mut Vec<String>) -> Option<Seed> {
    match file {
        Some(file) => seed_in(&file, faults),
        None => Some(if demo {
            crate::demo::seed()
        } else {
            Seed::shipped()
        }),
    }
}

/// The seed in a file, for `--seed`.
pub fn seed_in(file: &Path, faults: &mut Vec<String>) -> Option<Seed> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string());
    let seed = text.and_then(|text| Seed::from_toml(&text).map_err(|error| shell::process::chain(&error)));
    seed.map_err(|error| faults.push(format!("--seed {}: {error}", file.display())))
        .ok()
}

fn read_options(args: ReadArgs, env: &Env, faults: &mut Vec<String>) -> Option<ReadOptions> {
    let place = place(args.data, &args.cluster, env, faults);
    let prefix = match &place {
        Some(Place::Kafka(cluster)) => cluster.prefix.as_str(),
        _ => "",
    };
    let bare = args.topic.strip_prefix(prefix).unwrap_or(&args.topic);
    let topic = Topic::by_name(bare).or_else(|| Topic::by_name(&args.topic));
    if topic.is_none() {
        let known: Vec<&str> = Topic::VARIANTS.iter().map(|topic| topic.name()).collect();
        faults.push(format!(
            "there is no topic {:?}: the topics are {}",
            args.topic,
            known.join(", ")
        ));
    }
    Some(ReadOptions {
        topic: topic?,
        from_start: args.from_start,
        follow: args.follow,
        json: args.json,
        place: place?,
    })
}

/// Which log: the cluster that was named, else a directory.
pub fn place(
    data: Option<PathBuf>,
    cluster: &ClusterArgs,
    env: &Env,
    faults: &mut Vec<String>,
) -> Option<Place> {
    if let Some(cluster) = cluster.resolve(&env.vars, faults) {
        return Some(Place::Kafka(cluster));
    }
    let dir = data.or_else(|| env.data_dir());
    if dir.is_none() {
        faults.push("there is no home directory to keep data in: give --data".to_owned());
    }
    dir.map(Place::Directory)
}

fn address(flag: &str, text: &str, faults: &mut Vec<String>) -> Option<SocketAddr> {
    let parsed = text.parse::<Listen>();
    if parsed.is_err() {
        faults.push(format!(
            "{flag} {text:?} is not an address and port such as 127.0.0.1:4318"
        ));
    }
    parsed.ok().map(|listen| listen.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_from(args: &str) -> Result<Action, Refused> {
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
            Err(Refused::Faults(faults)) => faults.join("; "),
            other => panic!("{args}: {other:?}"),
        }
    }

    fn run_of(args: &str) -> RunOptions {
        match parse_from(args) {
            Ok(Action::Run(options)) => *options,
            other => panic!("{args}: {other:?}"),
        }
    }

    #[test]
    fn no_command_runs_on_the_fixed_ports_in_the_home_directory() {
        let options = run_of("");
        assert_eq!(
            options.place,
            Place::Directory("/home/me/.local/share/tachograph".into())
        );
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
        assert_eq!(run_of("--data d").place, Place::Directory("d".into()));
        let none = parse([OsString::from("tacho")], &Env::default());
        assert!(matches!(none, Err(Refused::Faults(faults)) if faults[0].contains("--data")));
    }

    #[test]
    fn demo_is_temporary_and_seeds_a_short_gap() {
        let options = run_of("--demo --http localhost:0 --grpc 127.0.0.1:0 --admin 127.0.0.1:0");
        assert_eq!((options.place, options.admin_dir), (Place::Temporary, None));
        assert_eq!(options.seed.settings.session_gap_ms, 20_000);
        assert_eq!(run_of("--demo --data d").place, Place::Directory("d".into()));
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
            assert_eq!(action, Ok(Action::Read(expected)));
        }
    }

    #[test]
    fn help_and_version_are_no_faults() {
        assert!(matches!(parse_from("--help"), Err(Refused::Shown(text)) if text.contains("--demo")));
        assert!(matches!(parse_from("--version"), Err(Refused::Shown(_))));
    }
}
