//! A process of `tacho`: its start, its ports and its output.

use super::eventually;
use super::samples::Samples;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a request may take before a test fails.
pub(super) const REQUEST_MAX: Duration = Duration::from_secs(60);

/// A running process, which is killed when this is dropped.
pub struct Tacho {
    child: Child,
    http: String,
    admin: String,
    said: Arc<Mutex<String>>,
    agent: ureq::Agent,
}

/// The flags by which `tacho` listens on free ports.
pub const FREE_PORTS: [&str; 6] = [
    "--http",
    "127.0.0.1:0",
    "--admin",
    "127.0.0.1:0",
    "--grpc",
    "127.0.0.1:0",
];

/// The arguments and variables with which `tacho` is started.
pub struct Start<'s> {
    args: Vec<&'s OsStr>,
    log: &'s str,
}

impl<'s> Start<'s> {
    /// Starts `tacho` on the embedded log in `dir`.
    pub fn data(dir: &'s Path) -> Self {
        Self {
            args: vec!["--data".as_ref(), dir.as_os_str()],
            log: "info",
        }
    }

    /// Starts `tacho` on a cluster.
    pub fn kafka(bootstrap: &'s str, prefix: &'s str) -> Self {
        Self {
            args: ["--kafka", bootstrap, "--prefix", prefix]
                .map(OsStr::new)
                .to_vec(),
            log: "info",
        }
    }

    /// Adds arguments.
    pub fn arg(mut self, arg: &'s (impl AsRef<OsStr> + ?Sized)) -> Self {
        self.args.push(arg.as_ref());
        self
    }

    /// Sets `RUST_LOG`.
    pub fn log(mut self, level: &'s str) -> Self {
        self.log = level;
        self
    }

    /// Starts the process on free ports, and waits until it is ready.
    ///
    /// # Panics
    /// The process does not become ready. The message holds its output.
    pub fn ready(self) -> Tacho {
        let mut child = command()
            .args(FREE_PORTS)
            .args(self.args)
            .env("RUST_LOG", self.log)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().unwrap(), &said);
        collect(child.stderr.take().unwrap(), &said);
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(REQUEST_MAX))
            .http_status_as_error(false)
            .proxy(None)
            .build();
        let mut tacho = Tacho {
            child,
            http: String::new(),
            admin: String::new(),
            said,
            agent: config.into(),
        };
        eventually("the start of tacho", || tacho.find_ports());
        eventually("readiness of tacho", || match tacho.get("/readyz") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}; {}", tacho.failed())),
        });
        tacho
    }
}

/// The program without the variables of this process that could change the result of a test.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tacho"));
    command
        .env_remove("XDG_DATA_HOME")
        .env_remove("HOME")
        .env_remove("RUST_LOG");
    command
}

/// Runs the program to its end.
pub fn run(args: &[&OsStr]) -> Output {
    command().args(args).output().unwrap()
}

/// Runs `tacho read TOPIC --json` with further arguments, and gives the JSON object of each record.
///
/// # Panics
/// The command fails. The message holds its output.
pub fn read(topic: &str, more: &[&OsStr]) -> Vec<Value> {
    let output = command()
        .args(["read", topic, "--json"])
        .args(more)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "tacho read {topic}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub(super) fn collect(pipe: impl Read + Send + 'static, said: &Arc<Mutex<String>>) {
    let said = Arc::clone(said);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut said = said.lock().unwrap();
            said.push_str(&line);
            said.push('\n');
        }
    });
}

impl Tacho {
    fn find_ports(&mut self) -> Result<(), String> {
        let said = self.said();
        // The ports are read from the configuration for Codex and the address of the page, which users read
        // too.
        let between =
            |before: &str, after: &str| Some(said.split_once(before)?.1.split_once(after)?.0.to_owned());
        match (
            between("endpoint = \"http://", "/v1/logs"),
            between("metrics   http://", "/metrics"),
        ) {
            (Some(http), Some(admin)) => {
                (self.http, self.admin) = (http, admin);
                Ok(())
            }
            _ => {
                let ended = self.child.try_wait().unwrap();
                assert!(ended.is_none(), "tacho ended ({ended:?}):\n{said}");
                Err(said)
            }
        }
    }

    /// The output of the process so far, log messages included.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn failed(&self) -> String {
        format!("it said:\n{}", self.said())
    }

    /// The address of the port for OTLP over HTTP, as `host:port`.
    pub fn http(&self) -> &str {
        &self.http
    }

    /// Posts a body, and gives the status of the answer.
    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Result<u16, String> {
        self.post_encoded(path, content_type, None, body)
    }

    /// Posts a body with a content encoding, and gives the status of the answer.
    pub fn post_encoded(
        &self,
        path: &str,
        content_type: &str,
        encoding: Option<&str>,
        body: &[u8],
    ) -> Result<u16, String> {
        post_to(&self.agent, &self.http, path, content_type, encoding, body)
    }

    /// A function that posts bodies, which can be called from another thread.
    pub fn poster(&self) -> impl Fn(&str, &[u8]) -> Result<u16, String> + Send + 'static {
        let (agent, http) = (self.agent.clone(), self.http.clone());
        move |path, body| post_to(&agent, &http, path, PROTOBUF, None, body)
    }

    /// Posts a log request in protobuf, which must be accepted.
    ///
    /// # Panics
    /// The answer is not 200.
    pub fn logs(&self, body: &[u8]) {
        let status = self.post("/v1/logs", PROTOBUF, body);
        assert_eq!(status, Ok(200), "{}", self.failed());
    }

    /// Gets a path from the admin port: status and text of the answer.
    pub fn get(&self, path: &str) -> Result<(u16, String), String> {
        let mut answer = self
            .agent
            .get(format!("http://{}{path}", self.admin))
            .call()
            .map_err(|error| error.to_string())?;
        let text = answer
            .body_mut()
            .read_to_string()
            .map_err(|error| error.to_string())?;
        Ok((answer.status().as_u16(), text))
    }

    /// Scrapes `/metrics`.
    ///
    /// # Panics
    /// The scrape is not answered.
    pub fn metrics(&self) -> Samples {
        match self.get("/metrics") {
            Ok((200, text)) => Samples::parse(&text),
            other => panic!("/metrics: {other:?}; {}", self.failed()),
        }
    }

    /// Scrapes `/metrics` until `look` gives `Ok`.
    pub fn metrics_when<T>(&self, what: &str, mut look: impl FnMut(&Samples) -> Result<T, String>) -> T {
        eventually(what, || {
            let samples = self.metrics();
            look(&samples).map_err(|why| format!("{why}; {}", self.failed()))
        })
    }

    /// Waits until a counter has that value.
    pub fn wait_for_count(&self, name: &str, with: &[(&str, &str)], count: i64) {
        self.metrics_when(&format!("{name} {with:?} = {count}"), |samples| {
            match samples.count(name, with) {
                is if is == count => Ok(()),
                is => Err(format!("it is {is}")),
            }
        });
    }

    /// The highest resident set size of the process so far, bytes.
    pub fn memory_peak(&self) -> u64 {
        memory_peak(self.child.id())
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Kills the process (SIGKILL), and waits until it has ended.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends the process as Ctrl-C does, waits for its end, and gives its exit status and its output.
    pub fn end(mut self) -> (ExitStatus, String) {
        self.signal(Signal::SIGINT);
        let status = eventually("the end of tacho after SIGINT", || {
            self.child.try_wait().unwrap().ok_or_else(|| self.said())
        });
        (status, self.said())
    }
}

impl Drop for Tacho {
    fn drop(&mut self) {
        // A process that has ended already can't be killed, which is no failure.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn memory_peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// The content type of OTLP in protobuf.
pub const PROTOBUF: &str = "application/x-protobuf";
/// The content type of OTLP in JSON.
pub const JSON: &str = "application/json";

pub(super) fn post_to(
    agent: &ureq::Agent,
    host: &str,
    path: &str,
    content_type: &str,
    encoding: Option<&str>,
    body: &[u8],
) -> Result<u16, String> {
    let mut request = agent
        .post(format!("http://{host}{path}"))
        .header("content-type", content_type);
    if let Some(encoding) = encoding {
        request = request.header("content-encoding", encoding);
    }
    let mut answer = request.send(body).map_err(|error| error.to_string())?;
    let _ = answer.body_mut().read_to_vec();
    Ok(answer.status().as_u16())
}
