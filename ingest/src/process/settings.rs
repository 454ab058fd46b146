//! What an operator can set.

use crate::Config;
use crate::inbox::SESSION_TIMEOUT;
use crate::prepare::environment::{Route, RouteFault, Routes};
use crate::prepare::hash::HashKey;
use crate::sink::spool::BYTES_MIN;
use schemas::cluster::Cluster;
use serde::{Deserialize, Serialize};
use shell::kafka::KafkaSection;
use shell::layers::{Sources, load};
use shell::log::LogSection;
use shell::process::check_distinct;
use shell::units::{Listen, Secret, Size, Span};
use std::path::PathBuf;
use std::time::Duration;

/// Shortest and longest session timeout; the brokers have bounds of their own, 6 s and 30 min unless set otherwise.
const SESSION_TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(1800);

/// What the times of limits may be.
const LIMIT_TIMES: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);

/// All settings of the process.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Stores prompts, arguments, outputs and answers as they came, whatever the privacy policy says.
    pub keep_text: bool,
    /// The cluster.
    pub kafka: KafkaSection,
    /// OTLP over HTTP.
    pub http: Port,
    /// OTLP over gRPC; the same address as `http`: both on one port.
    pub grpc: Port,
    /// Metrics and probes.
    pub admin: Port,
    /// What bounds requests.
    pub limits: Limits,
    /// What foreign writers put into the inbox topics.
    pub inbox: InboxSection,
    /// What the privacy policy needs that is no part of it.
    pub privacy: PrivacySection,
    /// Where requests wait while Kafka does not answer.
    pub spool: SpoolSection,
    /// The process's log.
    pub log: LogSection,
    /// What goes to topics of other prefixes: the first that fits counts.
    pub routes: Vec<Route>,
}

/// What foreign writers put into the inbox topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct InboxSection {
    /// Whether this process takes its share of draining them, where they are there.
    pub enabled: bool,
    /// A process that is silent for so long loses its share.
    pub session_timeout: Span,
}

/// What the privacy policy needs that is no part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrivacySection {
    /// The key of hashes itself; or
    pub hash_key: Option<Secret>,
    /// a file that holds it; space around it is left out. Neither: what a policy wants hashed is dropped.
    pub hash_key_file: Option<PathBuf>,
}

impl PrivacySection {
    /// The key, if one is given; what is wrong is added to `faults`.
    pub fn key(&self, faults: &mut Vec<String>) -> Option<HashKey> {
        let (name, read) = match (&self.hash_key, &self.hash_key_file) {
            (None, None) => return None,
            (Some(key), None) => ("hash_key".to_owned(), HashKey::new(key.reveal().as_bytes())),
            (None, Some(file)) => (
                format!("hash_key_file: {}", file.display()),
                HashKey::from_file(file),
            ),
            (Some(_), Some(_)) => {
                faults.push("privacy.hash_key and hash_key_file: give one of them".to_owned());
                return None;
            }
        };
        read.map_err(|error| faults.push(format!("privacy.{name}: {error}")))
            .ok()
    }
}

/// Where requests wait while Kafka does not answer: see [`crate::spool`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolSection {
    /// A directory of this process's own, on a volume that outlives it; none: there is no spool.
    pub directory: Option<PathBuf>,
    /// What it may hold, for each prefix that records go to; then requests are refused.
    pub bytes_max: Size,
}

impl Default for SpoolSection {
    fn default() -> Self {
        Self {
            directory: None,
            bytes_max: Size(1 << 30),
        }
    }
}

/// A listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Its address and port.
    pub listen: Listen,
}

/// What bounds requests: see [`Config`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest body as sent.
    pub body_bytes_max: Size,
    /// Largest body after decompression.
    pub decoded_bytes_max: Size,
    /// What one tenant's unanswered requests may hold.
    pub tenant_bytes_in_flight_max: Size,
    /// What all unanswered requests may hold.
    pub bytes_in_flight_max: Size,
    /// Open connections of all listeners.
    pub connections_max: usize,
    /// A request's head must have come within that time.
    pub header_time_max: Span,
    /// A request's body must have come within that time.
    pub body_time_max: Span,
    /// A connection without a request is closed after that time.
    pub idle_time_max: Span,
}

impl Port {
    fn local(port: u16) -> Self {
        Self {
            listen: Listen(([127, 0, 0, 1], port).into()),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keep_text: false,
            kafka: KafkaSection::default(),
            http: Port::local(4318),
            grpc: Port::local(4317),
            admin: Port::local(9465),
            limits: Limits::default(),
            inbox: InboxSection::default(),
            privacy: PrivacySection::default(),
            spool: SpoolSection::default(),
            log: LogSection::default(),
            routes: Vec::new(),
        }
    }
}

impl Default for InboxSection {
    fn default() -> Self {
        Self {
            enabled: true,
            session_timeout: Span(SESSION_TIMEOUT),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let config = Config::default();
        Self {
            body_bytes_max: Size(config.body_bytes_max as u64),
            decoded_bytes_max: Size(config.decoded_bytes_max as u64),
            tenant_bytes_in_flight_max: Size(config.tenant_bytes_in_flight_max),
            bytes_in_flight_max: Size(config.bytes_in_flight_max),
            connections_max: config.connections_max,
            header_time_max: Span(config.header_time_max),
            body_time_max: Span(config.body_time_max),
            idle_time_max: Span(config.idle_time_max),
        }
    }
}

/// Settings without a fault, and what follows from them.
#[derive(Debug)]
pub struct Effective {
    /// As they were given.
    pub given: Settings,
    /// The cluster.
    pub cluster: Cluster,
    /// For the doors.
    pub limits: Config,
}

impl Settings {
    /// Reads all layers.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn read(sources: &Sources) -> Result<Effective, Vec<String>> {
        let (given, mut faults) = load::<Self>(sources);
        let cluster = given.kafka.cluster(&mut faults);
        given.log.check(&mut faults);
        let addresses = [
            ("http.listen", given.http.listen.0),
            ("admin.listen", given.admin.listen.0),
        ];
        check_distinct(&addresses, &mut faults);
        if !given.is_one_port() {
            check_distinct(&[("grpc.listen", given.grpc.listen.0), addresses[1]], &mut faults);
        }
        if !SESSION_TIMEOUTS.contains(&given.inbox.session_timeout.0) {
            faults.push("inbox.session_timeout: must be between 1s and 30m".to_owned());
        }
        if given.spool.bytes_max.0 < BYTES_MIN {
            faults.push(format!(
                "spool.bytes_max: must be at least {}MiB",
                BYTES_MIN >> 20
            ));
        }
        let limits = given.limits(&mut faults);
        if faults.is_empty() {
            Ok(Effective {
                given,
                cluster,
                limits,
            })
        } else {
            Err(faults)
        }
    }

    /// Whether both protocols come in on one port.
    pub fn is_one_port(&self) -> bool {
        self.http.listen == self.grpc.listen && self.http.listen.0.port() != 0
    }

    fn limits(&self, faults: &mut Vec<String>) -> Config {
        let limits = self.limits;
        let mut want = |holds: bool, fault: &str| {
            if !holds {
                faults.push(format!("limits.{fault}"));
            }
        };
        want(limits.body_bytes_max.0 > 0, "body_bytes_max: must be at least 1");
        want(
            limits.decoded_bytes_max >= limits.body_bytes_max,
            "decoded_bytes_max: must be at least limits.body_bytes_max",
        );
        // A request holds its body and what that is decoded to.
        let whole = limits.body_bytes_max.0.saturating_add(limits.decoded_bytes_max.0);
        let tenant = limits.tenant_bytes_in_flight_max;
        want(
            tenant.0 >= whole,
            "tenant_bytes_in_flight_max: must be at least limits.body_bytes_max and limits.decoded_bytes_max together",
        );
        want(
            limits.bytes_in_flight_max >= tenant,
            "bytes_in_flight_max: must be at least limits.tenant_bytes_in_flight_max",
        );
        want(limits.connections_max > 0, "connections_max: must be at least 1");
        for (time, name) in [
            (limits.header_time_max, "header_time_max"),
            (limits.body_time_max, "body_time_max"),
            (limits.idle_time_max, "idle_time_max"),
        ] {
            want(
                LIMIT_TIMES.contains(&time.0),
                &format!("{name}: must be between 10ms and 1h"),
            );
        }
        let routes = Routes::new(&self.kafka.prefix, &self.routes);
        let hash_key = self.privacy.key(faults);
        Config {
            body_bytes_max: usize::try_from(limits.body_bytes_max.0).unwrap_or(usize::MAX),
            decoded_bytes_max: usize::try_from(limits.decoded_bytes_max.0).unwrap_or(usize::MAX),
            tenant_bytes_in_flight_max: tenant.0,
            bytes_in_flight_max: limits.bytes_in_flight_max.0,
            connections_max: limits.connections_max,
            header_time_max: limits.header_time_max.0,
            body_time_max: limits.body_time_max.0,
            idle_time_max: limits.idle_time_max.0,
            keep_text: self.keep_text,
            hash_key,
            routes: routes.unwrap_or_else(|errors| {
                faults.extend(errors.iter().map(RouteFault::to_string));
                Routes::default()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
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
            with(&[("admin.listen", "127.0.0.1:4317")]).unwrap_err()[0]
                .contains("grpc.listen and admin.listen")
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
        let shown = format!("{}{given:?}", shell::layers::print(&given.given));
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
        let printed = shell::layers::print(&settings.given);
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

    /// The certificates and the password come from Secrets, which are not here.
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
}
