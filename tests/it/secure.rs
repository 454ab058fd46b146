//! A cluster that demands TLS and a password.

use crate::support::broker::Broker;
use crate::support::processes::{Launch, tacho};
use crate::support::{now_ms, otlp};
use std::path::Path;
use std::process::Command;

const STORE_PASSWORD: &str = "store-secret";

/// Runs `keytool`, which comes with Java.
fn keytool(dir: &Path, args: &[&str]) {
    let output = Command::new("keytool")
        .args(args)
        .args(["-storetype", "PKCS12", "-storepass", STORE_PASSWORD])
        .current_dir(dir)
        .output();
    let output = output.expect("tests need `keytool`, which comes with Java");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A broker with a certificate of its own and a user `tacho`.
fn broker(dir: &Path) -> Broker {
    let subject = [
        "-keyalg",
        "RSA",
        "-dname",
        "CN=127.0.0.1",
        "-ext",
        "san=ip:127.0.0.1",
        "-ext",
        "bc=ca:true",
        "-validity",
        "3650",
    ];
    keytool(
        dir,
        &[
            &["-genkeypair", "-alias", "broker", "-keystore", "keys.p12"],
            &subject[..],
        ]
        .concat(),
    );
    keytool(
        dir,
        &[
            "-exportcert",
            "-rfc",
            "-alias",
            "broker",
            "-keystore",
            "keys.p12",
            "-file",
            "ca.pem",
        ],
    );
    keytool(
        dir,
        &[
            "-importcert",
            "-noprompt",
            "-alias",
            "ca",
            "-file",
            "ca.pem",
            "-keystore",
            "trust.p12",
        ],
    );
    let users = "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"broker\" password=\"b-secret\" \
                 user_broker=\"b-secret\" user_tacho=\"hunter2\";";
    let (keys, trust) = (dir.join("keys.p12"), dir.join("trust.p12"));
    Broker::start(&[
        (
            "listener.security.protocol.map",
            "PLAINTEXT:SASL_SSL,CONTROLLER:PLAINTEXT",
        ),
        ("sasl.enabled.mechanisms", "PLAIN"),
        ("sasl.mechanism.inter.broker.protocol", "PLAIN"),
        ("listener.name.plaintext.plain.sasl.jaas.config", users),
        ("ssl.keystore.type", "PKCS12"),
        ("ssl.keystore.location", keys.to_str().unwrap()),
        ("ssl.keystore.password", STORE_PASSWORD),
        ("ssl.truststore.type", "PKCS12"),
        ("ssl.truststore.location", trust.to_str().unwrap()),
        ("ssl.truststore.password", STORE_PASSWORD),
    ])
}

#[test]
fn all_programs_reach_a_cluster_that_asks_for_tls_and_a_password() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(dir.path());
    let (file, password) = (dir.path().join("settings.toml"), dir.path().join("password"));
    std::fs::write(&password, "hunter2\n").unwrap();
    let settings = format!(
        "[kafka]\nbootstrap_servers = '{}'\n[kafka.tls]\nca_file = '{}'\n[kafka.sasl]\nmechanism = 'PLAIN'\nusername = 'tacho'\n\
         password_file = '{}'\n[admin]\nlisten = '127.0.0.1:0'\n",
        broker.bootstrap(),
        dir.path().join("ca.pem").display(),
        password.display()
    );
    std::fs::write(&file, settings).unwrap();
    let file = file.to_str().unwrap();
    let applied = tacho()
        .args(&[
            "topics",
            "apply",
            "--allow-single-broker",
            "--raw-partitions",
            "1",
            "--config",
            file,
        ])
        .run();
    assert!(applied.status.success(), "{applied:?}");

    let worker = Launch::new("tacho-processor", env!("CARGO_BIN_EXE_tacho-processor"));
    let worker = worker.args(&["--config", file]).set("group.name", "one").ready();
    let door = Launch::new("tacho-ingest", env!("CARGO_BIN_EXE_tacho-ingest")).args(&["--config", file]);
    let door = door
        .set("http.listen", "127.0.0.1:0")
        .set("grpc.listen", "127.0.0.1:0")
        .ready();
    door.logs(&otlp::encode(vec![otlp::prompt("c", now_ms())]));
    worker.wait_for_count("tacho_turns_total", &[], 1);
    assert!(!door.said().contains("hunter2") && !worker.said().contains("hunter2"));

    // A process with a wrong password does not start, and says why.
    std::fs::write(&password, "wrong").unwrap();
    let refused = tacho().args(&["topics", "check", "--config", file]).run();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
}
