//! Accepts connections: bounds how many are open, how long each may take for what, and what HTTP/2 peers may ask for.
//!
//! A connection that sends nothing, or the head of a request slowly, is closed after `header_time_max`; one without a request
//! after `idle_time_max`. The time for a body is bounded where it is read.

use crate::connection::activity::{Activity, Watched};
use crate::connection::protocols::Protocols;
use crate::connection::telemetry::{ConnectionTelemetry, Cut};
use crate::prepare::config::Config;
use crate::sink::Sink;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

/// How long open requests may go on after the shutdown signal.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(5);
/// How long to wait after a failed accept, such as one for which no file was free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How many of the files that the process may open are kept for everything but connections: logs, brokers, listeners.
const FILES_KEPT: usize = 256;
/// How many header fields an HTTP/1 request may have; one with more gets 431.
const HEADERS_MAX: usize = 64;
/// How many bytes an HTTP/1 request's head may have, and how many are read at once.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How many bytes an HTTP/2 request's head may have, as RFC 9113 counts them.
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;
/// How many streams of an HTTP/2 connection may be open.
const STREAMS_MAX: u32 = 128;
/// How many streams a peer may reset before they are looked at; one more ends the connection (CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 20;
/// How many streams the server may have to reset because of the peer's faults; one more ends the connection.
const LOCAL_RESETS_MAX: usize = 256;
/// How many bytes an HTTP/2 peer may send before they are read, for each stream and for each connection.
const WINDOW_BYTES: u32 = 1 << 20;

/// What all listeners of a process share: the limit of open connections, and how long each may take for what.
pub struct ConnectionLimits {
    connections: Arc<Semaphore>,
    header_time_max: Duration,
    idle_time_max: Duration,
    telemetry: ConnectionTelemetry,
}

impl ConnectionLimits {
    /// The limits for all listeners of the process. It must be made after the metrics recorder is installed.
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

/// How many files the process may open, if the system tells.
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

/// Serves a listener until `shutdown` resolves; requests that are open then have up to five seconds more.
pub async fn run<S: Sink>(
    listener: TcpListener,
    protocols: Protocols<S>,
    limits: Arc<ConnectionLimits>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (end, ending) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &limits) => accepted,
            // Connections that ended are forgotten.
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, permit)) => {
                let connection = serve(stream, protocols.clone(), Arc::clone(&limits), ending.clone());
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
    // Connections that are still open are dropped.
    let _ = tokio::time::timeout(SHUTDOWN_TIME_MAX, all).await;
}

/// Waits until one more connection may be open, then for a connection.
async fn accept(
    listener: &TcpListener,
    limits: &ConnectionLimits,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(&limits.connections)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

/// Whether an accept failed because of its peer alone.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// Serves one connection until it ends, is overdue, or the process ends.
async fn serve<S: Sink>(
    stream: TcpStream,
    protocols: Protocols<S>,
    limits: Arc<ConnectionLimits>,
    mut ending: watch::Receiver<bool>,
) {
    limits.telemetry.open.increment(1.0);
    // An answer is one small write, for which there is nothing to gather.
    let _ = stream.set_nodelay(true);
    let activity = Activity::new();
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let open = activity.open(request.version());
        let protocols = protocols.clone();
        async move {
            let answer = protocols.answer(request.map(Body::new)).await;
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
    let look_every = limits.header_time_max.min(limits.idle_time_max) / 2;
    let mut is_ending = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    limits.telemetry.cut(Cut::Protocol);
                    tracing::debug!(%error, "a connection ended");
                }
                break;
            }
            () = tokio::time::sleep(look_every) => {
                if let Some(reason) = activity.overdue(limits.header_time_max, limits.idle_time_max) {
                    limits.telemetry.cut(reason);
                    tracing::debug!(reason = reason.name(), "a connection was closed");
                    break;
                }
            }
            // The sender is dropped only when the process ends.
            _ = ending.wait_for(|over| *over), if !is_ending => {
                is_ending = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
    limits.telemetry.open.decrement(1.0);
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // hyper's own timeout would close idle connections as slow heads; `Activity` tells them apart.
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
