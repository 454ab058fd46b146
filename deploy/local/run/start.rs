//! The start of a process: every listener is bound and the log is opened before anything runs, and all that is wrong is
//! told at once.

use super::options::RunOptions;
use crate::adapters::{self, Backend};
use crate::admin_file::{AdminFile, Written};
use crate::place::Place;
use crate::{demo, hash_key};
use settings::process::{bind, chain};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

/// What was bound and opened before anything runs.
pub struct Started {
    /// How to run; the key of hashes is that of the data directory where the settings give none.
    pub options: RunOptions,
    /// Where OTLP over HTTP comes in.
    pub http: TcpListener,
    /// Where OTLP over gRPC comes in.
    pub grpc: TcpListener,
    /// Where the page, the metrics and the probes are.
    pub admin: TcpListener,
    /// The log, with everything that works on it.
    pub backend: Backend,
    /// How `tacho read` finds this process.
    pub admin_file: AdminFile,
    /// The file `admin.json`, removed when this is dropped; none where no directory is to have it.
    pub written: Option<Written>,
    /// The directory of a temporary log, removed with all in it when this is dropped.
    pub temporary: Option<tempfile::TempDir>,
    /// What the process runs on, for people.
    pub about: String,
}

/// Binds and opens everything.
///
/// # Errors
/// All faults: busy ports, a directory that is in use or holds something else, a cluster that does not answer.
pub fn start(options: RunOptions) -> Result<Started, Vec<String>> {
    let mut faults = Vec::new();
    let http = bind("--http", options.http, &mut faults);
    let grpc = bind("--grpc", options.grpc, &mut faults);
    let admin = bind("--admin", options.admin, &mut faults);
    let Opened {
        backend,
        temporary,
        about,
    } = open(&options, &mut faults);
    let port = |listener: &TcpListener, given: SocketAddr| listener.local_addr().unwrap_or(given);
    let admin_at = admin
        .as_ref()
        .map_or(options.admin, |listener| port(listener, options.admin));
    let admin_file = AdminFile::new(admin_at, options.place.derived_prefix());
    let mut written = None;
    let mut hash_key = options.hash_key.clone();
    if backend.is_some() {
        let temporary = temporary.as_ref().map(tempfile::TempDir::path);
        let dir = temporary.or(options.admin_dir.as_deref());
        // Only the process that holds the directory may write into it, and not before it is sure to start.
        if let (Some(dir), true) = (dir, faults.is_empty()) {
            written = announce(dir, options.demo, &admin_file, &mut faults);
        }
        if let (None, Some(dir)) = (&hash_key, temporary.or(options.place.directory())) {
            hash_key = hash_key::of_directory(dir)
                .map_err(|error| faults.push(chain(&error)))
                .ok();
        }
    }
    let options = RunOptions { hash_key, ..options };
    match (http, grpc, admin, backend) {
        (Some(http), Some(grpc), Some(admin), Some(backend)) if faults.is_empty() => Ok(Started {
            options,
            http,
            grpc,
            admin,
            backend,
            admin_file,
            written,
            temporary,
            about,
        }),
        _ => Err(faults),
    }
}

/// The log of a place, as far as it could be opened.
struct Opened {
    backend: Option<Backend>,
    temporary: Option<tempfile::TempDir>,
    about: String,
}

/// Why the log of a place can't be opened.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    /// The log itself.
    #[error(transparent)]
    Log(#[from] adapters::BackendError),
    /// The demo was given a directory with other data.
    #[error(transparent)]
    OtherData(#[from] demo::OtherData),
    /// There is no place for a temporary log.
    #[error("can't make a temporary directory")]
    Temporary(#[source] std::io::Error),
}

/// Opens the log of a place; what is wrong with it is added to `faults`.
fn open(options: &RunOptions, faults: &mut Vec<String>) -> Opened {
    let mut temporary = None;
    let (opened, about) = match &options.place {
        Place::Kafka(cluster) => (
            adapters::kafka(cluster, &options.seed, &options.derivation).map_err(OpenError::Log),
            format!("Kafka at {}", cluster.bootstrap),
        ),
        Place::Directory { dir, .. } => (open_directory(dir, options), format!("data in {}", dir.display())),
        Place::Temporary => (
            open_temporary(options, &mut temporary),
            "recorded sessions, in a temporary directory".to_owned(),
        ),
    };
    Opened {
        backend: opened.map_err(|error| faults.push(chain(&error))).ok(),
        temporary,
        about,
    }
}

fn open_directory(dir: &Path, options: &RunOptions) -> Result<Backend, OpenError> {
    if options.demo {
        demo::check_directory(dir)?;
    }
    Ok(adapters::embedded(dir, &options.seed, &options.derivation)?)
}

fn open_temporary(
    options: &RunOptions,
    temporary: &mut Option<tempfile::TempDir>,
) -> Result<Backend, OpenError> {
    let made = tempfile::Builder::new().prefix("tacho-demo-").tempdir();
    let dir = temporary.insert(made.map_err(OpenError::Temporary)?);
    Ok(adapters::embedded(
        dir.path(),
        &options.seed,
        &options.derivation,
    )?)
}

/// Writes into the directory that this process holds who it is, and that its data is a demo's; what fails is added to
/// `faults`.
fn announce(dir: &Path, demo: bool, admin_file: &AdminFile, faults: &mut Vec<String>) -> Option<Written> {
    let marked = if demo { demo::mark_directory(dir) } else { Ok(()) };
    marked
        .and_then(|()| admin_file.write(dir))
        .map_err(|error| faults.push(format!("{}: can't write: {error}", dir.display())))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Invocation, parse};
    use crate::place::Env;

    fn options(args: &[&str]) -> RunOptions {
        let env = Env {
            xdg_data_home: None,
            home: Some("/nowhere".into()),
            ..Env::default()
        };
        match parse(
            std::iter::once("tacho")
                .chain(args.iter().copied())
                .map(Into::into),
            &env,
        ) {
            Ok(Invocation::Run(options)) => *options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn busy_ports_and_a_foreign_directory_are_named_at_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("letter.txt"), "not ours").unwrap();
        let taken = [
            TcpListener::bind("127.0.0.1:0").unwrap(),
            TcpListener::bind("127.0.0.1:0").unwrap(),
        ];
        let [http, admin] = taken
            .each_ref()
            .map(|listener| listener.local_addr().unwrap().to_string());
        let dir_name = dir.path().display().to_string();
        let faults = start(options(&[
            "--http",
            &http,
            "--grpc",
            "127.0.0.1:0",
            "--admin",
            &admin,
            "--data",
            &dir_name,
        ]))
        .err()
        .unwrap()
        .join("; ");
        for part in ["--http", "--admin", &http, &admin, &dir_name] {
            assert!(faults.contains(part), "{part} is not in: {faults}");
        }
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing was written there"
        );
        drop(taken);
    }

    #[test]
    fn a_directory_in_use_is_refused_and_read_through_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().display().to_string();
        let free = [
            "--http",
            "127.0.0.1:0",
            "--grpc",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--data",
            name.as_str(),
        ];
        let first = start(options(&free)).unwrap_or_else(|faults| panic!("{faults:?}"));
        let before = AdminFile::read(dir.path());
        assert_eq!(before.as_ref(), Some(&first.admin_file));
        let faults = start(options(&free)).err().unwrap();
        assert!(faults.len() == 1 && faults[0].contains(&name), "{faults:?}");
        assert_eq!(AdminFile::read(dir.path()), before, "the holder's file stays");
        drop(first);
        assert_eq!(AdminFile::read(dir.path()), None);
    }
}
