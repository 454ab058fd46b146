//! How to reach a Kafka cluster: addresses, prefixes, and librdkafka properties. Ingest and processor have it
//! in common.
//!
//! Each client takes the cluster's properties before its own, so that nothing passed through by an operator
//! weakens those. The names in `PROTECTED`, on which correctness rests, are refused.

use schemas::topic::{Prefix, Topic};
use std::collections::BTreeMap;
use std::fmt;

/// The name of a derivation that has neither a name nor a prefix of its own.
pub const MAIN: &str = "main";

/// Longest prefix of topic names: Kafka takes names of up to 249 characters.
pub const PREFIX_MAX: usize = 100;

/// The longest time that a client waits before it connects again, ms: a broker that is back should be used soon.
const RECONNECT_MAX_MS: &str = "1000";

/// librdkafka properties that an operator can't pass through, each with the reason: correctness rests on them, or other
/// settings give them.
pub const PROTECTED: &[(&str, &str)] = &[
    ("acks", "what is answered must be on all in-sync replicas"),
    (
        "allow.auto.create.topics",
        "topics are made by `tacho topics apply`, with their settings",
    ),
    (
        "auto.offset.reset",
        "a position that is gone must be told, never skipped",
    ),
    ("bootstrap.servers", "it has a setting of its own"),
    ("check.crcs", "a broken record must be told"),
    ("auto.commit.enable", "positions are committed with the results"),
    ("enable.auto.commit", "positions are committed with the results"),
    (
        "enable.auto.offset.store",
        "positions are committed with the results",
    ),
    (
        "enable.gapless.guarantee",
        "an append that failed is handled by the program",
    ),
    ("enable.idempotence", "a record must not be doubled by a retry"),
    ("enable.partition.eof", "the program decides who sees the end"),
    ("group.id", "it has a setting of its own"),
    ("group.instance.id", "it has a setting of its own"),
    ("group.protocol", "membership rests on the classic protocol"),
    ("heartbeat.interval.ms", "it follows the session timeout"),
    (
        "isolation.level",
        "results of aborted transactions must not be read",
    ),
    ("max.in.flight.requests.per.connection", "order rests on it"),
    ("message.max.bytes", "it fits the topics' own limit"),
    (
        "message.timeout.ms",
        "it fits the transaction, and the answer to the client",
    ),
    (
        "partition.assignment.strategy",
        "hand-over rests on cooperative-sticky",
    ),
    ("queuing.strategy", "order rests on it"),
    ("retries", "a record must not be given up early"),
    ("session.timeout.ms", "it has a setting of its own"),
    (
        "transaction.timeout.ms",
        "a dead worker's transaction must not hold up others",
    ),
    (
        "transactional.id",
        "it is made from the names of group, pod and worker",
    ),
];

/// Properties that librdkafka knows under two names: the other name, and the one that this program uses (CONFIGURATION.md of
/// librdkafka, "Alias for"). A client that is given both takes either, so properties are passed on under one name only.
const ALIASES: &[(&str, &str)] = &[
    ("compression.codec", "compression.type"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("message.send.max.retries", "retries"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("request.required.acks", "acks"),
    ("sasl.mechanisms", "sasl.mechanism"),
];

/// The name under which this program passes a property on.
fn name_in_use(name: &str) -> &str {
    ALIASES
        .iter()
        .find(|(alias, _)| *alias == name)
        .map_or(name, |(_, used)| used)
}

/// A cluster, the names of our topics there, and librdkafka properties for every client.
///
/// `Debug` shows no value of [`Cluster::options`]: passwords are among them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// `HOST:PORT`, several with commas between.
    pub bootstrap: String,
    /// Put before the names of topics that all derivations of a log share: raw, inbox, quarantine, control and labels; may
    /// be empty.
    pub prefix: String,
    /// Put before the names of what is derived: deltas, changelogs, rows, and the consumer group; equal to `prefix` unless a
    /// second derivation stands beside the first.
    pub derived_prefix: String,
    /// librdkafka properties: security, and what an operator passes through.
    pub options: BTreeMap<String, String>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.options.keys().map(String::as_str).collect();
        f.debug_struct("Cluster")
            .field("bootstrap", &self.bootstrap)
            .field("prefix", &self.prefix)
            .field("derived_prefix", &self.derived_prefix)
            .field("options", &names)
            .finish()
    }
}

impl Cluster {
    /// A cluster without TLS and passwords.
    #[must_use]
    pub fn plain(bootstrap: &str, prefix: &str) -> Self {
        Self {
            bootstrap: bootstrap.to_owned(),
            prefix: prefix.to_owned(),
            derived_prefix: prefix.to_owned(),
            options: BTreeMap::new(),
        }
    }

    /// The same cluster, with another derivation of the same log.
    #[must_use]
    pub fn deriving(self, derived_prefix: &str) -> Self {
        Self {
            derived_prefix: derived_prefix.to_owned(),
            ..self
        }
    }

    /// The name of a topic on the cluster.
    #[must_use]
    pub fn topic(&self, topic: Topic) -> String {
        let def = topic.def();
        let prefix = match def.prefix {
            Prefix::Log => &self.prefix,
            Prefix::Derived => &self.derived_prefix,
        };
        format!("{prefix}{}", def.name)
    }

    /// The flags that name the prefixes on a command line, each with a space before it; empty where there are none.
    #[must_use]
    pub fn prefix_flags(&self) -> String {
        let mut flags = String::new();
        if !self.prefix.is_empty() {
            flags += &format!(" --prefix {}", self.prefix);
        }
        if self.derived_prefix != self.prefix {
            flags += &format!(" --derived-prefix {}", self.derived_prefix);
        }
        flags
    }

    /// What the derivation is called where nobody gave it a name: the derived prefix, else the prefix, else `main`.
    #[must_use]
    pub fn derivation_name(&self) -> &str {
        [&self.derived_prefix, &self.prefix]
            .into_iter()
            .find(|prefix| !prefix.is_empty())
            .map_or(MAIN, String::as_str)
    }

    /// The librdkafka properties that every client begins with: those passed through, then our own, which win. Whatever a
    /// client sets after these wins too, so that nothing passed through can weaken it.
    pub fn properties(&self, client_id: &str) -> impl Iterator<Item = (String, String)> {
        let ours = [
            ("bootstrap.servers", self.bootstrap.as_str()),
            ("client.id", client_id),
            ("reconnect.backoff.max.ms", RECONNECT_MAX_MS),
        ];
        let ours = ours.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let theirs = self.options.iter();
        theirs
            .map(|(name, value)| (name_in_use(name).to_owned(), value.clone()))
            .chain(ours)
    }

    /// Every fault of the address, the prefix and the properties, in words.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let named = |server: &str| {
            server.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
            })
        };
        if !self.bootstrap.split(',').all(|server| named(server.trim())) {
            faults.push(format!(
                "the bootstrap servers {:?} are not HOST:PORT, with commas between several",
                self.bootstrap
            ));
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let mut prefixes = vec![("prefix", &self.prefix)];
        if self.derived_prefix != self.prefix {
            prefixes.push(("derived prefix", &self.derived_prefix));
        }
        for (name, prefix) in prefixes {
            if prefix.len() > PREFIX_MAX || !prefix.chars().all(fits) {
                faults.push(format!(
                    "the {name} {prefix:?} must be at most {PREFIX_MAX} letters, digits, '.', '_' or '-'"
                ));
            }
        }
        for name in self.options.keys() {
            let used = name_in_use(name);
            if let Some((_, why)) = PROTECTED.iter().find(|(name, _)| *name == used) {
                faults.push(format!("the Kafka option {name} can't be set: {why}"));
            }
            if used != name && self.options.contains_key(used) {
                faults.push(format!(
                    "the Kafka options {name} and {used} are one option: give one of them"
                ));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_through_comes_first_and_ours_wins() {
        let mut cluster = Cluster::plain("a:1", "");
        cluster
            .options
            .insert("client.id".to_owned(), "theirs".to_owned());
        cluster.options.insert("debug".to_owned(), "broker".to_owned());
        let set: BTreeMap<String, String> = cluster.properties("ours").collect();
        let value = |name: &str| set.get(name).map(String::as_str);
        assert_eq!(
            (value("client.id"), value("debug"), value("bootstrap.servers")),
            (Some("ours"), Some("broker"), Some("a:1"))
        );
    }

    #[test]
    fn every_fault_is_named_and_no_secret_is_shown() {
        let mut cluster = Cluster::plain("kafka", "a/b");
        for (name, value) in [
            ("acks", "1"),
            ("delivery.timeout.ms", "5"),
            ("linger.ms", "1"),
            ("queue.buffering.max.ms", "2"),
            ("sasl.password", "hunter2"),
        ] {
            cluster.options.insert(name.to_owned(), value.to_owned());
        }
        let faults = cluster.faults().join("; ");
        for part in [
            "\"kafka\"",
            "\"a/b\"",
            "acks can't be set",
            "delivery.timeout.ms can't be set",
            "queue.buffering.max.ms and linger.ms are one option",
        ] {
            assert!(faults.contains(part), "{part} is not in {faults}");
        }
        let shown = format!("{cluster:?}");
        assert!(
            shown.contains("sasl.password") && !shown.contains("hunter2"),
            "{shown}"
        );
        assert_eq!(Cluster::plain("a:1,b:2", "lab.").faults(), Vec::<String>::new());
    }

    #[test]
    fn librdkafka_takes_both_names_for_one_property() {
        for (alias, used) in ALIASES {
            let value = match *used {
                "bootstrap.servers" => "a:7",
                "compression.type" => "zstd",
                "sasl.mechanism" => "PLAIN",
                _ => "7",
            };
            let native = rdkafka::ClientConfig::new()
                .set(*alias, value)
                .create_native_config()
                .unwrap();
            assert_eq!(native.get(used).unwrap(), value, "{alias}");
        }
    }
}
