//! Kafka brokers for tests: each is a Java process on 127.0.0.1, with jars that Maven fetches once.
//!
//! Tests that use a broker need Java 17 or newer and Maven on the path, and fail with a message without them. A broker ends
//! when its [`Broker`] is dropped, and when the test process ends in any way.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "test code")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const POM: &str = include_str!("kafka/pom.xml");
const LOG4J: &str = include_str!("kafka/log4j2.properties");
/// The cluster id: 16 bytes (`tachograph-tests`) in base64.
const CLUSTER_ID: &str = "dGFjaG9ncmFwaC10ZXN0cw";
/// How long the start of a broker may take on a loaded machine.
const START_MAX: Duration = Duration::from_secs(180);
/// How many of the last lines of a broker's log a failure shows.
const LOG_TAIL: usize = 40;

/// A running broker.
pub struct Broker {
    dir: PathBuf,
    port: u16,
    heap: &'static str,
    process: Option<Running>,
}

/// A cluster of three brokers. Every topic is on all of them, and two must have a record. The first broker is the controller
/// too, and must not be killed.
pub struct Cluster {
    pub nodes: Vec<Broker>,
}

/// Settings of the brokers, by which a broker that is gone is noticed after two seconds, before a held request times out.
const CLUSTER: [(&str, &str); 8] = [
    ("default.replication.factor", "3"),
    ("min.insync.replicas", "2"),
    ("offsets.topic.replication.factor", "3"),
    ("transaction.state.log.replication.factor", "3"),
    ("transaction.state.log.min.isr", "2"),
    ("broker.session.timeout.ms", "2000"),
    ("broker.heartbeat.interval.ms", "250"),
    ("unclean.leader.election.enable", "false"),
];

impl Cluster {
    /// Starts the brokers.
    ///
    /// # Panics
    /// Java or Maven is missing, or a broker does not start.
    pub fn start() -> Self {
        let ports = free_ports::<6>();
        let ports: Vec<(u16, u16)> = (0..3).map(|id| (ports[2 * id], ports[2 * id + 1])).collect();
        let mut nodes: Vec<Broker> = (0..3)
            .map(|id| Broker::prepare(id, &ports, &CLUSTER, "256m"))
            .collect();
        let started: Vec<_> = nodes.iter_mut().map(Broker::launch).collect();
        for (node, log) in nodes.iter_mut().zip(started) {
            node.wait(&log);
        }
        Self { nodes }
    }

    /// The address that clients connect to.
    pub fn bootstrap(&self) -> String {
        self.nodes
            .iter()
            .map(Broker::bootstrap)
            .collect::<Vec<_>>()
            .join(",")
    }
}

struct Running {
    java: Child,
    /// The process that kills the broker when its stdin closes, which is when the test process ends in any way.
    watchdog: Child,
}

impl Broker {
    /// The broker that all tests of this binary share, started at its first use.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[]))
    }

    /// Starts a broker for the caller alone; `settings` are added to its properties.
    ///
    /// # Panics
    /// Java or Maven is missing, or the broker does not start. The message holds the end of its log.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let ports = free_ports::<2>();
        let mut broker = Self::prepare(0, &[(ports[0], ports[1])], settings, "512m");
        broker.restart();
        broker
    }

    /// Starts a broker that continues with the data of an earlier one, which `fill` writes into the data folder.
    ///
    /// # Panics
    /// Java or Maven is missing, or the broker does not start.
    pub fn start_on(fill: impl FnOnce(&Path), settings: &[(&str, &str)]) -> Self {
        let ports = free_ports::<2>();
        let mut broker = Self::set_up(0, &[(ports[0], ports[1])], settings, "512m");
        fill(&broker.dir.join("data"));
        broker.restart();
        broker
    }

    /// Prepares broker `id` of several, with these ports for clients and for controllers, and with an empty data folder.
    fn prepare(id: usize, ports: &[(u16, u16)], settings: &[(&str, &str)], heap: &'static str) -> Self {
        let broker = Self::set_up(id, ports, settings, heap);
        format(&jars(), &broker.dir);
        broker
    }

    /// Prepares a broker as [`Broker::prepare`] does, but without a data folder.
    fn set_up(id: usize, ports: &[(u16, u16)], settings: &[(&str, &str)], heap: &'static str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("tachograph-kafka-")
            .tempdir()
            .unwrap()
            .keep();
        std::fs::write(dir.join("log4j2.properties"), LOG4J).unwrap();
        std::fs::write(
            dir.join("server.properties"),
            properties(&dir, id, ports, settings),
        )
        .unwrap();
        Self {
            dir,
            port: ports[id].0,
            heap,
            process: None,
        }
    }

    /// The address that clients connect to.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Pauses the process (SIGSTOP): it answers nothing, and its connections stay open.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets a paused process run again (SIGCONT).
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Kills the process (SIGKILL); its data folder stays.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.process.take() {
            // The watchdog ends before the broker, since it must not signal a process id that has become free.
            let _ = running.watchdog.kill();
            let _ = running.watchdog.wait();
            let _ = running.java.kill();
            let _ = running.java.wait();
        }
    }

    /// Starts a killed broker again, with the same port and data, and waits until it serves.
    ///
    /// # Panics
    /// The broker does not start. The message holds the end of its log.
    pub fn restart(&mut self) {
        let log = self.launch();
        self.wait(&log);
    }

    fn launch(&mut self) -> PathBuf {
        self.kill();
        let log = self.dir.join("server.log");
        let out = File::create(&log).unwrap();
        let java = java(&jars(), &self.dir, self.heap)
            .arg("kafka.Kafka")
            .arg(self.dir.join("server.properties"))
            .stdin(Stdio::null())
            .stderr(out.try_clone().unwrap())
            .stdout(out)
            .spawn()
            .expect(NEED_JAVA);
        let watchdog = Command::new("sh")
            .args([
                "-c",
                r#"trap "" INT TERM HUP; read _; kill -9 "$1"; rm -rf "$2""#,
                "sh",
            ])
            .arg(java.id().to_string())
            .arg(&self.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a POSIX shell `sh` is needed");
        self.process = Some(Running { java, watchdog });
        log
    }

    fn wait(&mut self, log: &Path) {
        let deadline = Instant::now() + START_MAX;
        loop {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            if said.contains("Kafka Server started") {
                return;
            }
            let ended = self
                .process
                .as_mut()
                .and_then(|running| running.java.try_wait().unwrap());
            if ended.is_some() || Instant::now() > deadline {
                self.kill();
                panic!(
                    "the Kafka broker did not start ({ended:?}); its log ends:\n{}",
                    tail(&said)
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The last lines of the broker's log.
    pub fn log_tail(&self) -> String {
        tail(&std::fs::read_to_string(self.dir.join("server.log")).unwrap_or_default())
    }

    fn signal(&self, signal: Signal) {
        let running = self.process.as_ref().expect("the broker runs");
        kill(Pid::from_raw(i32::try_from(running.java.id()).unwrap()), signal).unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

const NEED_JAVA: &str =
    "tests need Java 17 or newer as `java` on the path (Debian: apt-get install openjdk-17-jre-headless)";
const NEED_MAVEN: &str =
    "tests need Maven as `mvn` on the path, to fetch a Kafka broker (Debian: apt-get install maven)";

/// The folder with the broker's jars: `$TACHO_KAFKA_JARS`, else a folder in the user's cache for each version of the pom.
fn jars() -> PathBuf {
    static JARS: OnceLock<PathBuf> = OnceLock::new();
    JARS.get_or_init(|| {
        let dir = std::env::var_os("TACHO_KAFKA_JARS").map_or_else(cache, PathBuf::from);
        if !dir.exists() {
            fetch(&dir);
        }
        dir
    })
    .clone()
}

fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || {
        PathBuf::from(std::env::var_os("HOME").expect("HOME, XDG_CACHE_HOME or TACHO_KAFKA_JARS must be set"))
            .join(".cache")
    };
    // The name of the folder is the FNV-1a hash of the pom, which is the same for every compiler.
    let hash = POM.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    base.unwrap_or_else(home)
        .join("tachograph/kafka")
        .join(format!("{hash:016x}"))
}

/// Fetches the jars into a temporary folder, which is then renamed, so that `dir` is complete if it exists, even if several
/// processes fetch.
fn fetch(dir: &Path) {
    let parent = dir.parent().expect("the folder of the jars has a parent");
    std::fs::create_dir_all(parent).unwrap();
    let work = tempfile::Builder::new()
        .prefix("fetching-")
        .tempdir_in(parent)
        .unwrap();
    let pom = work.path().join("pom.xml");
    std::fs::write(&pom, POM).unwrap();
    let into = work.path().join("jars");
    eprintln!(
        "fetching a Kafka broker into {} (once, about 45 MB)",
        dir.display()
    );
    let output = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&pom)
        .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", into.display()))
        .output()
        .expect(NEED_MAVEN);
    assert!(
        output.status.success(),
        "Maven could not fetch the Kafka broker ({}):\n{}{}",
        output.status,
        tail(&String::from_utf8_lossy(&output.stdout)),
        tail(&String::from_utf8_lossy(&output.stderr))
    );
    if std::fs::rename(&into, dir).is_err() {
        assert!(dir.exists(), "can't put the jars into {}", dir.display());
    }
}

fn java(jars: &Path, dir: &Path, heap: &str) -> Command {
    let mut command = Command::new("java");
    command
        .arg(format!("-Xmx{heap}"))
        .args([
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xshare:auto",
            "-Djava.awt.headless=true",
        ])
        .arg(format!(
            "-Dlog4j2.configurationFile={}",
            dir.join("log4j2.properties").display()
        ))
        .arg("-cp")
        .arg(jars.join("*"));
    command
}

fn format(jars: &Path, dir: &Path) {
    let output = java(jars, dir, "128m")
        .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
        .arg(dir.join("server.properties"))
        .output()
        .expect(NEED_JAVA);
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "Kafka's storage tool failed ({}):\n{}",
        output.status,
        tail(&said)
    );
}

/// Free ports: each was bound and released, and the kernel does not give out a port again soon.
fn free_ports<const N: usize>() -> [u16; N] {
    let bound = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    bound.map(|free| free.local_addr().unwrap().port())
}

fn properties(dir: &Path, id: usize, ports: &[(u16, u16)], settings: &[(&str, &str)]) -> String {
    let (port, own) = ports[id];
    let controller = ports[0].1;
    let (roles, listener) = match id {
        0 => ("broker,controller", format!(",CONTROLLER://127.0.0.1:{own}")),
        _ => ("broker", String::new()),
    };
    let mut text = format!(
        "process.roles={roles}
node.id={id}
controller.quorum.voters=0@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port}{listener}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={}
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=8388608
log.cleaner.backoff.ms=1000
log.segment.delete.delay.ms=1000
",
        dir.join("data").display()
    );
    for (name, value) in settings {
        text += &format!("{name}={value}\n");
    }
    text
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
}
