//! `tacho-ingest` and `tacho-processor` as processes: configured by their environment, on free ports.

use super::eventually;
use super::samples::Samples;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How long one request may take; a failing process must not hang a test.
const REQUEST_MAX: Duration = Duration::from_secs(60);

/// How to start one.
pub struct Start {
    command: Command,
    http: String,
    grpc: String,
    admin: String,
}

impl Start {
    fn new(binary: &str, bootstrap: &str, prefix: &str) -> Self {
        let [http, grpc, admin] = free_addresses();
        let mut command = Command::new(binary);
        command
            .env("TACHO_KAFKA__BOOTSTRAP_SERVERS", bootstrap)
            .env("TACHO_KAFKA__PREFIX", prefix)
            .env("TACHO_ADMIN__LISTEN", &admin)
            .stdin(Stdio::null());
        Self { command, http, grpc, admin }
    }

    /// With another variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts it, and waits until it is ready.
    ///
    /// # Panics
    /// It does not become ready.
    pub fn start(mut self) -> Process {
        let child = self.command.spawn().unwrap();
        let config = ureq::Agent::config_builder().timeout_global(Some(REQUEST_MAX)).http_status_as_error(false).proxy(None).build();
        let mut process = Process { child, http: self.http, grpc: self.grpc, admin: self.admin, agent: config.into() };
        eventually("readiness of a process", || {
            assert!(process.child.try_wait().unwrap().is_none(), "the process ended before it was ready");
            match process.get("/readyz") {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        process
    }
}

/// Different addresses that nobody uses.
fn free_addresses<const N: usize>() -> [String; N] {
    let listeners: Vec<TcpListener> = (0..N).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    std::array::from_fn(|index| listeners[index].local_addr().unwrap().to_string())
}

/// A running process; it is killed when this is dropped.
pub struct Process {
    child: Child,
    http: String,
    grpc: String,
    admin: String,
    agent: ureq::Agent,
}

impl Process {
    /// A `tacho-ingest`.
    pub fn ingest(bootstrap: &str, prefix: &str) -> Start {
        let start = Start::new(env!("CARGO_BIN_EXE_tacho-ingest"), bootstrap, prefix);
        let (http, grpc) = (start.http.clone(), start.grpc.clone());
        start.env("TACHO_HTTP__LISTEN", &http).env("TACHO_GRPC__LISTEN", &grpc)
    }

    /// A `tacho-processor`.
    pub fn processor(bootstrap: &str, prefix: &str) -> Start {
        Start::new(env!("CARGO_BIN_EXE_tacho-processor"), bootstrap, prefix)
    }

    /// Where OTLP over HTTP comes in.
    pub fn http(&self) -> &str {
        &self.http
    }

    /// Where OTLP over gRPC comes in.
    pub fn grpc(&self) -> &str {
        &self.grpc
    }

    /// `GET` on the admin port: status and body.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn get(&self, path: &str) -> Result<(u16, String), String> {
        let mut answer = self.agent.get(format!("http://{}{path}", self.admin)).call().map_err(|error| error.to_string())?;
        let body = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
        Ok((answer.status().as_u16(), body))
    }

    /// One scrape.
    pub fn metrics(&self) -> Samples {
        Samples::parse(&self.get("/metrics").unwrap().1)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Panics
    /// It ends with an error, or not at all.
    pub fn end(mut self) {
        self.signal(Signal::SIGTERM);
        let status: ExitStatus = eventually("the end of a process", || self.child.try_wait().unwrap().ok_or_else(String::new));
        assert_eq!(status.code(), Some(0), "{status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already, as it should, or must not outlive the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
