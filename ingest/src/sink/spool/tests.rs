use super::*;
use bytes::Bytes;
use schemas::signal::Signal;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicBool;
use tokio::sync::watch;

/// How the log behind the spool behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kafka {
    Well,
    /// The log takes nothing; what is handed over is given up later.
    Away,
    /// The log confirms nothing in time, and has it all the same later.
    Slow,
}

type Done = oneshot::Sender<Result<(), SinkError>>;

#[derive(Default)]
struct Log {
    /// Keys and values in order, with the number of each record that was drained.
    records: Vec<(String, String, Option<u64>)>,
    sources: Vec<String>,
    waiting: Vec<(RawRecord, Kafka, Done)>,
}

#[derive(Clone)]
struct Fake(Arc<(Mutex<Log>, watch::Sender<Kafka>)>);

struct Waiting(oneshot::Receiver<Result<(), SinkError>>);

impl Future for Waiting {
    type Output = Result<(), SinkError>;
    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0)
            .poll(context)
            .map(|result| result.unwrap())
    }
}

impl Fake {
    fn new(kafka: Kafka) -> Self {
        Self(Arc::new((Mutex::default(), watch::Sender::new(kafka))))
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.0.lock().unwrap()
    }

    /// Changes how the log behaves, and settles what was handed over before.
    fn becomes(&self, kafka: Kafka) {
        let mut log = self.log();
        self.0.1.send_replace(kafka);
        for (record, was, done) in std::mem::take(&mut log.waiting) {
            let result = match was {
                Kafka::Slow => {
                    log.records.push((record.key, text(&record.value), None));
                    Ok(())
                }
                _ => Err(SinkError::Unavailable("given up".to_owned())),
            };
            let _ = done.send(result);
        }
    }
}

fn text(value: &Bytes) -> String {
    String::from_utf8(value.to_vec()).unwrap()
}

impl Upstream for Fake {
    type Flight = Waiting;
    type Outlet = Self;

    async fn launch(&self, records: &[RawRecord], _until: Instant) -> Vec<Fate<Waiting>> {
        let mut log = self.log();
        let kafka = *self.0.1.borrow();
        let fates = records.iter().map(|record| {
            if kafka == Kafka::Well {
                log.records.push((record.key.clone(), text(&record.value), None));
                return Fate::Known(Ok(()));
            }
            let (done, fate) = oneshot::channel();
            log.waiting.push((record.clone(), kafka, done));
            Fate::Open(Waiting(fate))
        });
        fates.collect()
    }

    fn after_failure(&self) {}

    fn ready(&self) -> bool {
        *self.0.1.borrow() == Kafka::Well
    }

    fn look_again(&self) -> bool {
        self.ready()
    }

    fn outlet(&self) -> Result<Self, OutletError> {
        Ok(self.clone())
    }
}

impl Outlet for Fake {
    fn write(
        &mut self,
        source: &str,
        records: &[(u64, RawRecord)],
        _stop: &AtomicBool,
    ) -> Result<(), OutletError> {
        let mut log = self.log();
        // A run that breaks off leaves its first half in the log.
        let is_well = self.ready();
        let taken = if is_well { records.len() } else { records.len() / 2 };
        log.sources.push(source.to_owned());
        for (number, record) in &records[..taken] {
            log.records
                .push((record.key.clone(), text(&record.value), Some(*number)));
        }
        if is_well { Ok(()) } else { Err(OutletError::CutOff) }
    }
}

/// A record of traces, which are spooled sooner than logs.
fn record(key: &str, value: impl Into<String>) -> RawRecord {
    RawRecord {
        signal: Signal::Traces,
        key: key.to_owned(),
        value: Bytes::from(value.into()),
        part: 0,
        policy: Some(3),
        environment: 0,
    }
}

fn start(dir: &Path, bytes_max: u64, kafka: &Fake) -> Arc<Spooled<Fake>> {
    Arc::new(
        Spooled::start(
            Taken::open(&dir.join("spool"), bytes_max).unwrap(),
            kafka.clone(),
            "",
        )
        .unwrap(),
    )
}

/// Waits until requests go directly.
async fn drained(spool: &Spooled<Fake>) {
    let mut mode = spool.core.mode.subscribe();
    tokio::time::timeout(
        Duration::from_secs(60),
        mode.wait_for(|mode| *mode == Mode::Direct),
    )
    .await
    .unwrap()
    .unwrap();
}

/// Waits until no task or thread uses the spool any more.
async fn alone(spool: &Spooled<Fake>) {
    while Arc::strong_count(&spool.core) > 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What the task that folds the partition takes: of a source only records above the last one taken.
fn folded(log: &Log) -> Vec<(String, String)> {
    let mut last = None;
    let fresh = log.records.iter().filter(|(_, _, number)| match number {
        Some(number) if last >= Some(*number) => false,
        Some(number) => {
            last = Some(*number);
            true
        }
        None => true,
    });
    fresh
        .map(|(key, value, _)| (key.clone(), value.clone()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn well_means_direct_and_away_means_spooled_until_all_is_drained() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Fake::new(Kafka::Well);
    let spool = start(dir.path(), BYTES_MIN, &kafka);
    spool.append(vec![record("a", "1")]).await.unwrap();
    assert!(!spool.is_active());
    kafka.becomes(Kafka::Away);
    spool
        .append(vec![record("a", "2"), record("b", "3")])
        .await
        .unwrap();
    assert!(spool.is_active() && spool.ready(), "ready with Kafka away");
    spool.append(vec![record("a", "4")]).await.unwrap();
    assert_eq!(kafka.log().records.len(), 1);
    kafka.becomes(Kafka::Well);
    drained(&spool).await;
    spool.append(vec![record("a", "5")]).await.unwrap();
    let log = kafka.log();
    assert_eq!(
        folded(&log)
            .into_iter()
            .map(|(_, value)| value)
            .collect::<Vec<_>>(),
        ["1", "2", "3", "4", "5"]
    );
    assert_eq!(
        log.records
            .iter()
            .filter(|(_, _, number)| number.is_some())
            .count(),
        3
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_has_after_all_is_not_drained_again() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Fake::new(Kafka::Slow);
    let spool = start(dir.path(), BYTES_MIN, &kafka);
    spool.append(vec![record("a", "1")]).await.unwrap();
    spool.append(vec![record("a", "2")]).await.unwrap();
    kafka.becomes(Kafka::Well);
    drained(&spool).await;
    let records: Vec<_> = kafka
        .log()
        .records
        .iter()
        .map(|(_, value, number)| (value.clone(), number.is_some()))
        .collect();
    assert_eq!(records, [("1".to_owned(), false), ("2".to_owned(), true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_process_drains_what_is_left_and_a_full_spool_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Fake::new(Kafka::Away);
    let spool = start(dir.path(), 10_000, &kafka);
    spool.append(vec![record("a", "1")]).await.unwrap();
    assert!(matches!(
        spool.append(vec![record("a", "x".repeat(20_000))]).await,
        Err(SinkError::Full(_))
    ));
    assert!(!spool.ready());
    spool.append(vec![record("a", "2")]).await.unwrap();
    assert!(spool.ready());
    spool.end();
    assert!(
        matches!(
            spool.append(vec![record("a", "3")]).await,
            Err(SinkError::Unavailable(_))
        ),
        "an end is an end"
    );
    kafka.becomes(Kafka::Away);
    alone(&spool).await;
    drop(spool);
    let spool = start(dir.path(), 10_000, &kafka);
    assert!(spool.is_active());
    kafka.becomes(Kafka::Well);
    drained(&spool).await;
    let log = kafka.log();
    assert_eq!(
        folded(&log),
        [("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())]
    );
    assert!(
        log.sources.windows(2).all(|pair| pair[0] == pair[1]),
        "one name for ever"
    );
}

/// Sends one request after the other until it is over. Gives the key, and the values of requests that were answered.
async fn send_until(
    over: &AtomicBool,
    spool: &Spooled<Fake>,
    client: usize,
    life: usize,
) -> (String, Vec<String>) {
    let (key, mut acked) = (format!("c{client}"), Vec::new());
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let values = [format!("{life}-{number:06}-0"), format!("{life}-{number:06}-1")];
        let records = values.iter().map(|value| record(&key, value)).collect();
        if spool.append(records).await.is_ok() {
            acked.extend(values);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (key, acked)
}

const CLIENTS: usize = 6;
const CHANGES: usize = 12;

/// Clients send one request after the other while Kafka comes and goes and the process is restarted. What was answered is in the
/// log, and what a client sent later does not stand before it.
#[tokio::test(flavor = "multi_thread")]
async fn order_and_everything_answered_hold_whatever_kafka_does() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Fake::new(Kafka::Well);
    let mut acked: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for life in 0..3 {
        let spool = start(dir.path(), BYTES_MIN, &kafka);
        let over = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (spool, over) = (Arc::clone(&spool), Arc::clone(&over));
                tokio::spawn(async move { send_until(&over, &spool, client, life).await })
            })
            .collect();
        for change in 0..CHANGES {
            kafka.becomes(
                [
                    Kafka::Away,
                    Kafka::Well,
                    Kafka::Slow,
                    Kafka::Well,
                    Kafka::Away,
                    Kafka::Slow,
                ][(change + life) % 6],
            );
            tokio::time::sleep(Duration::from_millis(30 + 97 * (change as u64 % 4))).await;
        }
        over.store(true, Ordering::Relaxed);
        for client in clients {
            let (key, more) = client.await.unwrap();
            acked.entry(key).or_default().extend(more);
        }
        spool.end();
        // Records that are still under way belong to the process that ended.
        kafka.becomes(Kafka::Well);
        alone(&spool).await;
    }
    let spool = start(dir.path(), BYTES_MIN, &kafka);
    drained(&spool).await;
    let folded = folded(&kafka.log());
    for (key, acked) in acked {
        let values: Vec<&String> = folded
            .iter()
            .filter(|(of, _)| *of == key)
            .map(|(_, value)| value)
            .collect();
        let mut first: Vec<&String> = Vec::new();
        values.iter().for_each(|value| {
            if !first.contains(value) {
                first.push(value)
            }
        });
        assert!(
            first.is_sorted(),
            "{key}: {:?}",
            first.windows(2).find(|pair| pair[0] > pair[1])
        );
        let there: std::collections::BTreeSet<&String> = first.into_iter().collect();
        let lost: Vec<_> = acked.iter().filter(|value| !there.contains(value)).collect();
        assert!(lost.is_empty() && !acked.is_empty(), "{key}: {lost:?}");
    }
}
