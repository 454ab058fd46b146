//! The programs as processes, over a broker of the bench's own.

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

/// Partitions of the raw topics, where a bench does not say.
pub const PARTITIONS: i32 = 12;
/// How long a run may take.
pub const RUN_MAX: Duration = Duration::from_secs(900);
/// How often `/metrics` is looked at: what it costs is the process's too.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Wall time, ms since the Unix epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is set");
    i64::try_from(since.as_millis()).expect("the clock is right")
}

/// Topics of a fresh prefix, whose seed is written.
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

/// CPU seconds and peak memory, MiB, of a process so far.
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

/// An address that nobody listens at.
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

/// A processor, and where its `/metrics` are; killed when dropped.
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

    /// `/metrics`; nothing before it serves.
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

    /// The sum over the lines that begin so.
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

/// An ingest, and where it takes OTLP/HTTP and OTLP/gRPC; killed when dropped.
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
