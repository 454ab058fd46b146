//! Counts connections, requests and answers in the process's metrics.

use crate::connection::agent::Agent;
use crate::telemetry::Series;
use metrics::{Counter, Gauge, Histogram, Label};
use schemas::signal::Signal;
use std::sync::OnceLock;
use std::time::Duration;

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// OTLP/HTTP, protobuf or JSON.
    Http,
    /// OTLP/gRPC.
    Grpc,
}

impl Protocol {
    const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }

    /// The status code of a request that was taken.
    const fn success(self) -> u16 {
        match self {
            Self::Http => 200,
            Self::Grpc => 0,
        }
    }
}

/// The handles of requests, registered once. It must be made after the metrics recorder is installed.
pub(super) struct RequestTelemetry {
    /// Counters of requests that were taken, by protocol and signal; each is registered at its first request.
    taken: [[OnceLock<Counter>; 3]; 2],
    durations: [Histogram; 2],
}

impl RequestTelemetry {
    pub fn new() -> Self {
        Self {
            taken: Default::default(),
            durations: [Protocol::Http, Protocol::Grpc]
                .map(|protocol| Series::RequestDuration.histogram([Label::new("protocol", protocol.name())])),
        }
    }

    /// Counts an answer. `code` is the status code of the protocol, `refused` the reason of a refusal.
    pub fn answered(
        &self,
        protocol: Protocol,
        signal: Option<Signal>,
        code: u16,
        refused: Option<&'static str>,
        took: Duration,
    ) {
        let requests = || {
            Series::Requests.counter([
                Label::new("protocol", protocol.name()),
                Label::new("signal", signal.map_or("none", Signal::name)),
                Label::new("code", code.to_string()),
            ])
        };
        match signal.filter(|_| code == protocol.success()) {
            // Nearly all requests come here, so their counters are not looked up again.
            Some(signal) => self.taken[protocol as usize][signal as usize]
                .get_or_init(requests)
                .increment(1),
            None => requests().increment(1),
        }
        self.durations[protocol as usize].record(took.as_secs_f64());
        if let Some(reason) = refused {
            Series::Rejected
                .counter([Label::new("reason", reason)])
                .increment(1);
        }
    }

    /// Counts a refused request that its client probably does not send again. `may_come_again`: the client was told to.
    pub fn refused(&self, agent: Agent, may_come_again: bool) {
        if !(may_come_again && agent.sends_again()) {
            Series::ProbablyLost
                .counter([Label::new("agent", agent.label())])
                .increment(1);
        }
    }
}

/// Why the server closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// A request's head did not come in time.
    Header,
    /// No request came for too long.
    Idle,
    /// The peer broke the protocol.
    Protocol,
}

impl Cut {
    /// The reason as a label value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Idle => "idle",
            Self::Protocol => "protocol",
        }
    }
}

/// The handles of connections of all listeners. It must be made after the metrics recorder is installed.
pub(super) struct ConnectionTelemetry {
    /// How many connections are open.
    pub open: Gauge,
}

impl ConnectionTelemetry {
    pub fn new() -> Self {
        Self {
            open: Series::Connections.gauge([]),
        }
    }

    /// Counts a connection that the server closed.
    pub fn cut(&self, reason: Cut) {
        Series::ConnectionsCut
            .counter([Label::new("reason", reason.name())])
            .increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare::privacy::Counts;
    use crate::prepare::telemetry::PrepareTelemetry;
    use metrics::{CounterFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
    use schemas::event::PRIVATE_KEYS;
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    type Values = Arc<Mutex<BTreeMap<String, u64>>>;

    /// A recorder that keeps the values of counters, by name and labels.
    #[derive(Default)]
    struct Counters(Values);

    struct Cell(String, Values);

    impl CounterFn for Cell {
        fn increment(&self, value: u64) {
            *self
                .1
                .lock()
                .expect("no test panics with the lock")
                .entry(self.0.clone())
                .or_default() += value;
        }

        fn absolute(&self, _value: u64) {}
    }

    impl Recorder for Counters {
        fn describe_counter(&self, _key: KeyName, _unit: Option<Unit>, _help: SharedString) {}
        fn describe_gauge(&self, _key: KeyName, _unit: Option<Unit>, _help: SharedString) {}
        fn describe_histogram(&self, _key: KeyName, _unit: Option<Unit>, _help: SharedString) {}

        fn register_counter(&self, key: &Key, _metadata: &Metadata<'_>) -> Counter {
            let labels: Vec<_> = key
                .labels()
                .map(|label| format!("{}={}", label.key(), label.value()))
                .collect();
            Counter::from_arc(Arc::new(Cell(
                format!("{}{{{}}}", key.name(), labels.join(",")),
                Arc::clone(&self.0),
            )))
        }

        fn register_gauge(&self, _key: &Key, _metadata: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _key: &Key, _metadata: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn counts_go_to_the_series_of_their_rule() {
        let recorder = Counters::default();
        metrics::with_local_recorder(&recorder, || {
            let mut counts = Counts {
                stripped: 7,
                truncated: 9,
                ..Counts::default()
            };
            (
                counts.dropped[0],
                counts.dropped[PRIVATE_KEYS.len() + 1],
                counts.hashed[6],
                counts.unhashed[7],
            ) = (1, 8, 2, 3);
            counts.scrubbed.insert((2, "github-pat"), 4);
            PrepareTelemetry::new().cleaned(&counts);
            let telemetry = RequestTelemetry::new();
            telemetry.answered(
                Protocol::Http,
                Some(Signal::Logs),
                413,
                Some("body_size"),
                Duration::ZERO,
            );
            telemetry.refused(Agent::Rust(Some(31)), true);
            telemetry.refused(Agent::Collector, true);
            telemetry.refused(Agent::Collector, false);
        });
        let seen = recorder.0.lock().expect("no test panics with the lock").clone();
        let expected = [
            ("tacho_ingest_probably_lost_total{agent=collector}", 1),
            ("tacho_ingest_probably_lost_total{agent=rust-0.31}", 1),
            ("tacho_ingest_rejected_total{reason=body_size}", 1),
            (
                "tacho_ingest_requests_total{protocol=http,signal=logs,code=413}",
                1,
            ),
            (
                "tacho_redactions_total{field=output,rule=github-pat,action=scrub}",
                4,
            ),
            ("tacho_redactions_total{field=prompt,rule=policy,action=drop}", 1),
            (
                "tacho_redactions_total{field=span_events,rule=policy,action=drop}",
                8,
            ),
            ("tacho_redactions_total{field=tacho,rule=reserved,action=drop}", 7),
            (
                "tacho_redactions_total{field=user.account_id,rule=no_hash_key,action=drop}",
                3,
            ),
            (
                "tacho_redactions_total{field=user.email,rule=policy,action=hash}",
                2,
            ),
            ("tacho_span_events_removed_total{}", 8),
            ("tacho_truncated_values_total{}", 9),
        ];
        assert_eq!(
            seen,
            expected.map(|(name, count)| (name.to_owned(), count)).into()
        );
    }
}
