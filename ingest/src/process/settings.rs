//! Reads and checks what an operator can set.

mod sections;

use crate::prepare::config::Config;
use crate::prepare::environment::{Route, RouteFault, Routes};
use crate::sink::spool::BYTES_MIN;
use processor_log::cluster::Cluster;
pub use sections::PrivacySection;
use sections::{InboxSection, Limits, Port, SpoolSection};
use serde::{Deserialize, Serialize};
use settings::kafka::KafkaSection;
use settings::layers::{Sources, load};
use settings::log::LogSection;
use settings::process::check_distinct;
use std::time::Duration;

/// The shortest and longest session timeout; brokers have bounds of their own, 6 s and 30 min unless set otherwise.
const SESSION_TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(1800);

/// The shortest and longest time that a limit may be.
const LIMIT_TIMES: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);

/// All settings of the process.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Stores prompts, arguments, outputs and answers as they came, whatever the privacy policy says.
    pub keep_text: bool,
    /// The Kafka cluster.
    pub kafka: KafkaSection,
    /// Where OTLP over HTTP comes in.
    pub http: Port,
    /// Where OTLP over gRPC comes in; with the same address as `http`, both come in on one port.
    pub grpc: Port,
    /// Where metrics and probes are served.
    pub admin: Port,
    /// What bounds requests.
    pub limits: Limits,
    /// How the process takes part in draining the inbox topics.
    pub inbox: InboxSection,
    /// What the privacy policy needs beside itself.
    pub privacy: PrivacySection,
    /// Where requests wait while Kafka does not answer.
    pub spool: SpoolSection,
    /// What the process logs, and how.
    pub log: LogSection,
    /// The rules for records that go to topics of other prefixes; the first that fits a record counts.
    pub routes: Vec<Route>,
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

/// Settings without a fault, with what follows from them.
#[derive(Debug)]
pub struct Effective {
    /// The settings as they were given.
    pub given: Settings,
    /// The cluster, with the main prefix.
    pub cluster: Cluster,
    /// What bounds requests, and where they go.
    pub limits: Config,
}

impl Settings {
    /// Reads all layers of settings.
    ///
    /// # Errors
    /// Everything that is wrong with them, in words.
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

    /// What bounds requests, and where they go. What is wrong is added to `faults`.
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
        // A request holds its body and what the body is decoded to.
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
mod tests;
