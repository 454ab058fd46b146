use super::*;

fn read(env: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Effective, Vec<String>> {
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let flags = flags
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
    Settings::read(&Sources {
        file: None,
        env,
        flags,
    })
}

#[test]
fn the_defaults_need_a_cluster_and_nothing_else() {
    assert_eq!(
        read(&[], &[]).unwrap_err(),
        ["kafka.bootstrap_servers: is not set; give HOST:PORT"]
    );
    let settings = read(&[("TACHO_KAFKA__BOOTSTRAP_SERVERS", "a:1")], &[]).unwrap();
    assert_eq!(settings.limits, Config::default());
    assert_eq!(settings.cluster, Cluster::plain("a:1", ""));
    assert_eq!(
        (settings.given.http.listen, settings.given.grpc.listen),
        (Port::local(4318).listen, Port::local(4317).listen)
    );
    assert!(!settings.given.is_one_port());
}

#[test]
fn one_port_serves_both_protocols_and_the_admin_port_none() {
    let base = [("kafka.bootstrap_servers", "a:1"), ("http.listen", "127.0.0.1:1")];
    let with = |more: &[(&'static str, &str)]| read(&[], &[&base[..], more].concat());
    assert!(
        with(&[("grpc.listen", "127.0.0.1:1")])
            .unwrap()
            .given
            .is_one_port()
    );
    assert_eq!(
        with(&[("admin.listen", "127.0.0.1:1")]).unwrap_err(),
        ["http.listen and admin.listen are both 127.0.0.1:1: give each its own"]
    );
    assert!(
        with(&[("admin.listen", "127.0.0.1:4317")]).unwrap_err()[0].contains("grpc.listen and admin.listen")
    );
}

#[test]
fn every_fault_is_named_at_once() {
    let env = [
        ("TACHO_LIMITS__BODY_BYTES_MAX", "0"),
        ("TACHO_LIMITS__DECODED_BYTES_MAX", "2MiB"),
        ("TACHO_LIMITS__TENANT_BYTES_IN_FLIGHT_MAX", "1MiB"),
        ("TACHO_LIMITS__BYTES_IN_FLIGHT_MAX", "1KiB"),
        ("TACHO_LIMITS__CONNECTIONS_MAX", "0"),
        ("TACHO_LIMITS__IDLE_TIME_MAX", "1ms"),
        ("TACHO_LOG__FILTER", "a=b=c"),
        ("TACHO_KEEP_TXT", "true"),
        ("TACHO_KAFKA__OPTIONS__ACKS", "1"),
        ("TACHO_INBOX__SESSION_TIMEOUT", "1ms"),
        ("TACHO_SPOOL__BYTES_MAX", "1MiB"),
    ];
    let faults = read(&env, &[("http.listen", "nowhere")]).unwrap_err();
    let parts = [
        "limits.body_bytes_max: ",
        "limits.tenant_bytes",
        "limits.bytes_in",
        "connections_max",
        "idle_time_max",
        "log.filter",
        "keep_txt",
        "acks",
        "http.listen",
        "bootstrap_servers",
        "inbox.session",
        "spool.bytes",
    ];
    for part in parts {
        assert!(
            faults.iter().any(|fault| fault.contains(part)),
            "{part} is not in {faults:#?}"
        );
    }
    assert_eq!(faults.len(), parts.len(), "{faults:#?}");
}

#[test]
fn the_key_of_hashes_comes_from_one_place_and_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, " a key of some length\n").unwrap();
    let with = |more: &[(&str, &str)]| {
        read(
            &[&[("TACHO_KAFKA__BOOTSTRAP_SERVERS", "a:1")], more].concat(),
            &[],
        )
    };
    assert_eq!(with(&[]).unwrap().limits.hash_key, None);
    let given = with(&[("TACHO_PRIVACY__HASH_KEY", "a key of some length")]).unwrap();
    let path = file.to_str().unwrap();
    assert_eq!(
        given.limits.hash_key,
        with(&[("TACHO_PRIVACY__HASH_KEY_FILE", path)])
            .unwrap()
            .limits
            .hash_key
    );
    assert!(given.limits.hash_key.is_some());
    let shown = format!("{}{given:?}", settings::layers::print(&given.given));
    assert!(
        !shown.contains("of some length") && shown.contains("hash_key = \"***\""),
        "{shown}"
    );
    let both = with(&[
        ("TACHO_PRIVACY__HASH_KEY", "a key of some length"),
        ("TACHO_PRIVACY__HASH_KEY_FILE", path),
    ])
    .unwrap_err();
    assert_eq!(both, ["privacy.hash_key and hash_key_file: give one of them"]);
    let short = with(&[("TACHO_PRIVACY__HASH_KEY", "hunter2")])
        .unwrap_err()
        .join("\n");
    assert!(
        short.contains("has 7 bytes") && !short.contains("hunter2"),
        "{short}"
    );
    assert!(
        with(&[("TACHO_PRIVACY__HASH_KEY_FILE", "/no/such/file")]).unwrap_err()[0]
            .starts_with("privacy.hash_key_file")
    );
}

#[test]
fn the_shipped_examples_are_right() {
    let read = |name: &str| {
        let file = format!("{}/../deploy/examples/{name}", env!("CARGO_MANIFEST_DIR"));
        Settings::read(&Sources {
            file: Some(file.into()),
            ..Sources::default()
        })
        .unwrap()
    };
    let settings = read("ingest.toml");
    assert_eq!(settings.given.kafka.bootstrap_servers, "127.0.0.1:9092");
    assert!(settings.limits.routes.is_empty());
    let settings = read("ci/ingest.toml");
    assert_eq!(settings.limits.routes.prefixes(), ["ci."]);
    let printed = settings::layers::print(&settings.given);
    assert!(
        printed.contains("[[routes]]\nattribute = \"env\"\nvalue = \"ci\"\nprefix = \"ci.\"\n"),
        "{printed}"
    );
}

#[test]
fn faults_of_routes_are_told_with_all_others() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ingest.toml");
    let text = "[[routes]]\nattribut = \"env\"\nprefix = 7\n[[routes]]\nattribute = \"env\"\nvalue = \"ci\"\nprefix = \"a/b\"\n";
    std::fs::write(&file, text).unwrap();
    let faults = Settings::read(&Sources {
        file: Some(file),
        ..Sources::default()
    })
    .unwrap_err();
    for part in [
        "routes.0.attribut",
        "routes.0: names neither",
        "routes.1: the prefix \"a/b\"",
        "bootstrap_servers",
    ] {
        assert!(
            faults.iter().any(|fault| fault.contains(part)),
            "{part} is not in {faults:#?}"
        );
    }
}

/// The certificates and the password come from Kubernetes Secrets, which are not there in this test.
#[test]
fn the_settings_in_the_manifests_lack_secrets_only() {
    for place in ["base", "overlays/example"] {
        let file = format!("{}/../deploy/k8s/{place}/ingest.toml", env!("CARGO_MANIFEST_DIR"));
        let faults = Settings::read(&Sources {
            file: Some(file.into()),
            ..Sources::default()
        })
        .unwrap_err();
        assert!(
            faults.len() == 2
                && faults[0].starts_with("kafka.tls.ca_file")
                && faults[1].starts_with("kafka.sasl"),
            "{faults:?}"
        );
    }
}
