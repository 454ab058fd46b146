//! Cost of `tacho-ingest` compared with an OpenTelemetry Collector and a bare server, over one broker: CPU
//! seconds for a million log records, time to an answer, peak memory. All three answer after Kafka has
//! confirmed.
//!
//! `COLLECTOR_BIN=PATH cargo bench --bench ingest -- [SECONDS OF A RUN] [LOG RECORDS A REQUEST]
//! [PARTITIONS]`: with the second argument only those rows are measured, with 0 only the times to an answer,
//! with `all` everything. `.ci/run interop` builds a Collector into `~/.cache/tachograph/collector`. The
//! floor is this program itself: a server that gives each body to librdkafka.

mod support;

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use ingest::process::serving_threads;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use schemas::topic::Topic;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use support::load::{Load, Plan, Protocol, run};
use support::process::broker::Broker;
use support::process::{Ingest, free_address, prepare, used};
use support::requests::Traffic;

/// How many log records a request has, and how many requests are in flight.
const SIZES: [(usize, usize); 4] = [(1, 64), (10, 64), (100, 16), (500, 8)];
/// The default number of partitions of the topic. It is part of what is measured, since a produce request is
/// sent for each.
const PARTITIONS: i32 = 4;
/// The steady rate in log records a second, in requests of ten.
const STEADY: f64 = 5_000.0;
/// How many requests a second a lone client sends, and how often the times to an answer are measured.
const LONE: f64 = 20.0;
const TURNS: usize = 7;
/// The length of the run before each measured one.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long a server may take until it listens.
const START_MAX: Duration = Duration::from_secs(60);
/// The compression towards the broker, the same for all servers.
const COMPRESSION: &str = "lz4";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let runtime = |threads: usize| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
            .expect("a runtime")
    };
    if let [mode, bootstrap, topic, partitions, address] = &args[..]
        && mode == "floor"
    {
        // The server has as many threads as `tacho-ingest`.
        return runtime(serving_threads()).block_on(floor(
            bootstrap,
            topic,
            partitions.parse().expect("a number"),
            address,
        ));
    }
    let runtime = runtime(2);
    let length = Duration::from_secs(args.first().and_then(|arg| arg.parse().ok()).unwrap_or(6));
    let broker = Broker::start(&[("log.retention.check.interval.ms", "600000")]);
    let partitions = args.get(2).and_then(|arg| arg.parse().ok()).unwrap_or(PARTITIONS);
    let bench = Bench {
        bootstrap: broker.bootstrap(),
        partitions,
        length,
        runtime,
    };
    println!("{partitions} partitions, {} s a row\n", length.as_secs());
    println!(
        "| protocol | log records a request | server | CPU s a million | p50, ms | p99, ms | log records a second | RSS, MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let only: Option<usize> = args.get(1).and_then(|arg| arg.parse().ok());
    for (per_request, clients) in SIZES
        .into_iter()
        .filter(|(size, _)| only.is_none_or(|only| only == *size))
    {
        let traffic = Arc::new(Traffic::recorded(per_request));
        for protocol in [Protocol::Http, Protocol::Grpc] {
            bench.row(&Kind::ALL, protocol, &traffic, per_request, (clients, None), "");
        }
    }
    let ten = Arc::new(Traffic::recorded(10));
    match only {
        Some(0) => return bench.answers(&ten),
        Some(_) => return,
        None => {}
    }
    bench.row(
        &Kind::ALL,
        Protocol::Http,
        &ten,
        10,
        (64, Some(STEADY / 10.0)),
        ", 5,000 log records a second",
    );
    bench.row(
        &Kind::ALL,
        Protocol::Http,
        &Arc::new(Traffic::tool_results(10)),
        10,
        (64, None),
        ", tool results only",
    );
    bench.answers(&ten);
}

/// The servers that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Floor,
    Tacho,
    Collector,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Floor, Self::Tacho, Self::Collector];

    const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Tacho => "**tacho-ingest**",
            Self::Collector => "Collector",
        }
    }
}

struct Bench {
    bootstrap: String,
    /// The number of partitions of the topic that the servers write to.
    partitions: i32,
    length: Duration,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    /// Starts a server; `None`, with a message, if there is no such program.
    fn start(&self, kind: Kind, protocol: Protocol) -> Option<Server> {
        let bootstrap = &self.bootstrap;
        let prefix = format!("i{}.", uuid::Uuid::new_v4().simple());
        prepare(bootstrap, &prefix, self.partitions);
        let topic = format!("{prefix}{}", Topic::RawLogs.name());
        match kind {
            Kind::Tacho => {
                let ingest = Ingest::start(bootstrap, &prefix);
                let address = if protocol == Protocol::Http {
                    ingest.1.clone()
                } else {
                    ingest.2.clone()
                };
                Some(Server {
                    address,
                    process: Process::Ingest(ingest),
                    _files: None,
                })
            }
            Kind::Floor if protocol == Protocol::Grpc => None,
            Kind::Floor => {
                let address = free_address();
                let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
                command.args(["floor", bootstrap, &topic, &self.partitions.to_string(), &address]);
                Some(Server::other(command, address, None))
            }
            Kind::Collector => {
                let Some(program) = collector() else {
                    println!("| | | Collector | none here: COLLECTOR_BIN names one | | | | |");
                    return None;
                };
                let (http, grpc) = (free_address(), free_address());
                let files = tempfile::tempdir().expect("a folder");
                let config = files.path().join("collector.yaml");
                std::fs::write(&config, collector_config(bootstrap, &topic, &http, &grpc))
                    .expect("the file can be written");
                let mut command = Command::new(program);
                command.arg("--config").arg(config);
                Some(Server::other(
                    command,
                    if protocol == Protocol::Http { http } else { grpc },
                    Some(files),
                ))
            }
        }
    }

    /// Measures and prints a row for each server.
    fn row(
        &self,
        kinds: &[Kind],
        protocol: Protocol,
        traffic: &Arc<Traffic>,
        per_request: usize,
        (clients, rate): (usize, Option<f64>),
        note: &str,
    ) {
        for &kind in kinds {
            let Some(server) = self.start(kind, protocol) else {
                continue;
            };
            let (load, cpu_s) = self.load(&server, protocol, traffic, per_request, (clients, rate));
            let (_, rss) = used(&server.pid());
            println!(
                "| {protocol:?}{note} | {per_request} | {} | {:.2} | {:.1} | {:.1} | {:.0} | {rss:.0} |",
                kind.name(),
                cpu_s / load.records as f64 * 1e6,
                load.at(50.0),
                load.at(99.0),
                load.records as f64 / load.seconds,
            );
        }
    }

    /// Runs a load, and gives its answers and the CPU seconds of the server.
    fn load(
        &self,
        server: &Server,
        protocol: Protocol,
        traffic: &Arc<Traffic>,
        per_request: usize,
        (clients, rate): (usize, Option<f64>),
    ) -> (Load, f64) {
        let address = server.address.clone();
        let plan = Plan {
            protocol,
            address,
            traffic: Arc::clone(traffic),
            per_request,
            clients,
            rate,
            length: WARM_UP,
        };
        self.runtime.block_on(run(&plan));
        let (before, _) = used(&server.pid());
        let load = self.runtime.block_on(run(&Plan {
            length: self.length,
            ..plan
        }));
        (load, used(&server.pid()).0 - before)
    }

    /// Measures the time to an answer at half of the highest rate of `tacho-ingest`, and for a lone client.
    fn answers(&self, traffic: &Arc<Traffic>) {
        let Some(server) = self.start(Kind::Tacho, Protocol::Http) else {
            return;
        };
        let (fast, _) = self.load(&server, Protocol::Http, traffic, 10, (64, None));
        drop(server);
        let half = fast.records as f64 / fast.seconds / 2.0;
        println!(
            "\n| {TURNS} turns of each | server | p50, ms | p99, ms (least to most) |\n|---|---|---|---|"
        );
        // There are more connections than requests in flight, so that no request waits for a connection.
        self.turns(
            traffic,
            (256, half / 10.0),
            &format!("half load ({half:.0} log records a second, ten a request)"),
        );
        self.turns(
            traffic,
            (1, LONE),
            &format!("a lone client, {LONE} requests a second"),
        );
    }

    /// Measures the servers by turns several times, so that other work of the machine slows all of them, and
    /// gives medians.
    fn turns(&self, traffic: &Arc<Traffic>, (clients, rate): (usize, f64), note: &str) {
        let start = |kind: &Kind| Some((*kind, self.start(*kind, Protocol::Http)?, Vec::new(), Vec::new()));
        let mut servers: Vec<_> = Kind::ALL.iter().filter_map(start).collect();
        for _ in 0..TURNS {
            for (_, server, middles, ends) in &mut servers {
                let (load, _) = self.load(server, Protocol::Http, traffic, 10, (clients, Some(rate)));
                middles.push(load.at(50.0));
                ends.push(load.at(99.0));
            }
        }
        for (kind, _, mut middles, mut ends) in servers {
            middles.sort_by(f64::total_cmp);
            ends.sort_by(f64::total_cmp);
            let (p50, p99, most) = (middles[TURNS / 2], ends[TURNS / 2], ends[TURNS - 1]);
            println!(
                "| {note} | {} | {p50:.1} | {p99:.1} ({:.1} to {most:.1}) |",
                kind.name(),
                ends[0]
            );
        }
    }
}

/// A server process, which is killed when this is dropped.
struct Server {
    address: String,
    process: Process,
    _files: Option<tempfile::TempDir>,
}

enum Process {
    Ingest(Ingest),
    Other(Child),
}

impl Server {
    fn other(mut command: Command, address: String, files: Option<tempfile::TempDir>) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let deadline = Instant::now() + START_MAX;
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < deadline, "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self {
            address,
            process: Process::Other(child),
            _files: files,
        }
    }

    fn pid(&self) -> String {
        match &self.process {
            Process::Ingest(ingest) => ingest.0.id(),
            Process::Other(child) => child.id(),
        }
        .to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Process::Other(child) = &mut self.process {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The Collector: `COLLECTOR_BIN`, or the one that the interop checks have built.
fn collector() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("COLLECTOR_BIN") {
        return Some(named.into());
    }
    let cache = PathBuf::from(std::env::var_os("HOME")?).join(".cache/tachograph/collector");
    let mut built: Vec<PathBuf> = std::fs::read_dir(cache)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    built.retain(|path| path.is_file());
    built.sort();
    built.pop()
}

/// The configuration of the Collector. Without its queue, it answers after Kafka has confirmed.
fn collector_config(bootstrap: &str, topic: &str, http: &str, grpc: &str) -> String {
    format!(
        "receivers:
  otlp:
    protocols:
      http: {{endpoint: '{http}'}}
      grpc: {{endpoint: '{grpc}', max_recv_msg_size_mib: 16}}
exporters:
  kafka:
    brokers: ['{bootstrap}']
    logs: {{topic: {topic}, encoding: otlp_proto}}
    timeout: 5s
    retry_on_failure: {{enabled: false}}
    sending_queue: {{enabled: false}}
    producer: {{required_acks: -1, compression: {COMPRESSION}, max_message_bytes: 8000000, allow_auto_topic_creation: false}}
service:
  telemetry:
    logs: {{level: error}}
    metrics: {{level: none}}
  pipelines:
    logs: {{receivers: [otlp], exporters: [kafka]}}
"
    )
}

/// The floor: a server that gives each body to librdkafka as it is, and answers when the body is durable.
async fn floor(bootstrap: &str, topic: &str, partitions: u32, address: &str) {
    #[derive(Clone)]
    struct Shared(FutureProducer, Arc<str>, u32, Arc<AtomicU32>);

    async fn take(
        State(Shared(producer, topic, partitions, turn)): State<Shared>,
        body: Bytes,
    ) -> axum::http::StatusCode {
        // Bodies are spread evenly over partitions, as conversations are.
        let partition = (turn.fetch_add(1, Ordering::Relaxed) % partitions).cast_signed();
        let record = FutureRecord::<(), [u8]>::to(&topic)
            .partition(partition)
            .payload(&body);
        match producer.send(record, Duration::from_secs(4)).await {
            Ok(_) => axum::http::StatusCode::OK,
            Err(_) => axum::http::StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5");
    config
        .set("compression.type", COMPRESSION)
        .set("message.max.bytes", "8388608");
    let producer: FutureProducer = config.create().expect("a producer");
    let app = axum::Router::new()
        .route("/v1/logs", post(take))
        .with_state(Shared(producer, topic.into(), partitions, Arc::default()));
    let listener = TcpListener::bind(address).expect("the address is free");
    listener.set_nonblocking(true).expect("a socket option");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    axum::serve(
        listener,
        app.layer(axum::extract::DefaultBodyLimit::max(16 << 20)),
    )
    .await
    .expect("it serves");
}
