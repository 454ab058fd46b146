//! How to reach a Kafka cluster: what ingest and processor have in common.

use std::collections::BTreeMap;
use std::fmt;

/// Longest prefix of topic names: Kafka takes names of up to 249 characters.
pub const PREFIX_MAX: usize = 100;

/// How long a client waits before it connects again, at most, ms: a broker that is back should not wait for us.
const RECONNECT_MAX_MS: &str = "1000";

/// librdkafka properties that correctness rests on, or that other settings give: never to be passed through.
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
    ("max.in.flight", "order rests on it"),
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

/// A cluster, the names of our topics there, and librdkafka properties for every client.
///
/// `Debug` shows no value of [`Cluster::options`]: passwords are among them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// `HOST:PORT`, several with commas between.
    pub bootstrap: String,
    /// Put before every topic's name; may be empty.
    pub prefix: String,
    /// librdkafka properties: security, and what an operator passes through.
    pub options: BTreeMap<String, String>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.options.keys().map(String::as_str).collect();
        f.debug_struct("Cluster")
            .field("bootstrap", &self.bootstrap)
            .field("prefix", &self.prefix)
            .field("options", &names)
            .finish()
    }
}

impl Cluster {
    /// A cluster that asks for no security.
    #[must_use]
    pub fn plain(bootstrap: &str, prefix: &str) -> Self {
        Self {
            bootstrap: bootstrap.to_owned(),
            prefix: prefix.to_owned(),
            options: BTreeMap::new(),
        }
    }

    /// The librdkafka properties that every client begins with: what is passed through, then what is ours, which wins.
    /// Whatever a client sets after these wins too, so that nothing passed through can weaken it.
    pub fn properties(&self, client_id: &str) -> impl Iterator<Item = (String, String)> {
        let ours = [
            ("bootstrap.servers", self.bootstrap.as_str()),
            ("client.id", client_id),
            ("reconnect.backoff.max.ms", RECONNECT_MAX_MS),
        ];
        let ours = ours.map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.options.clone().into_iter().chain(ours)
    }

    /// Everything that is wrong with it, in words; empty: nothing.
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
        if self.prefix.len() > PREFIX_MAX || !self.prefix.chars().all(fits) {
            faults.push(format!(
                "the prefix {:?} must be at most {PREFIX_MAX} letters, digits, '.', '_' or '-'",
                self.prefix
            ));
        }
        for (name, why) in PROTECTED {
            if self.options.contains_key(*name) {
                faults.push(format!("the Kafka option {name} can't be set: {why}"));
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
        cluster.options.insert("acks".to_owned(), "1".to_owned());
        cluster
            .options
            .insert("sasl.password".to_owned(), "hunter2".to_owned());
        let faults = cluster.faults().join("; ");
        for part in ["\"kafka\"", "\"a/b\"", "acks"] {
            assert!(faults.contains(part), "{part} is not in {faults}");
        }
        let shown = format!("{cluster:?}");
        assert!(
            shown.contains("sasl.password") && !shown.contains("hunter2"),
            "{shown}"
        );
        assert_eq!(Cluster::plain("a:1,b:2", "lab.").faults(), Vec::<String>::new());
    }
}
