//! Serves until the process is told to end: listeners in front, the cluster and the inbox behind.

use super::deferred::{self, DeferredSink, Destination};
use super::ports::Ports;
use super::settings::{Effective, Settings};
use crate::connection::listener::{self, ConnectionLimits};
use crate::connection::protocols::Protocols;
use crate::control::policy::Policies;
use crate::inbox::{self, Inbox};
use crate::prepare::config::Config;
use crate::prepare::pipeline::Pipeline;
use crate::telemetry;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use processor_log::cluster::Cluster;
use settings::process::{repeat, told_to_end};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};

/// How often recorded values are folded into histograms.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long the inbox may take to finish its batch at the end.
const INBOX_END: Duration = Duration::from_secs(4);
/// How long the producers and the spools may take at the end.
const SINK_END: Duration = Duration::from_secs(4);
/// The content type of `/metrics`.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Why the process ends by itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    /// A listener that was bound can't be used.
    #[error("a listener can't be used")]
    Listener(#[source] io::Error),
    /// Nothing would tell the process to end.
    #[error("signals can't be listened for")]
    Signals(#[source] io::Error),
    /// The listeners ended before the process was told to.
    #[error("the listeners ended by themselves")]
    Ended,
    /// The task that serves the listeners panicked.
    #[error("the listeners failed")]
    Panicked(#[source] JoinError),
}

/// Serves until the process is told to end, and ends everything in order.
pub(super) async fn serve(
    settings: Effective,
    ports: Ports,
    destinations: Vec<Destination>,
) -> Result<(), ServeError> {
    let (end, ending) = watch::channel(false);
    let sink = Arc::new(DeferredSink::new(ending.clone()));
    let http_at = ports.http.local_addr().map_err(ServeError::Listener)?;
    let grpc_at = ports
        .grpc
        .as_ref()
        .map_or(Ok(http_at), std::net::TcpListener::local_addr)
        .map_err(ServeError::Listener)?;
    let admin_at = ports.admin.local_addr().map_err(ServeError::Listener)?;
    let admin = TcpListener::from_std(ports.admin).map_err(ServeError::Listener)?;
    let admin = tokio::spawn(axum::serve(admin, admin_router(Arc::clone(&sink))).into_future());
    let policies = Arc::new(Policies::default());
    let pipeline = Pipeline::new(settings.limits.clone(), Arc::clone(&policies), Arc::clone(&sink));
    let mut listeners = listen(ports.http, ports.grpc, pipeline, &ending)?;
    tracing::info!(http = %http_at, grpc = %grpc_at, admin = %admin_at, kafka = settings.cluster.bootstrap, "listening");
    let behind = tokio::spawn(behind(
        settings.given,
        settings.cluster,
        settings.limits,
        policies,
        Arc::clone(&sink),
        ending,
        destinations,
    ));
    tokio::spawn(repeat(UPKEEP, telemetry::upkeep));

    let ended = tokio::select! {
        signal = told_to_end() => {
            signal.map_err(ServeError::Signals)?;
            None
        }
        ended = &mut listeners => Some(ended),
    };
    tracing::info!("ending: open requests are finished");
    // From here on the process is not ready, and takes no new connections.
    let _ = end.send(true);
    let ended = match ended {
        Some(Ok(())) => Err(ServeError::Ended),
        Some(Err(panic)) => Err(ServeError::Panicked(panic)),
        // The wait is bounded, since each listener gives open requests five seconds.
        None => listeners.await.map_err(ServeError::Panicked),
    };
    // A panic of this task was logged, and must not keep the sink from ending.
    let _ = behind.await;
    let ending = tokio::task::spawn_blocking(move || sink.end());
    if tokio::time::timeout(SINK_END, ending).await.is_err() {
        tracing::warn!("the sink did not end in time; what is spooled is drained by the next process");
    }
    admin.abort();
    tracing::info!("ended");
    ended
}

/// Starts to serve OTLP on one port for both protocols, or on one for each, until `ending` says so.
fn listen(
    http: std::net::TcpListener,
    grpc: Option<std::net::TcpListener>,
    pipeline: Arc<Pipeline<DeferredSink>>,
    ending: &watch::Receiver<bool>,
) -> Result<JoinHandle<()>, ServeError> {
    let limits = ConnectionLimits::new(&pipeline.config);
    let http = TcpListener::from_std(http).map_err(ServeError::Listener)?;
    let Some(grpc) = grpc else {
        let both = Protocols::both(pipeline);
        return Ok(tokio::spawn(listener::run(
            http,
            both,
            limits,
            over(ending.clone()),
        )));
    };
    let grpc = TcpListener::from_std(grpc).map_err(ServeError::Listener)?;
    let grpc = listener::run(
        grpc,
        Protocols::grpc(Arc::clone(&pipeline)),
        Arc::clone(&limits),
        over(ending.clone()),
    );
    let http = listener::run(http, Protocols::http(pipeline), limits, over(ending.clone()));
    Ok(tokio::spawn(async move {
        tokio::join!(http, grpc);
    }))
}

/// Connects to the cluster, then follows the control topic and drains the inbox, until the end.
async fn behind(
    given: Settings,
    cluster: Cluster,
    config: Config,
    policies: Arc<Policies>,
    sink: Arc<DeferredSink>,
    ending: watch::Receiver<bool>,
    destinations: Vec<Destination>,
) {
    let (control, others) = tokio::select! {
        connected = deferred::connect(destinations, &policies, &sink) => connected,
        () = over(ending.clone()) => return,
    };
    let raw_partitions = control.raw_partitions;
    let until = ending.clone();
    if let Err(error) = std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || control.follow(&until))
    {
        tracing::error!(%error, "the control topic is not followed: there is no thread for it");
    }
    if !given.inbox.enabled {
        return;
    }
    let session_timeout = given.inbox.session_timeout.0;
    let inbox = Inbox::start(inbox::Settings {
        cluster,
        raw_partitions,
        others,
        config,
        policies,
        session_timeout,
    });
    match inbox {
        Ok(inbox) => {
            over(ending).await;
            if let Ok(false) = tokio::task::spawn_blocking(move || inbox.end(INBOX_END)).await {
                tracing::warn!("the inbox did not end in time; what is not committed is drained again");
            }
        }
        Err(error) => tracing::error!(%error, "the inbox is not drained: there is no thread for it"),
    }
}

/// Resolves when the process is to end.
async fn over(mut ending: watch::Receiver<bool>) {
    // The sender is dropped only when the process ends.
    let _ = ending.wait_for(|over| *over).await;
}

/// The routes of the admin port: probes and metrics.
fn admin_router(sink: Arc<DeferredSink>) -> Router {
    let spool = Arc::clone(&sink);
    let metrics = move || async move {
        spool.observe();
        ([(header::CONTENT_TYPE, METRICS_TYPE)], telemetry::render()).into_response()
    };
    let ready = move || async move {
        match sink.not_ready() {
            None => (StatusCode::OK, "ok\n".to_owned()),
            Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        }
    };
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}
