//! Running: binds, opens, starts everything, and ends it.

pub mod greeting;

use crate::adapters::{self, Backend};
use crate::admin_file::{AdminFile, Written};
use crate::cli::{Place, RunOptions};
use crate::{demo, hash_key, policy};
use ingest::Policies;
use processor::admin::{Admin, router};
use processor::telemetry;
use processor::view::View;
use shell::log::LogSection;
use shell::process::{Failure, bind, chain, told_to_end};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// The page, all in one.
const PAGE: &str = include_str!("page.html");
/// How long requests under way may take to end.
const REQUESTS_END: Duration = Duration::from_millis(800);
/// How long the inbox may take to finish its batch.
const INBOX_END: Duration = Duration::from_millis(400);
/// How long the worker may take to finish its commit.
const WORKER_END: Duration = Duration::from_millis(1200);
/// How long after the signal the process goes, whatever hangs. All that was answered with 200 is durable anyway.
const PROCESS_END: Duration = Duration::from_millis(2600);
/// How often own histograms are folded.
const UPKEEP: Duration = Duration::from_secs(5);

/// What was bound and opened before anything runs.
struct Started {
    options: RunOptions,
    http: TcpListener,
    grpc: TcpListener,
    admin: TcpListener,
    backend: Backend,
    admin_file: AdminFile,
    /// Removed at the end.
    written: Option<Written>,
    /// Removed at the end, with all in it: taken out before anything runs.
    temporary: Option<tempfile::TempDir>,
    about: String,
}

/// Runs until Ctrl-C or SIGTERM.
pub fn run(options: RunOptions) -> Result<(), Failure> {
    LogSection::by_hand().init();
    let mut started = start(options).map_err(Failure::Start)?;
    let temporary = started.temporary.take();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Start(vec![format!("can't start threads: {error}")]))?;
    let result = runtime.block_on(serve(started, temporary.as_ref().map(tempfile::TempDir::path)));
    runtime.shutdown_timeout(Duration::from_millis(100));
    // Only now nothing holds the log in it any more.
    drop(temporary);
    result.map_err(Failure::Running)
}

/// Binds and opens all there is; on failure every fault.
fn start(options: RunOptions) -> Result<Started, Vec<String>> {
    let mut faults = Vec::new();
    let http = bind("--http", options.http, &mut faults);
    let grpc = bind("--grpc", options.grpc, &mut faults);
    let admin = bind("--admin", options.admin, &mut faults);
    let mut temporary = None;
    let mut note = |result: Result<Backend, String>| result.map_err(|fault| faults.push(fault)).ok();
    let (backend, about) = match &options.place {
        Place::Kafka(cluster) => (
            note(adapters::kafka(cluster, &options.seed)),
            format!("Kafka at {}", cluster.bootstrap),
        ),
        Place::Directory(dir) => {
            let fits = if options.demo {
                demo::check_directory(dir)
            } else {
                Ok(())
            };
            (
                note(fits.and_then(|()| adapters::embedded(dir, &options.seed))),
                format!("data in {}", dir.display()),
            )
        }
        Place::Temporary => {
            let made = tempfile::Builder::new().prefix("tacho-demo-").tempdir();
            let made = made.map_err(|error| format!("can't make a temporary directory: {error}"));
            let opened = made.and_then(|dir| {
                let opened = adapters::embedded(dir.path(), &options.seed);
                temporary = Some(dir);
                opened
            });
            (
                note(opened),
                "recorded sessions, in a temporary directory".to_owned(),
            )
        }
    };
    let port = |listener: &TcpListener, given: SocketAddr| listener.local_addr().unwrap_or(given);
    let admin_file = AdminFile::new(
        admin
            .as_ref()
            .map_or(options.admin, |listener| port(listener, options.admin)),
    );
    let dir = temporary
        .as_ref()
        .map(|dir| dir.path().to_owned())
        .or_else(|| options.admin_dir.clone());
    let mut written = None;
    // Only who holds the directory may say so in it.
    if let (Some(dir), Some(_), true) = (dir, &backend, faults.is_empty()) {
        let mark = if options.demo {
            demo::mark_directory(&dir)
        } else {
            Ok(())
        };
        match mark.and_then(|()| admin_file.write(&dir)) {
            Ok(file) => written = Some(file),
            Err(error) => faults.push(format!("{}: can't write: {error}", dir.display())),
        }
    }
    let dir = temporary
        .as_ref()
        .map(tempfile::TempDir::path)
        .or(match &options.place {
            Place::Directory(dir) => Some(dir.as_path()),
            Place::Kafka(_) | Place::Temporary => None,
        });
    let mut hash_key = options.hash_key.clone();
    if let (None, Some(dir), Some(_)) = (&hash_key, dir, &backend) {
        hash_key = hash_key::of_directory(dir)
            .map_err(|fault| faults.push(fault))
            .ok();
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

async fn serve(started: Started, temporary: Option<&Path>) -> Result<(), String> {
    let Started {
        options,
        http,
        grpc,
        admin,
        backend,
        admin_file,
        written,
        about,
        ..
    } = started;
    let text = |error: std::io::Error| error.to_string();
    let (http_at, admin_at) = (
        http.local_addr().map_err(text)?,
        admin.local_addr().map_err(text)?,
    );
    telemetry::install().map_err(|error| format!("own metrics: {error}"))?;
    ingest::telemetry::describe();
    let view = Arc::new(View::default());
    let mut workers = (backend.work)(&view)?;
    let demo_stop = Arc::new(AtomicBool::new(false));
    let (end, ending) = watch::channel(false);

    let config = greeting::codex_config(http_at);
    let policies = Arc::new(Policies::default());
    let control = (backend.open)().map_err(|error| chain(&error))?;
    tokio::spawn(policy::follow(control, Arc::clone(&policies), ending.clone()));
    let (ingest_sink, ingest_policies) = (Arc::clone(&backend.sink), Arc::clone(&policies));
    let routes = router(
        Admin {
            view: Arc::clone(&view),
            health: Arc::clone(&workers.health),
            ingest_ready: Box::new(move || {
                ingest::sink::Sink::ready(ingest_sink.as_ref()) && ingest_policies.is_read()
            }),
            open: backend.open,
            token: admin_file.token,
            page: PAGE,
            setup: config.clone(),
            about: about.clone(),
        },
        admin_at.ip().is_loopback(),
    );
    let admin = tokio::net::TcpListener::from_std(admin).map_err(text)?;
    let admin = tokio::spawn(
        axum::serve(admin, routes)
            .with_graceful_shutdown(over(ending.clone()))
            .into_future(),
    );
    let http = tokio::net::TcpListener::from_std(http).map_err(text)?;
    let grpc = tokio::net::TcpListener::from_std(grpc).map_err(text)?;
    let config_of_ingest = ingest::Config {
        keep_text: options.keep_text,
        hash_key: options.hash_key.clone(),
        ..ingest::Config::default()
    };
    let mut ingest = tokio::spawn(adapters::serve_ingest(
        config_of_ingest.clone(),
        Arc::clone(&policies),
        http,
        grpc,
        backend.sink,
        ending.clone(),
    ));
    tokio::spawn(upkeep(ending));
    let inbox = backend
        .drain
        .map(|drain| drain(config_of_ingest, Arc::clone(&policies)))
        .transpose()
        .map_err(text)?;
    greet(&options, &config, admin_at, &about, temporary);
    if options.demo {
        demo::start(greeting::reachable(http_at), &policies, &demo_stop).map_err(text)?;
    }

    let result = tokio::select! {
        signal = told_to_end() => signal.map_err(text),
        fault = workers.failed() => Err(fault),
        ended = &mut ingest => Err(match ended {
            Ok(()) => "ingest ended by itself".to_owned(),
            Err(panic) => format!("ingest: {panic}"),
        }),
    };
    watchdog();
    eprintln!("tacho: ending");
    demo_stop.store(true, Ordering::Relaxed);
    // Ingest first, so that the worker's last commit has what was just answered; it is durable in any case.
    let _ = end.send(true);
    if !ingest.is_finished() {
        let _ = tokio::time::timeout(REQUESTS_END, &mut ingest).await;
    }
    let drained = tokio::task::spawn_blocking(move || inbox.is_none_or(|inbox| inbox.end(INBOX_END)));
    if let Ok(false) = drained.await {
        tracing::warn!("the inbox did not end in time; what is not committed is drained again");
    }
    if let Ok(false) = tokio::task::spawn_blocking(move || workers.end(WORKER_END)).await {
        tracing::warn!("the worker did not end in time; it will restore at the next start");
    }
    admin.abort();
    drop(written);
    result
}

/// Resolves when the process is to end.
async fn over(mut ending: watch::Receiver<bool>) {
    // The sender is gone only when the process ends.
    let _ = ending.wait_for(|over| *over).await;
}

async fn upkeep(ending: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(UPKEEP);
    while !*ending.borrow() {
        every.tick().await;
        telemetry::upkeep();
    }
}

/// Ends the process in time, whatever hangs.
fn watchdog() {
    std::thread::spawn(|| {
        std::thread::sleep(PROCESS_END);
        eprintln!("tacho: ended without waiting longer; what was answered with 200 is kept");
        std::process::exit(0);
    });
}

fn greet(options: &RunOptions, config: &str, admin: SocketAddr, about: &str, temporary: Option<&Path>) {
    let read = match (&options.place, temporary) {
        (Place::Kafka(cluster), _) if cluster.prefix.is_empty() => format!(" --kafka {}", cluster.bootstrap),
        (Place::Kafka(cluster), _) => format!(" --kafka {} --prefix {}", cluster.bootstrap, cluster.prefix),
        (_, Some(dir)) => format!(" --data {}", dir.display()),
        (Place::Directory(dir), None) => format!(" --data {}", dir.display()),
        (Place::Temporary, None) => String::new(),
    };
    if options.keep_text {
        eprintln!(
            "\n  ** --keep-text: prompts, commands and outputs are kept in the clear. They hold secrets. **\n  \
             ** Whoever reads the topics or the data directory reads them.                            **\n"
        );
    }
    println!("Codex sends to tacho with this:\n\n{config}");
    println!(
        "{}",
        greeting::where_to_look(admin, about, &format!("tacho read codex.sessions.v1{read}"))
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Action, Env, parse};

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
            Ok(Action::Run(options)) => *options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn page_asks_nobody_but_us_and_sets_text_only() {
        for part in [
            "http:",
            "https:",
            "//cdn",
            " src=",
            "@import",
            "url(",
            "innerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!PAGE.contains(part), "the page contains {part}");
        }
        assert_eq!(PAGE.matches("nonce=\"NONCE\"").count(), 2);
        assert_eq!(PAGE.matches("NONCE").count(), 2);
        assert_eq!(PAGE.matches("<link").count(), 1);
        assert!(PAGE.contains("<link rel=\"icon\" href=\"data:,\">"));
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
