//! Connections: how many, how long each may take for what, and what HTTP/2 peers may ask for.
//!
//! A connection that sends nothing, or its first request's head slowly, is closed after `header_time_max`; one without a
//! request after `idle_time_max`. Bodies have their own limit, in the door.

use crate::connection::protocols::Entrance;
use crate::prepare::config::Config;
use crate::sink::Sink;
use crate::telemetry::ConnectionTelemetry;
use axum::body::Body;
use axum::http::Version;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// After the shutdown signal, open requests get that long.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(5);
/// When no connection can be accepted (no file is free), that long until the next attempt.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Of the files that the process may open, that many are for all else: logs, brokers, listeners.
const FILES_KEPT: usize = 256;
/// Header fields of an HTTP/1 request; more gets 431.
const HEADERS_MAX: usize = 64;
/// Bytes of an HTTP/1 request's head, and of what is read at once.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Bytes of an HTTP/2 request's head, as RFC 9113 counts them.
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;
/// Open streams of an HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// Streams that a peer has reset before they were looked at; one more ends the connection (CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 20;
/// Streams that the server had to reset because of the peer's faults; one more ends the connection.
const LOCAL_RESETS_MAX: usize = 256;
/// What an HTTP/2 peer may send before it is read, for each stream and each connection.
const WINDOW_BYTES: u32 = 1 << 20;

/// What listeners share: the limit of connections, and times.
pub struct Gate {
    connections: Arc<Semaphore>,
    header_time_max: Duration,
    idle_time_max: Duration,
    telemetry: ConnectionTelemetry,
}

impl Gate {
    /// For all listeners of the process. Make it after a metrics recorder is installed.
    #[must_use]
    pub fn new(config: &Config) -> Arc<Self> {
        let files = open_files_max().map_or(usize::MAX, |files| {
            files.saturating_sub(FILES_KEPT).max(files / 2)
        });
        if files < config.connections_max {
            tracing::warn!(
                limit = files,
                "fewer connections than connections_max: the limit of open files is what it is"
            );
        }
        let connections = config.connections_max.min(files).clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self {
            connections: Arc::new(Semaphore::new(connections)),
            header_time_max: config.header_time_max,
            idle_time_max: config.idle_time_max,
            telemetry: ConnectionTelemetry::new(),
        })
    }
}

/// How many files the process may open, where that can be known.
fn open_files_max() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// Serves what comes through an entrance until `shutdown` resolves and up to five seconds more.
pub async fn run<S: Sink>(
    listener: TcpListener,
    entrance: Entrance<S>,
    gate: Arc<Gate>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (end, ending) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &gate) => accepted,
            // Those that ended are forgotten.
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, permit)) => {
                let connection = serve(stream, entrance.clone(), Arc::clone(&gate), ending.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let _ = end.send(true);
    let all = async { while connections.join_next().await.is_some() {} };
    // What is open after that is dropped.
    let _ = tokio::time::timeout(SHUTDOWN_TIME_MAX, all).await;
}

async fn accept(listener: &TcpListener, gate: &Gate) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(&gate.connections)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

/// Whether an accept failed because of the one peer alone.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

async fn serve<S: Sink>(
    stream: TcpStream,
    entrance: Entrance<S>,
    gate: Arc<Gate>,
    mut ending: watch::Receiver<bool>,
) {
    gate.telemetry.open.increment(1.0);
    // An answer is one small write: nothing to wait for.
    let _ = stream.set_nodelay(true);
    let activity = Activity::new();
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let open = activity.open(request.version());
        let entrance = entrance.clone();
        async move {
            let answer = entrance.answer(request.map(Body::new)).await;
            drop(open);
            Ok::<_, Infallible>(answer)
        }
    });
    let builder = builder();
    let mut connection = pin!(builder.serve_connection(
        TokioIo::new(Watched {
            stream,
            activity: activity.clone()
        }),
        service
    ));
    let look = gate.header_time_max.min(gate.idle_time_max) / 2;
    let mut is_ending = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    gate.telemetry.cut("protocol");
                    tracing::debug!(%error, "a connection ended");
                }
                break;
            }
            () = tokio::time::sleep(look) => {
                if let Some(reason) = activity.overdue(gate.header_time_max, gate.idle_time_max) {
                    gate.telemetry.cut(reason);
                    tracing::debug!(reason, "a connection was closed");
                    break;
                }
            }
            // The sender is gone only when the process ends.
            _ = ending.wait_for(|over| *over), if !is_ending => {
                is_ending = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
    gate.telemetry.open.decrement(1.0);
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // Idle connections are not slow heads: hyper's own timeout does not tell them apart, `Activity` does.
    builder
        .http1()
        .header_read_timeout(None)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    builder
}

/// What a connection is doing, and since when.
#[derive(Clone)]
struct Activity(Arc<Mutex<State>>);

struct State {
    /// Requests that are not answered.
    open: usize,
    /// Of an HTTP/1 connection: whether a request's head is on its way, or awaited for the first time.
    is_head: bool,
    is_http2: bool,
    is_new: bool,
    since: Instant,
}

/// A request that is not answered.
struct Open(Activity);

impl Activity {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            open: 0,
            is_head: true,
            is_http2: false,
            is_new: true,
            since: Instant::now(),
        })))
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn read(&self, bytes: &[u8]) {
        self.change(|state| {
            if std::mem::take(&mut state.is_new) && bytes.starts_with(b"PRI") {
                // Frames say nothing of heads: an HTTP/2 connection is busy or idle.
                (state.is_http2, state.is_head) = (true, false);
            }
            if state.open == 0 && !state.is_head && !state.is_http2 {
                (state.is_head, state.since) = (true, Instant::now());
            }
        });
    }

    fn open(&self, version: Version) -> Open {
        self.change(|state| {
            state.open += 1;
            state.is_head = false;
            state.is_http2 |= version == Version::HTTP_2;
        });
        Open(self.clone())
    }

    /// Why the connection is to be closed.
    fn overdue(&self, header: Duration, idle: Duration) -> Option<&'static str> {
        self.change(|state| match state.since.elapsed() {
            _ if state.open > 0 => None,
            waited if state.is_head => (waited >= header).then_some("header"),
            waited => (waited >= idle).then_some("idle"),
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.open -= 1;
            state.since = Instant::now();
        });
    }
}

/// A connection whose reads are seen.
struct Watched {
    stream: TcpStream,
    activity: Activity,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(bytes) = buffer.filled().get(before..).filter(|bytes| !bytes.is_empty()) {
            self.activity.read(bytes);
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
