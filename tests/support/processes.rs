//! Processes of `tacho-ingest` and `tacho-processor`, each with settings from its environment.

use super::eventually;
use super::samples::Samples;
use super::tacho::{PROTOBUF, REQUEST_MAX, collect, memory_peak, post_to};
use axum::http::Request;
use bytes::Bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::ffi::OsStr;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};

/// How to start a process.
pub struct Launch {
    name: &'static str,
    command: Command,
}

/// A command that starts `tacho-ingest` on free ports.
pub fn ingest(bootstrap: &str, prefix: &str) -> Launch {
    let launch = Launch::new("tacho-ingest", env!("CARGO_BIN_EXE_tacho-ingest"));
    launch
        .on(bootstrap, prefix)
        .set("http.listen", "127.0.0.1:0")
        .set("grpc.listen", "127.0.0.1:0")
}

/// A command that starts `tacho-processor` on a free port, under that name in the group of the prefix.
pub fn processor(bootstrap: &str, prefix: &str, name: &str) -> Launch {
    Launch::new("tacho-processor", env!("CARGO_BIN_EXE_tacho-processor"))
        .on(bootstrap, prefix)
        .set("group.name", name)
}

/// A command that runs `tacho`, for its subcommands about a cluster.
pub fn tacho() -> Launch {
    Launch::new("tacho", env!("CARGO_BIN_EXE_tacho"))
}

impl Launch {
    /// A command without settings, and without the variables of this process that could change the result of a test.
    pub fn new(name: &'static str, program: &str) -> Self {
        let mut command = Command::new(program);
        command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self { name, command }
    }

    fn on(self, bootstrap: &str, prefix: &str) -> Self {
        self.set("kafka.bootstrap_servers", bootstrap)
            .set("kafka.prefix", prefix)
            .set("admin.listen", "127.0.0.1:0")
    }

    /// Adds a setting, by its dotted name, as an environment variable.
    pub fn set(self, setting: &str, value: &str) -> Self {
        self.env(
            &format!("TACHO_{}", setting.replace('.', "__").to_ascii_uppercase()),
            value,
        )
    }

    /// Adds an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: &[impl AsRef<OsStr>]) -> Self {
        self.command.args(args);
        self
    }

    /// Runs the command to its end.
    pub fn run(mut self) -> Output {
        self.command.output().unwrap()
    }

    /// Starts the command, and waits until its output says where it listens.
    ///
    /// # Panics
    /// The process ends. The message holds its output.
    pub fn start(mut self) -> Process {
        let mut child = self.command.spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().unwrap(), &said);
        collect(child.stderr.take().unwrap(), &said);
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(REQUEST_MAX))
            .http_status_as_error(false)
            .proxy(None)
            .build();
        let mut process = Process {
            name: self.name,
            child,
            said,
            ports: Value::Null,
            agent: config.into(),
        };
        eventually(self.name, || process.find_ports());
        process
    }

    /// Starts the command, and waits until the process is ready.
    ///
    /// # Panics
    /// The process does not become ready. The message holds its output.
    pub fn ready(self) -> Process {
        let process = self.start();
        process.wait_until_ready();
        process
    }
}

/// A running process, which is killed when this is dropped.
pub struct Process {
    name: &'static str,
    child: Child,
    said: Arc<Mutex<String>>,
    /// The line of the output that says where the process listens.
    ports: Value,
    agent: ureq::Agent,
}

impl Process {
    fn find_ports(&mut self) -> Result<(), String> {
        let said = self.said();
        let lines = said
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        match lines.into_iter().find(|line| line["message"] == "listening") {
            Some(line) => {
                self.ports = line;
                Ok(())
            }
            None => {
                let ended = self.child.try_wait().unwrap();
                assert!(ended.is_none(), "{} ended ({ended:?}):\n{said}", self.name);
                Err(said)
            }
        }
    }

    /// Waits until the process is ready (`/readyz`).
    pub fn wait_until_ready(&self) {
        eventually("readiness", || match self.get("/readyz") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}; {}", self.failed())),
        });
    }

    /// The address of a port: `http`, `grpc` or `admin`.
    pub fn at(&self, port: &str) -> &str {
        self.ports[port].as_str().unwrap()
    }

    /// The output of the process so far, log messages included.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn failed(&self) -> String {
        format!("{} said:\n{}", self.name, self.said())
    }

    /// Gets a path from the admin port: status and text of the answer.
    pub fn get(&self, path: &str) -> Result<(u16, String), String> {
        let mut answer = self
            .agent
            .get(format!("http://{}{path}", self.at("admin")))
            .call()
            .map_err(|error| error.to_string())?;
        let text = answer
            .body_mut()
            .read_to_string()
            .map_err(|error| error.to_string())?;
        Ok((answer.status().as_u16(), text))
    }

    /// Scrapes `/metrics` until `look` gives `Ok`.
    pub fn metrics_when<T>(&self, what: &str, mut look: impl FnMut(&Samples) -> Result<T, String>) -> T {
        eventually(what, || match self.get("/metrics") {
            Ok((200, text)) => {
                look(&Samples::parse(&text)).map_err(|why| format!("{why}; {}", self.failed()))
            }
            other => Err(format!("{other:?}; {}", self.failed())),
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

    /// Posts a body by HTTP, and gives the status of the answer.
    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Result<u16, String> {
        post_to(&self.agent, self.at("http"), path, content_type, None, body)
    }

    /// A function that posts bodies, which can be called from another thread.
    pub fn poster(&self) -> impl Fn(&str, &str, &[u8]) -> Result<u16, String> + Send + 'static {
        let (agent, http) = (self.agent.clone(), self.at("http").to_owned());
        move |path, content_type, body| post_to(&agent, &http, path, content_type, None, body)
    }

    /// Kills the process (SIGKILL), and waits until it has ended.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Posts a body by HTTP with a content encoding, and gives the status of the answer.
    pub fn post_encoded(
        &self,
        path: &str,
        content_type: &str,
        encoding: Option<&str>,
        body: &[u8],
    ) -> Result<u16, String> {
        post_to(&self.agent, self.at("http"), path, content_type, encoding, body)
    }

    /// Posts a log request in protobuf, which must be accepted.
    ///
    /// # Panics
    /// The answer is not 200.
    pub fn logs(&self, body: &[u8]) {
        assert_eq!(
            self.post("/v1/logs", PROTOBUF, body),
            Ok(200),
            "{}",
            self.failed()
        );
    }

    /// Calls a gRPC method with one message, and gives the gRPC status.
    pub fn grpc(&self, path: &str, message: &[u8]) -> String {
        self.grpc_encoded(path, None, message)
    }

    /// Calls a gRPC method with one message in that encoding, and gives the gRPC status.
    pub fn grpc_encoded(&self, path: &str, encoding: Option<&str>, message: &[u8]) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            tokio::time::timeout(REQUEST_MAX, call(self.at("grpc"), path, encoding, message))
                .await
                .expect("a gRPC call is answered")
        })
    }

    /// The highest resident set size of the process so far, bytes.
    pub fn memory_peak(&self) -> u64 {
        memory_peak(self.child.id())
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Waits for the end of the process after a signal, and gives its exit status and its output.
    pub fn ended(mut self) -> (ExitStatus, String) {
        let status = eventually("the end of a process", || {
            self.child.try_wait().unwrap().ok_or_else(|| self.said())
        });
        (status, self.said())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process that has ended already can't be killed, which is no failure.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn call(address: &str, path: &str, encoding: Option<&str>, message: &[u8]) -> String {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let request = match encoding {
        Some(encoding) => request.header("grpc-encoding", encoding),
        None => request,
    };
    let (response, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
    let mut frame = vec![u8::from(encoding.is_some())];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(message);
    body.send_data(Bytes::from(frame), true).unwrap();
    let response = response.await.unwrap();
    let status = |headers: &axum::http::HeaderMap| {
        headers
            .get("grpc-status")
            .map(|value| value.to_str().unwrap().to_owned())
    };
    // An answer without a message has its status among the headers.
    let told = status(response.headers());
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    let trailers = body.trailers().await.unwrap();
    connection.abort();
    told.or_else(|| trailers.as_ref().and_then(status))
        .expect("a gRPC answer has a status")
}
