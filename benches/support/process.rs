//! The programs as processes, over a broker that only the bench uses.

#[path = "../../tests/support/broker.rs"]
pub mod broker;

use processor_log::Log;
use processor_log::cluster::Cluster;
use processor_log::kafka::{KafkaConfig, KafkaLog, topics};
use schemas::id::TopicPartition;
use schemas::record::NewRecord;
use schemas::settings::Seed;
use schemas::topic::Topic;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The default number of partitions of the raw topics.
pub const PARTITIONS: i32 = 12;
/// How long a run may take.
pub const RUN_MAX: Duration = Duration::from_secs(900);
/// The time between two scrapes of `/metrics`, whose cost is measured with that of the process.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Wall time, ms since the Unix epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is set");
    i64::try_from(since.as_millis()).expect("the clock is right")
}

/// Creates the topics of a new prefix, and writes the seed.
pub fn prepare(bootstrap: &str, prefix: &str, raw_partitions: i32) {
    let cluster = Cluster::plain(bootstrap, prefix);
    let seed = Seed {
        raw_partitions,
        ..Seed::shipped()
    };
    topics::prepare(&cluster, &seed).expect("the topics can be made");
    let mut log = KafkaLog::connect(KafkaConfig::reader(&cluster, &format!("{prefix}seed")))
        .expect("the broker answers");
    let to = TopicPartition {
        topic: Topic::Control,
        partition: 0,
    };
    log.append(vec![NewRecord {
        to,
        key: None,
        value: Some(seed.to_json().into()),
        headers: Vec::new(),
    }])
    .expect("the seed can be written");
}

/// The CPU seconds and the peak memory, MiB, of a process so far.
pub fn used(process: &str) -> (f64, f64) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}")).expect("Linux' /proc");
    let stat = read("stat");
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .expect("a name in brackets")
        .1
        .split_whitespace()
        .collect();
    let ticks: f64 =
        fields[11].parse::<f64>().expect("a number") + fields[12].parse::<f64>().expect("a number");
    let status = read("status");
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("a peak");
    (
        ticks / 100.0,
        peak.trim_end_matches("kB")
            .trim()
            .parse::<f64>()
            .expect("a number")
            / 1024.0,
    )
}

/// An address with a free port.
pub fn free_address() -> String {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    free.local_addr().expect("it is bound").to_string()
}

fn start(program: &str, bootstrap: &str, prefix: &str, admin: &str, settings: &[(&str, &str)]) -> Child {
    let mut command = Command::new(program);
    command
        .env("TACHO_KAFKA__BOOTSTRAP_SERVERS", bootstrap)
        .env("TACHO_KAFKA__PREFIX", prefix);
    command
        .env("TACHO_ADMIN__LISTEN", admin)
        .env("TACHO_LOG__FILTER", "error");
    command
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the program starts")
}

/// A processor and the address of its admin port; the process is killed when this is dropped.
pub struct Processor(pub Child, String);

impl Processor {
    pub fn start(bootstrap: &str, prefix: &str, workers: usize) -> Self {
        let admin = free_address();
        let settings = [
            ("TACHO_GROUP__NAME", "bench"),
            ("TACHO_GROUP__WORKERS", &workers.to_string()),
        ];
        Self(
            start(
                env!("CARGO_BIN_EXE_tacho-processor"),
                bootstrap,
                prefix,
                &admin,
                &settings,
            ),
            admin,
        )
    }

    /// The text of `/metrics`; empty before the process serves it.
    pub fn metrics(&self) -> String {
        let Ok(mut answer) = ureq::get(format!("http://{}/metrics", self.1)).call() else {
            return String::new();
        };
        answer
            .body_mut()
            .with_config()
            .limit(1 << 30)
            .read_to_string()
            .unwrap_or_default()
    }

    /// The sum of the values in the lines that begin with `begin`.
    pub fn sum(&self, begin: &str) -> f64 {
        let value = |line: &str| {
            line.rsplit_once('}')
                .and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<f64>().ok())
        };
        self.metrics()
            .lines()
            .filter(|line| line.starts_with(begin))
            .filter_map(value)
            .sum()
    }

    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    pub fn wait_for(&self, records: usize) {
        let deadline = Instant::now() + RUN_MAX;
        while self.sum("tacho_log_records_total{") < records as f64 {
            assert!(Instant::now() < deadline, "not all records show");
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// An ingest and the addresses of its ports for OTLP/HTTP and OTLP/gRPC; the process is killed when this is
/// dropped.
pub struct Ingest(pub Child, pub String, pub String);

impl Ingest {
    pub fn start(bootstrap: &str, prefix: &str) -> Self {
        let (http, grpc, admin) = (free_address(), free_address(), free_address());
        let settings = [
            ("TACHO_HTTP__LISTEN", http.as_str()),
            ("TACHO_GRPC__LISTEN", &grpc),
        ];
        let child = start(
            env!("CARGO_BIN_EXE_tacho-ingest"),
            bootstrap,
            prefix,
            &admin,
            &settings,
        );
        let deadline = Instant::now() + RUN_MAX;
        while ureq::get(format!("http://{admin}/readyz")).call().is_err() {
            assert!(Instant::now() < deadline, "ingest does not become ready");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self(child, http, grpc)
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
