//! The raw topics on a Kafka cluster, as a sink.

use crate::sink::linger::{Linger, UnderWay, WAIT_MS};
use crate::sink::partition::murmur2_partition;
use crate::sink::patience::Patience;
use crate::sink::{Fate, HOLD_LOGS, RawRecord, Sink, SinkError, conclude, hold};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use schemas::cluster::Cluster;
use schemas::record::{HEADER_POLICY, HEADER_WALL};
use schemas::signal::Signal;
use schemas::topic::Topic;
use shell::contact::Contact;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// The producer gives a record up after that time, long after its request was refused: clients that send once do not come
/// again. Longer than brokers take to notice that one of them is gone, by default 9 s.
pub const GIVE_UP: Duration = Duration::from_secs(30);
/// And so early before a spool, which takes over. (It looks once a second, so it may be a second more: who waits has a deadline
/// of its own.)
const GIVE_UP_TO_SPOOL: Duration = HOLD_LOGS;
/// A broker that does not answer for that long is asked again.
const REQUEST_TIME_MAX: Duration = HOLD_LOGS;
/// Pauses between two tries of a request, at first and at most: a new leader should not wait for us.
const RETRY_PAUSES_MS: (&str, &str) = ("50", "200");
/// The client asks who leads when a broker goes, which is before another one is chosen, and then every five minutes. A request
/// is held for seconds, so it asks that often.
pub(crate) const LEADERS_EVERY_MS: &str = "500";
/// Largest message, in bytes; the topics' `max.message.bytes` must be at least that.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Records that wait for the broker, at most.
const QUEUE_RECORDS_MAX: usize = 200_000;
/// And KiB of them.
const QUEUE_KIB_MAX: usize = 128 << 10;
/// A full queue is tried again that often.
const QUEUE_PAUSE: Duration = Duration::from_millis(10);
/// The partition counts are looked at that often.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// A look takes at most that long.
const CHECK_TIME_MAX: Duration = Duration::from_secs(3);

/// Why there is no sink.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The client does not take its settings.
    #[error("no Kafka client for {bootstrap}: check the address")]
    Client {
        /// The address that was given.
        bootstrap: String,
        /// What the client said.
        #[source]
        source: KafkaError,
    },
    /// The pinned count is no count.
    #[error("raw topics can't have {0} partitions: it must be at least 1")]
    Partitions(i32),
    /// No thread for the watch.
    #[error("no thread to watch the topics")]
    Thread(#[source] std::io::Error),
}

/// What is known of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum State {
    /// Not reached; records are tried all the same.
    Unreachable,
    /// Every raw topic is there, with the pinned count.
    Ready,
    /// A topic is missing or has another count: a record would end up where nobody expects it.
    Mismatch,
}

struct Shared {
    /// One for requests that are alone, and one for those of a crowd: the client's linger is fixed.
    producers: [Producing; 2],
    names: [String; 3],
    partitions: i32,
    state: AtomicU8,
}

/// A producer, and how to make it.
struct Producing {
    config: ClientConfig,
    producer: RwLock<FutureProducer>,
    contact: Contact,
}

impl Producing {
    fn new(cluster: &Cluster, linger_ms: u64, give_up: Duration) -> Result<Self, ConnectError> {
        let config = client_config(cluster, linger_ms, give_up);
        let producer = config.create().map_err(|source| ConnectError::Client {
            bootstrap: cluster.bootstrap.clone(),
            source,
        })?;
        Ok(Self {
            config,
            producer: RwLock::new(producer),
            contact: Contact::new(cluster, Topic::RawLogs),
        })
    }

    fn get(&self) -> FutureProducer {
        self.producer
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A producer that met a fatal error takes nothing more: another one takes its place.
    fn replace_if_dead(&self) {
        let mut producer = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        let Some((code, reason)) = producer.client().fatal_error() else {
            return;
        };
        tracing::error!(%code, reason, "the producer failed for good: making another");
        self.replace(&mut producer);
    }

    /// So does one that is cut off. What it holds has failed.
    fn replace_if_cut_off(&self) {
        let old = self.get();
        if self.contact.is_lost(old.client()) {
            self.replace(&mut self.producer.write().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn replace(&self, producer: &mut FutureProducer) {
        match self.config.create() {
            Ok(fresh) => *producer = fresh,
            Err(error) => tracing::error!(%error, "no other producer could be made"),
        }
    }
}

/// Writes raw records to a cluster, idempotently and to all in-sync replicas.
pub struct KafkaSink {
    shared: Arc<Shared>,
    linger: Arc<Linger>,
    patience: Arc<Patience>,
    cluster: Cluster,
}

/// A record that the producer has; resolves once it is durable, or given up.
pub struct Flight {
    delivery: DeliveryFuture,
    /// The request is under way until the last of its records is known of.
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
    /// Looks at the cluster once; one that is down, or has other counts, makes the sink not ready, and it looks again
    /// every five seconds.
    ///
    /// # Errors
    /// The settings are not usable.
    pub async fn connect(cluster: &Cluster, raw_partitions: i32) -> Result<Self, ConnectError> {
        Self::connect_for(cluster, raw_partitions, GIVE_UP).await
    }

    /// The same for a spool, which takes over what is not confirmed: the producer must have given it up by then.
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
        let shared = Arc::new(Shared {
            producers: [
                Producing::new(cluster, 0, give_up)?,
                Producing::new(cluster, WAIT_MS, give_up)?,
            ],
            names: Signal::ALL.map(|signal| format!("{}{}", cluster.prefix, signal.raw().name())),
            partitions: raw_partitions,
            state: AtomicU8::new(State::Unreachable as u8),
        });
        let first = Arc::clone(&shared);
        // A look that panicked leaves the sink not ready.
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

    /// The cluster that it writes to.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The pinned number of partitions.
    pub(crate) fn partitions(&self) -> i32 {
        self.shared.partitions
    }

    /// Looks at the cluster now: whether records would be taken. Blocks for up to three seconds.
    pub(crate) fn look_again(&self) -> bool {
        self.shared.check();
        self.shared.is(State::Ready)
    }

    /// Lets the producer send what it has, for so long at most. Blocks.
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

    /// To be called after a failure: a producer that failed for good is replaced.
    pub(crate) fn after_failure(&self) {
        self.shared.producers.iter().for_each(Producing::replace_if_dead);
    }

    /// Hands records to the producer, in order, with as much waiting for others as is good; what has no room by `until` has
    /// failed, and with it what is behind it.
    pub(crate) async fn launch(&self, records: &[RawRecord], until: Instant) -> Vec<Fate<Flight>> {
        let shared = &self.shared;
        let refused = |why: &str| Fate::Known(Err(SinkError::Unavailable(why.to_owned())));
        if shared.is(State::Mismatch) {
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

    /// Learns what becomes of records that are not confirmed, though nobody waits for them: so long there is an outage.
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
                // The client of it has been answered.
                let _ = flight.await;
            }
            drop(unconfirmed);
        });
    }
}

fn client_config(cluster: &Cluster, linger_ms: u64, give_up: Duration) -> ClientConfig {
    let mut config: ClientConfig = cluster.properties("tacho-ingest").collect();
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", linger_ms.to_string())
        .set("topic.metadata.refresh.interval.ms", LEADERS_EVERY_MS)
        .set("retry.backoff.ms", RETRY_PAUSES_MS.0)
        .set("retry.backoff.max.ms", RETRY_PAUSES_MS.1)
        .set("message.max.bytes", MESSAGE_BYTES_MAX.to_string())
        .set("message.timeout.ms", give_up.as_millis().to_string())
        .set("request.timeout.ms", REQUEST_TIME_MAX.as_millis().to_string())
        .set("queue.buffering.max.messages", QUEUE_RECORDS_MAX.to_string())
        .set("queue.buffering.max.kbytes", QUEUE_KIB_MAX.to_string());
    config
}

/// Looks at the topics for as long as the sink is there.
fn watch(shared: &Weak<Shared>) {
    loop {
        std::thread::sleep(CHECK_INTERVAL);
        let Some(shared) = shared.upgrade() else { return };
        shared.producers.iter().for_each(Producing::replace_if_cut_off);
        shared.check();
    }
}

impl Shared {
    fn is(&self, state: State) -> bool {
        self.state.load(Ordering::Relaxed) == state as u8
    }

    fn check(&self) {
        let state = self.look();
        let before = self.state.swap(state as u8, Ordering::Relaxed);
        if before != state as u8 {
            tracing::info!(?state, "raw topics looked at");
        }
    }

    /// Asks for all topics: asking for one by name could create it.
    fn look(&self) -> State {
        let metadata = match self.producers[0]
            .get()
            .client()
            .fetch_metadata(None, CHECK_TIME_MAX)
        {
            Ok(metadata) => metadata,
            Err(error) => {
                tracing::warn!(%error, "the cluster can't be reached");
                return State::Unreachable;
            }
        };
        for name in &self.names {
            let count = metadata
                .topics()
                .iter()
                .find(|topic| topic.name() == name)
                .map(|topic| topic.partitions().len());
            if count.and_then(|count| i32::try_from(count).ok()) != Some(self.partitions) {
                tracing::error!(topic = %name, ?count, pinned = self.partitions, "the topic has not the pinned number of partitions");
                return State::Mismatch;
            }
        }
        State::Ready
    }
}

/// Hands one record to the producer; waits for room in its queue up to `deadline`.
async fn enqueue(
    producer: &FutureProducer,
    name: &str,
    record: &RawRecord,
    partitions: i32,
    deadline: Instant,
) -> Result<DeliveryFuture, SinkError> {
    let partition = murmur2_partition(record.key.as_bytes(), partitions);
    loop {
        let wall = wall_ms().to_string();
        let headers = with_policy(
            OwnedHeaders::new().insert(Header {
                key: HEADER_WALL,
                value: Some(&wall),
            }),
            record,
        );
        let attempt = FutureRecord::to(name)
            .partition(partition)
            .key(&record.key)
            .payload(record.value.as_ref())
            .headers(headers);
        match producer.send_result(attempt) {
            Ok(delivery) => return Ok(delivery),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _))
                if Instant::now() < deadline =>
            {
                tokio::time::sleep(QUEUE_PAUSE).await;
            }
            Err((error, _)) => return Err(refusal(&error)),
        }
    }
}

/// The headers, and which policy the record was cleaned under.
pub(crate) fn with_policy(headers: OwnedHeaders, record: &RawRecord) -> OwnedHeaders {
    match record.policy {
        Some(epoch) => headers.insert(Header {
            key: HEADER_POLICY,
            value: Some(&epoch.to_string()),
        }),
        None => headers,
    }
}

/// Wall time, ms since the Unix epoch.
pub(crate) fn wall_ms() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis())
}

fn refusal(error: &KafkaError) -> SinkError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            SinkError::TooLarge(error.to_string())
        }
        _ => SinkError::Unavailable(error.to_string()),
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
        self.shared.is(State::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Port 9 of this host discards nothing and serves no Kafka: connections are refused.
    #[tokio::test]
    async fn without_a_broker_the_sink_is_there_but_not_ready_and_refuses_in_time() {
        let sink = KafkaSink::connect(&Cluster::plain("127.0.0.1:9", ""), 4)
            .await
            .unwrap();
        assert!(!sink.ready());
        let record = RawRecord {
            signal: Signal::Logs,
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
