//! A real Kafka broker for tests: one Java process on 127.0.0.1, from jars that Maven fetches once.
//!
//! Needs Java 17 or newer and Maven on the path; without them a test fails and says so. The broker ends with its
//! [`Broker`], and with the test process too, however that ends.
#![allow(dead_code, reason = "each test binary uses its part")]
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
/// The bytes `tachograph-tests` in base64: a cluster id is 16 bytes.
const CLUSTER_ID: &str = "dGFjaG9ncmFwaC10ZXN0cw";
/// How long a start may take at most, on a loaded machine too.
const START_MAX: Duration = Duration::from_secs(180);
/// How many lines of the broker's log a failure shows.
const LOG_TAIL: usize = 40;

/// A running broker.
pub struct Broker {
    dir: PathBuf,
    port: u16,
    heap: &'static str,
    process: Option<Running>,
}

/// Three brokers: every topic on all of them, two must have a record. The first one is the controller too; it is never the
/// one to kill.
pub struct Cluster {
    pub nodes: Vec<Broker>,
}

/// A broker that is gone is noticed after two seconds: in less time than a request is held.
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
    /// Starts them.
    ///
    /// # Panics
    /// As [`Broker::start`].
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

    /// What clients connect to.
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
    /// Ends the broker when its own stdin closes: when this process ends, however it does.
    watchdog: Child,
}

impl Broker {
    /// The one broker of this test binary, started on first use.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[]))
    }

    /// A broker of the caller's own; `settings` are added to its properties.
    ///
    /// # Panics
    /// Java or Maven is missing, or the broker does not come up: with what it said.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let ports = free_ports::<2>();
        let mut broker = Self::prepare(0, &[(ports[0], ports[1])], settings, "512m");
        broker.restart();
        broker
    }

    /// A broker that goes on with the data of an earlier one, which `fill` writes into the folder that it is given.
    ///
    /// # Panics
    /// As [`Broker::start`].
    pub fn start_on(fill: impl FnOnce(&Path), settings: &[(&str, &str)]) -> Self {
        let ports = free_ports::<2>();
        let mut broker = Self::set_up(0, &[(ports[0], ports[1])], settings, "512m");
        fill(&broker.dir.join("data"));
        broker.restart();
        broker
    }

    /// The broker `id` of several with these ports, for clients and for controllers, with an empty data folder.
    fn prepare(id: usize, ports: &[(u16, u16)], settings: &[(&str, &str)], heap: &'static str) -> Self {
        let broker = Self::set_up(id, ports, settings, heap);
        format(&jars(), &broker.dir);
        broker
    }

    /// The settings of [`Broker::prepare`], and no data folder yet.
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

    /// What clients connect to.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Stops the process where it is: it answers nothing, and connections stay open.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets a paused process go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Kills the process (SIGKILL); what it has on disk stays.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.process.take() {
            // First the watchdog: it must not signal a process id that is free again.
            let _ = running.watchdog.kill();
            let _ = running.watchdog.wait();
            let _ = running.java.kill();
            let _ = running.java.wait();
        }
    }

    /// Starts a killed broker again, on the same port and data, and waits until it serves.
    ///
    /// # Panics
    /// It does not come up: with what it said.
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

/// The folder with the broker's jars: `$TACHO_KAFKA_JARS`, else one per version of the pom in the user's cache.
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
    // FNV-1a: the folder must be the same whatever built this.
    let hash = POM.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    base.unwrap_or_else(home)
        .join("tachograph/kafka")
        .join(format!("{hash:016x}"))
}

/// Fetches into a folder beside, then renames it: a folder that is there is whole, whoever else fetches.
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

/// Bound and let go: the kernel does not give out a port again soon.
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
