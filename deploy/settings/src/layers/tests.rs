use super::*;
use crate::kafka::KafkaSection;
use crate::log::LogSection;
use crate::units::{Listen, Size, Span};
use serde::Deserialize;
use std::time::Duration;

#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    keep: bool,
    workers: usize,
    timeout: Span,
    size: Size,
    listen: Listen,
    kafka: KafkaSection,
    log: LogSection,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keep: false,
            workers: 1,
            timeout: Span(Duration::from_secs(15)),
            size: Size(1 << 20),
            listen: Listen("127.0.0.1:1".parse().unwrap()),
            kafka: KafkaSection::default(),
            log: LogSection::default(),
        }
    }
}

fn sources(file: &str, env: &[(&str, &str)], flags: &[(&'static str, &str)]) -> (tempfile::TempDir, Sources) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("settings.toml");
    std::fs::write(&path, file).unwrap();
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let flags = flags
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
    (
        dir,
        Sources {
            file: Some(path),
            env,
            flags,
        },
    )
}

#[test]
fn nothing_given_is_the_default() {
    assert_eq!(
        load::<Settings>(&Sources::default()),
        (Settings::default(), vec![])
    );
}

#[test]
fn each_layer_goes_over_the_one_before() {
    let file = "workers = 2\nkeep = true\ntimeout = '20s'\nsize = '2MiB'\nkafka.bootstrap_servers = 'file:1'\nkafka.prefix = 'file.'\n\
                [kafka.options]\nsocket.timeout.ms = 1000\n'socket.keepalive.enable' = true";
    let env = [
        ("TACHO_WORKERS", "3"),
        ("TACHO_TIMEOUT", "25s"),
        ("TACHO_KAFKA__BOOTSTRAP_SERVERS", "env:1"),
        ("TACHO_KAFKA__OPTIONS__SOCKET_TIMEOUT_MS", "2000"),
        ("TACHO_KAFKA__SASL__PASSWORD", "12345"),
        ("TACHO_LOG__FORMAT", "text"),
        ("WORKERS", "9"),
        ("TACHO_INGEST_SERVICE_HOST", "10.0.0.1"),
        ("TACHO_INGEST_PORT", "tcp://10.0.0.1:4318"),
        ("TACHO_INGEST_PORT_4318_TCP_ADDR", "10.0.0.1"),
        ("TACHO_INGEST_SERVICE_PORT_GRPC", "4317"),
    ];
    let (_dir, sources) = sources(file, &env, &[("timeout", "30s")]);
    let (settings, faults) = load::<Settings>(&sources);
    assert_eq!(faults, Vec::<String>::new());
    assert_eq!(
        (settings.workers, settings.keep, settings.size),
        (3, true, Size(2 << 20))
    );
    assert_eq!(settings.timeout, Span(Duration::from_secs(30)));
    assert_eq!(
        (
            settings.kafka.bootstrap_servers.as_str(),
            settings.kafka.prefix.as_str()
        ),
        ("env:1", "file.")
    );
    assert_eq!(settings.kafka.options.0["socket.timeout.ms"].0, "2000");
    assert_eq!(settings.kafka.options.0["socket.keepalive.enable"].0, "true");
    assert_eq!(
        settings
            .kafka
            .sasl
            .as_ref()
            .unwrap()
            .password
            .as_ref()
            .unwrap()
            .reveal(),
        "12345"
    );
    let printed = print(&settings);
    assert!(
        printed.contains("password = \"***\"") && !printed.contains("12345"),
        "{printed}"
    );
    assert!(
        printed.contains("timeout = \"30s\"") && printed.contains("size = \"2MiB\""),
        "{printed}"
    );
}

#[test]
fn what_is_printed_can_be_read_again() {
    let (_dir, first) = sources(
        "workers = 4\n[kafka]\nbootstrap_servers = 'a:1'\n[kafka.options]\n'socket.timeout.ms' = 1000",
        &[],
        &[],
    );
    let (settings, _) = load::<Settings>(&first);
    let (_again_dir, second) = sources(&print(&settings), &[], &[]);
    assert_eq!(load::<Settings>(&second), (settings, vec![]));
}

#[test]
fn every_fault_is_told_with_where_it_is() {
    let file = "wokers = 2\nworkers = 'many'\ntimeout = 15\n[kafka]\nservers = 'a:1'\nsasl = { username = 'me', password = [] }\n[log]\nformat = 'xml'";
    let (_dir, sources) = sources(
        file,
        &[("TACHO_SIZE", "big"), ("TACHO_KAFKA__PREFX", "x")],
        &[("listen", "nowhere")],
    );
    let (settings, faults) = load::<Settings>(&sources);
    let text = faults.join("\n");
    assert_eq!(faults.len(), 9, "{text}");
    for parts in [
        ["wokers: there is no such setting", "settings.toml"],
        ["workers: must be", "settings.toml"],
        ["timeout: must be a duration", "settings.toml"],
        [
            "kafka.servers: there is no such setting; there are: bootstrap_servers",
            "settings.toml",
        ],
        ["kafka.sasl.password: must be", "settings.toml"],
        [
            "log.format: is \"xml\", but must be one of: json, text",
            "settings.toml",
        ],
        ["size: must be a size", "the environment"],
        ["kafka.prefx: there is no such setting", "the environment"],
        ["listen: must be an address", "the command line"],
    ] {
        assert!(
            faults
                .iter()
                .any(|fault| parts.iter().all(|part| fault.contains(part))),
            "{parts:?} is not in:\n{text}"
        );
    }
    assert_eq!(
        settings.kafka.sasl.unwrap().username,
        "me",
        "what is right is kept"
    );
}

#[test]
fn a_file_that_is_none_is_one_fault() {
    let missing = Sources {
        file: Some("/does/not/exist".into()),
        ..Sources::default()
    };
    let (_, faults) = load::<Settings>(&missing);
    assert!(
        faults.len() == 1 && faults[0].starts_with("/does/not/exist: can't be read"),
        "{faults:?}"
    );
    let (_dir, wrong) = sources("workers = 1\npassword = hunter2", &[], &[]);
    let (_, faults) = load::<Settings>(&wrong);
    assert!(
        faults.len() == 1 && faults[0].contains("line 2") && !faults[0].contains("hunter2"),
        "{faults:?}"
    );
}
