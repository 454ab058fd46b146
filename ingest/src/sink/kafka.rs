//! The raw topics on a Kafka cluster, as a sink: idempotent producers with acks=all, and the time for which a
//! request is held.
//!
//! Codex sends a batch once, and its user waits at exit. So a log request is held for 4 s (`HOLD_LOGS`) and
//! another one for 0.4 s (`HOLD_OTHERS`), and all requests of one outage share 4 s (`patience.rs`), each with
//! 0.25 s at least. The producer goes on with what was refused for 30 s (`GIVE_UP`), for clients that send
//! once; before a spool for 4 s, since the spool takes over. A request that is refused while a record of it
//! is under way counts as `tacho_ingest_unsure_total`. It may come again, and its log records have dedup
//! marks.
//!
//! There are two producers, one that sends at once and one that gathers for 5 ms (`linger.rs`).
//!
//! librdkafka asks for new leaders when a broker goes, which is before one is chosen, and then every 5
//! minutes. The producers here let it ask every 0.5 s.

mod producer;
mod shared;

use crate::sink::linger::{Linger, UnderWay};
use crate::sink::patience::Patience;
use crate::sink::{Fate, RawRecord, Sink, SinkError, conclude, hold};
use processor_log::cluster::Cluster;
pub use producer::{GIVE_UP, MESSAGE_BYTES_MAX};
use producer::{GIVE_UP_TO_SPOOL, Producing, enqueue, refusal};
pub(crate) use producer::{LEADERS_EVERY_MS, wall_ms, with_policy};
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer;
use rdkafka::producer::future_producer::DeliveryFuture;
use shared::{RawTopics, Shared, watch};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// Why there is no sink.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// librdkafka does not take the client's settings.
    #[error("no Kafka client for {bootstrap}: check the address")]
    Client {
        /// The address that was given.
        bootstrap: String,
        /// What librdkafka said.
        #[source]
        source: KafkaError,
    },
    /// The pinned number of partitions is not positive.
    #[error("raw topics can't have {0} partitions: it must be at least 1")]
    Partitions(i32),
    /// The thread that watches the cluster can't be started.
    #[error("no thread to watch the topics")]
    Thread(#[source] std::io::Error),
}

/// Writes raw records to a cluster, idempotently and to all in-sync replicas.
pub struct KafkaSink {
    shared: Arc<Shared>,
    linger: Arc<Linger>,
    patience: Arc<Patience>,
    cluster: Cluster,
}

/// A record that a producer has; resolves once the record is durable or given up.
pub struct Flight {
    delivery: DeliveryFuture,
    /// The request that the record belongs to: it is under way until the fate of its last record is known.
    _under_way: Arc<UnderWay>,
}

impl Future for Flight {
    type Output = Result<(), SinkError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.delivery)
            .poll(context)
            .map(|delivered| match delivered {
                Ok(Ok(_)) => Ok(()),
                Ok(Err((error, _))) => Err(refusal(&error)),
                Err(gone) => Err(SinkError::Unavailable(gone.to_string())),
            })
    }
}

impl KafkaSink {
    /// A sink for the raw topics of a cluster, which were created with `raw_partitions` partitions.
    ///
    /// Looks at the cluster once, and again every five seconds. A cluster that is down, or whose topics have other numbers of
    /// partitions, makes the sink not ready.
    ///
    /// # Errors
    /// The settings are not usable.
    pub async fn connect(cluster: &Cluster, raw_partitions: i32) -> Result<Self, ConnectError> {
        Self::connect_for(cluster, raw_partitions, GIVE_UP).await
    }

    /// A sink like that of [`KafkaSink::connect`], in front of a spool, which takes over what is not confirmed in time: the
    /// producer gives a record up before that.
    ///
    /// # Errors
    /// The settings are not usable.
    pub async fn connect_before_spool(cluster: &Cluster, raw_partitions: i32) -> Result<Self, ConnectError> {
        Self::connect_for(cluster, raw_partitions, GIVE_UP_TO_SPOOL).await
    }

    async fn connect_for(
        cluster: &Cluster,
        raw_partitions: i32,
        give_up: Duration,
    ) -> Result<Self, ConnectError> {
        if raw_partitions < 1 {
            return Err(ConnectError::Partitions(raw_partitions));
        }
        let shared = Arc::new(Shared::new(cluster, raw_partitions, give_up)?);
        let first = Arc::clone(&shared);
        // A first look that panics leaves the sink not ready.
        let _ = tokio::task::spawn_blocking(move || first.check()).await;
        let watched = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("kafka-watch".to_owned())
            .spawn(move || watch(&watched))
            .map_err(ConnectError::Thread)?;
        Ok(Self {
            shared,
            linger: Arc::new(Linger::new()),
            patience: Arc::default(),
            cluster: cluster.clone(),
        })
    }

    /// The cluster that the sink writes to.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The pinned number of partitions.
    pub(crate) fn partitions(&self) -> i32 {
        self.shared.partitions
    }

    /// Looks at the cluster now, and tells whether records would be taken. Blocks for up to three seconds.
    pub(crate) fn look_again(&self) -> bool {
        self.shared.check();
        self.shared.is(RawTopics::Ready)
    }

    /// Lets the producers send what they have. Blocks, for `most` at most.
    pub(crate) fn flush(&self, most: Duration) {
        let until = std::time::Instant::now() + most;
        for producing in &self.shared.producers {
            if let Err(error) = producing
                .get()
                .flush(until.saturating_duration_since(std::time::Instant::now()))
            {
                tracing::debug!(%error, "the producer still has records");
            }
        }
    }

    /// Replaces a producer that failed for good. To be called after a failure.
    pub(crate) fn after_failure(&self) {
        self.shared.producers.iter().for_each(Producing::replace_if_dead);
    }

    /// Hands records to a producer in order, to the one that gathers for a while if the request is one of a crowd. Gives the
    /// fate of each record. A record for which there is no room by `until` has failed, and with it all behind it.
    pub(crate) async fn launch(&self, records: &[RawRecord], until: Instant) -> Vec<Fate<Flight>> {
        let shared = &self.shared;
        let refused = |why: &str| Fate::Known(Err(SinkError::Unavailable(why.to_owned())));
        if shared.is(RawTopics::Mismatch) {
            return records
                .iter()
                .map(|_| refused("the raw topics have not the pinned number of partitions"))
                .collect();
        }
        let under_way = Arc::new(Linger::arrive(&self.linger));
        let producer = shared.producers[usize::from(under_way.waits)].get();
        let mut fates = Vec::with_capacity(records.len());
        for record in records {
            let name = &shared.names[record.signal as usize];
            let sent = enqueue(&producer, name, record, shared.partitions, until).await;
            match sent {
                Ok(delivery) => fates.push(Fate::Open(Flight {
                    delivery,
                    _under_way: Arc::clone(&under_way),
                })),
                Err(error) => {
                    fates.push(Fate::Known(Err(error)));
                    break;
                }
            }
        }
        fates.resize_with(records.len(), || refused("a record before it was not taken"));
        fates
    }

    /// Waits for the fates of records that are not confirmed, though nobody else does any more: the outage lasts until all are
    /// known.
    fn listen_on(&self, came: Instant, fates: Vec<Fate<Flight>>) {
        let open = fates.into_iter().filter_map(|fate| {
            if let Fate::Open(flight) = fate {
                Some(flight)
            } else {
                None
            }
        });
        let open: Vec<Flight> = open.collect();
        if open.is_empty() {
            return;
        }
        let unconfirmed = self.patience.unconfirmed(came);
        tokio::spawn(async move {
            for flight in open {
                // The request was answered already, so nobody is told of the result.
                let _ = flight.await;
            }
            drop(unconfirmed);
        });
    }
}

impl Sink for KafkaSink {
    async fn append(&self, records: Vec<RawRecord>) -> Result<(), SinkError> {
        let now = Instant::now();
        let until = self.patience.until(now, hold(&records));
        let mut fates = self.launch(&records, until).await;
        for fate in &mut fates {
            fate.wait(until).await;
        }
        let result = conclude(&records, &fates);
        if result.is_err() {
            self.after_failure();
            self.listen_on(now, fates);
        }
        result
    }

    fn ready(&self) -> bool {
        self.shared.is(RawTopics::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No Kafka listens on port 9 of this host, where connections are refused.
    #[tokio::test]
    async fn without_a_broker_the_sink_is_there_but_not_ready_and_refuses_in_time() {
        let sink = KafkaSink::connect(&Cluster::plain("127.0.0.1:9", ""), 4)
            .await
            .unwrap();
        assert!(!sink.ready());
        let record = RawRecord {
            signal: schemas::signal::Signal::Logs,
            key: "default/c".to_owned(),
            value: bytes::Bytes::from_static(b"v"),
            part: 0,
            policy: None,
            environment: 0,
        };
        assert!(matches!(
            sink.append(vec![record]).await,
            Err(SinkError::Unavailable(_))
        ));
    }

    #[tokio::test]
    async fn no_partitions_are_no_sink() {
        assert!(matches!(
            KafkaSink::connect(&Cluster::plain("127.0.0.1:9", ""), 0).await,
            Err(ConnectError::Partitions(0))
        ));
    }
}
