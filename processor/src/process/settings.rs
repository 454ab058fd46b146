//! The settings of `tacho-processor`.

use crate::derivation::DerivationSection;
use crate::runner::{BEHIND_INTERVAL_MAX, Options};
use crate::workers::WORKERS_MAX;
use processor_log::cluster::Cluster;
use processor_log::kafka::SESSION_TIMEOUT;
use serde::{Deserialize, Serialize};
use settings::kafka::KafkaSection;
use settings::layers::{Sources, load};
use settings::log::LogSection;
use settings::units::{Listen, Span};
use std::collections::BTreeMap;
use std::time::Duration;

/// The most bytes of the name of a group or of a process.
const NAME_MAX: usize = 100;
/// The shortest and the longest session timeout. Brokers have bounds of their own, 6 s and 30 min by default.
const SESSION_TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(1800);
/// The shortest and the longest commit interval. A transaction must end well before brokers abort it, after 10 s.
const COMMIT_INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(5);
/// The highest value of `commit.records_max`.
const COMMIT_RECORDS_MAX: usize = 1_000_000;
/// The file in which Linux gives the name of the host.
const HOST_NAME_FILE: &str = "/proc/sys/kernel/hostname";

/// All settings of the process.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The cluster.
    pub kafka: KafkaSection,
    /// The derivation that this process computes.
    pub derivation: DerivationSection,
    /// The consumer group, and this process in it.
    pub group: Group,
    /// When to commit.
    pub commit: CommitSection,
    /// The port with metrics and probes.
    pub admin: Port,
    /// The log messages of the process.
    pub log: LogSection,
}

/// The consumer group, and this process in it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Group {
    /// The id of the group. If left out, it is the derived prefix followed by `tacho`.
    pub id: Option<String>,
    /// The name of this process, unique in the group and the same after a restart. If left out, it is the name of the host.
    pub name: Option<String>,
    /// Whether the group keeps the partitions of a process that stopped for the process that takes its name.
    pub membership: Membership,
    /// How long a worker may be silent before it loses its partitions.
    pub session_timeout: Span,
    /// The number of workers: threads, each with a consumer and a producer of its own.
    pub workers: usize,
}

/// Whether the members of a process are static (KIP-345).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Membership {
    /// Members are known by name: a restart within the session timeout moves no partition.
    Static,
    /// Members are not known by name: the partitions of a process that stops go to others at once.
    Dynamic,
}

/// When to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommitSection {
    /// The longest time between the first record of a commit and the commit.
    pub interval: Span,
    /// The most records that are folded before a commit.
    pub records_max: usize,
}

/// A port that the process listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The address and number of the port.
    pub listen: Listen,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            kafka: KafkaSection::default(),
            derivation: DerivationSection::default(),
            group: Group::default(),
            commit: CommitSection::default(),
            admin: Port {
                listen: Listen(([127, 0, 0, 1], 9464).into()),
            },
            log: LogSection::default(),
        }
    }
}

impl Default for Group {
    fn default() -> Self {
        Self {
            id: None,
            name: None,
            membership: Membership::Static,
            session_timeout: Span(SESSION_TIMEOUT),
            workers: 1,
        }
    }
}

impl Default for CommitSection {
    fn default() -> Self {
        let options = Options::default();
        Self {
            interval: Span(options.commit_interval),
            records_max: options.records_max,
        }
    }
}

/// Settings without a fault, and what follows from them.
#[derive(Debug)]
pub struct Effective {
    /// The settings as given, with what was left out filled in.
    pub given: Settings,
    /// The cluster.
    pub cluster: Cluster,
    /// The name of the derivation: the value of label `log` of its results.
    pub log: String,
    /// The id of the consumer group.
    pub group: String,
    /// The name of this process in the group.
    pub name: String,
    /// Whether the members of this process are static.
    pub is_static: bool,
    /// How long a worker may be silent before it loses its partitions.
    pub session_timeout: Duration,
    /// The number of workers.
    pub workers: usize,
    /// The options of each worker.
    pub options: Options,
}

/// The name of this host: the variable `HOSTNAME`, else the name that the kernel gives; `None` if neither is there.
pub fn host_name(env: &BTreeMap<String, String>) -> Option<String> {
    let name = env
        .get("HOSTNAME")
        .cloned()
        .or_else(|| std::fs::read_to_string(HOST_NAME_FILE).ok());
    name.map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
}

impl Settings {
    /// Reads the settings from all layers; `host` is the name of the process if none is given.
    ///
    /// # Errors
    /// Settings are at fault; all faults are named.
    pub fn read(sources: &Sources, host: Option<String>) -> Result<Effective, Vec<String>> {
        let (mut given, mut faults) = load::<Self>(sources);
        let cluster = given.kafka.cluster(&mut faults);
        given.log.check(&mut faults);
        let group = given
            .group
            .id
            .get_or_insert_with(|| format!("{}tacho", cluster.derived_prefix))
            .clone();
        let derivation = given.derivation.derivation(&cluster, &mut faults);
        given.derivation.name = Some(derivation.name.clone());
        let name = given.group.name.take().or(host).unwrap_or_default();
        given.group.name = Some(name.clone());
        for (setting, name) in [("group.id", &group), ("group.name", &name)] {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(fits) {
                faults.push(format!(
                    "{setting}: {name:?} must be 1 to {NAME_MAX} letters, digits, '.', '_' or '-'"
                ));
            }
        }
        let session_timeout = given.group.session_timeout.0;
        if !SESSION_TIMEOUTS.contains(&session_timeout) {
            faults.push("group.session_timeout: must be 1s to 30m".to_owned());
        }
        if !(1..=WORKERS_MAX).contains(&given.group.workers) {
            faults.push(format!("group.workers: must be 1 to {WORKERS_MAX}"));
        }
        if !COMMIT_INTERVALS.contains(&given.commit.interval.0) {
            faults.push("commit.interval: must be 10ms to 5s".to_owned());
        }
        if !(1..=COMMIT_RECORDS_MAX).contains(&given.commit.records_max) {
            faults.push(format!("commit.records_max: must be 1 to {COMMIT_RECORDS_MAX}"));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let options = Options {
            commit_interval: given.commit.interval.0,
            // Results are shown for half the session timeout after a commit, and a commit must come well before that is over.
            behind_interval: BEHIND_INTERVAL_MAX.min(session_timeout / 5),
            records_max: given.commit.records_max,
            ticks: derivation.ticks,
            derived_prefix: derivation.prefix,
            ..Options::default()
        };
        let is_static = given.group.membership == Membership::Static;
        let workers = given.group.workers;
        Ok(Effective {
            given,
            cluster,
            log: derivation.name,
            group,
            name,
            is_static,
            session_timeout,
            workers,
            options,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(env: &[(&str, &str)]) -> Result<Effective, Vec<String>> {
        let env: BTreeMap<String, String> = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Settings::read(
            &Sources {
                file: None,
                env,
                flags: vec![],
            },
            Some("host".to_owned()),
        )
    }

    #[test]
    fn group_and_name_have_their_defaults() {
        let settings = read(&[
            ("TACHO_KAFKA__BOOTSTRAP_SERVERS", "a:1"),
            ("TACHO_KAFKA__PREFIX", "lab."),
        ])
        .unwrap();
        assert_eq!(
            (
                settings.group.as_str(),
                settings.name.as_str(),
                settings.is_static
            ),
            ("lab.tacho", "host", true)
        );
        assert_eq!((settings.session_timeout, settings.workers), (SESSION_TIMEOUT, 1));
        assert_eq!(
            settings.options.commit_interval,
            Options::default().commit_interval
        );
        let printed = settings::layers::print(&settings.given);
        assert!(
            printed.contains("name = \"host\"") && printed.contains("session_timeout = \"15s\""),
            "{printed}"
        );
        assert_eq!(
            host_name(&BTreeMap::from([("HOSTNAME".to_owned(), "pod-0".to_owned())])),
            Some("pod-0".to_owned())
        );
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let env = [
            ("TACHO_GROUP__ID", "a b"),
            ("TACHO_GROUP__NAME", "a/b"),
            ("TACHO_GROUP__MEMBERSHIP", "sticky"),
            ("TACHO_GROUP__SESSION_TIMEOUT", "10ms"),
            ("TACHO_GROUP__WORKERS", "65"),
            ("TACHO_COMMIT__INTERVAL", "1h"),
            ("TACHO_COMMIT__RECORDS_MAX", "0"),
            ("TACHO_HTTP__LISTEN", "127.0.0.1:1"),
            ("TACHO_KAFKA__OPTIONS__ISOLATION_LEVEL", "read_uncommitted"),
        ];
        let faults = read(&env).unwrap_err();
        let parts = [
            "group.id",
            "group.name",
            "group.membership: is \"sticky\", but must be one of: static, dynamic",
            "group.session_timeout",
            "group.workers",
            "commit.interval",
            "commit.records_max",
            "http: there is no such setting",
            "isolation.level",
            "bootstrap_servers",
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
    fn the_shipped_examples_are_right() {
        for (name, group, member) in [
            ("processor.toml", "tacho", "processor-0"),
            ("ci/processor.toml", "ci.tacho", "ci-1"),
        ] {
            let file = format!("{}/../deploy/examples/{name}", env!("CARGO_MANIFEST_DIR"));
            let settings = Settings::read(
                &Sources {
                    file: Some(file.into()),
                    ..Sources::default()
                },
                None,
            )
            .unwrap();
            assert_eq!((settings.group.as_str(), settings.name.as_str()), (group, member));
        }
    }

    /// The manifests take certificates and the password from Secrets, which the test does not have.
    #[test]
    fn the_settings_in_the_manifests_lack_secrets_only() {
        for place in ["base", "overlays/example"] {
            let file = format!(
                "{}/../deploy/k8s/{place}/processor.toml",
                env!("CARGO_MANIFEST_DIR")
            );
            let faults = Settings::read(
                &Sources {
                    file: Some(file.into()),
                    ..Sources::default()
                },
                Some("pod-0".to_owned()),
            )
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
