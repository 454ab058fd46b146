//! The admin port: `/metrics`, probes, the page, and `/api/read`, by which `tacho read` reads the log of a running process.
//!
//! **Invariant:** of derived values, the port shows the committed view and nothing else.

mod overview;
mod remote;

pub use remote::{ExtentReply, ReadReply, RemoteRecord, reply_of};

use crate::sink::prometheus;
use crate::status::Health;
use crate::telemetry;
use crate::view::View;
use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use processor_log::{LogError, ReadLog};
use schemas::id::{Position, TopicPartition};
use schemas::topic::Topic;
use settings::process::chain;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};

/// The most records of one answer of `/api/read`.
pub const READ_RECORDS_MAX: usize = 500;

/// Opens the log for reading; called at the first read.
pub type OpenLog = dyn Fn() -> Result<Box<dyn ReadLog>, LogError> + Send + Sync;

/// Returns whether ingest takes records now.
pub type IngestReady = dyn Fn() -> bool + Send + Sync;

/// What the admin port serves.
pub struct Admin {
    /// The committed view.
    pub view: Arc<View>,
    /// The status of the workers.
    pub health: Arc<Health>,
    /// Returns whether ingest takes records now, which is part of readiness.
    pub ingest_ready: Box<IngestReady>,
    /// Opens the log for `/api/read`.
    pub open: Box<OpenLog>,
    /// The token that `/api/read` and `/api/extent` demand in `Authorization: Bearer …`; empty if they refuse every request.
    pub token: String,
    /// The page, with `NONCE` in place of the nonce of scripts and styles.
    pub page: &'static str,
    /// The configuration for Codex, which the page shows while there is no data.
    pub setup: String,
    /// What this process runs on, such as the data directory, which the page shows.
    pub about: String,
}

/// What all requests share.
struct Shared {
    admin: Admin,
    /// The log for reading, opened at the first read. Requests read one at a time.
    reader: Mutex<Option<Box<dyn ReadLog>>>,
}

/// The routes of the admin port. If `loopback` is set, they refuse requests whose `Host` is not this machine, which a page of
/// another origin would send after DNS rebinding.
pub fn router(admin: Admin, loopback: bool) -> Router {
    let shared = Arc::new(Shared {
        admin,
        reader: Mutex::new(None),
    });
    let routes = Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/api/overview", get(api_overview))
        .route("/api/extent", get(api_extent))
        .route("/api/read", get(api_read))
        .with_state(shared);
    if loopback {
        routes.layer(axum::middleware::from_fn(only_local_host))
    } else {
        routes
    }
}

async fn only_local_host(request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("");
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    // A request without Host is of HTTP/1.0, which no browser sends.
    if name.is_empty() || name.eq_ignore_ascii_case("localhost") || is_loopback(name) {
        next.run(request).await
    } else {
        (
            StatusCode::FORBIDDEN,
            "this address is served on loopback only: use 127.0.0.1 or localhost\n",
        )
            .into_response()
    }
}

fn is_loopback(name: &str) -> bool {
    let name = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    name.parse::<std::net::IpAddr>()
        .is_ok_and(|address| address.is_loopback())
}

async fn metrics(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let accepted = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let format = prometheus::Format::accepted(accepted);
    let body = prometheus::body(&shared.admin.view, &telemetry::render(), format);
    (
        [
            (header::CONTENT_TYPE, format.content_type()),
            (header::VARY, "accept"),
        ],
        body,
    )
        .into_response()
}

async fn livez(State(shared): State<Arc<Shared>>) -> Response {
    if shared.admin.health.is_alive() {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "a worker gave no sign of life for 60 s\n",
        )
            .into_response()
    }
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    if !shared.admin.health.is_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "state is not restored yet\n").into_response();
    }
    if !(shared.admin.ingest_ready)() {
        return (StatusCode::SERVICE_UNAVAILABLE, "ingest does not take records\n").into_response();
    }
    (StatusCode::OK, "ok\n").into_response()
}

async fn page(State(shared): State<Arc<Shared>>) -> Response {
    let nonce = nonce();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let mut response = shared.admin.page.replace("NONCE", &nonce).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_str(&policy).expect("hex digits and fixed ASCII"),
    );
    response
}

/// A nonce of 128 bits: hashes under random keys, which the standard library takes from the system.
fn nonce() -> String {
    format!(
        "{:016x}{:016x}",
        RandomState::new().hash_one(0),
        RandomState::new().hash_one(1)
    )
}

async fn api_overview(State(shared): State<Arc<Shared>>) -> Response {
    let mut value = overview::overview(&shared.admin.view);
    value["ready"] = shared.admin.health.is_ready().into();
    value["setup"] = shared.admin.setup.as_str().into();
    value["about"] = shared.admin.about.as_str().into();
    (
        [
            (header::CONTENT_TYPE, "application/json"),
            (header::CACHE_CONTROL, "no-store"),
        ],
        value.to_string(),
    )
        .into_response()
}

#[derive(serde::Deserialize)]
struct Where {
    topic: String,
    #[serde(default)]
    partition: i32,
    #[serde(default)]
    from: i64,
    max: Option<usize>,
}

async fn api_extent(
    State(shared): State<Arc<Shared>>,
    Query(at): Query<Where>,
    headers: HeaderMap,
) -> Response {
    answer(shared, at, &headers, |log, topic, at| {
        let partitions = log.partitions(topic)?;
        let extent = log.extent(TopicPartition {
            topic,
            partition: at.partition,
        })?;
        Ok(prost::Message::encode_to_vec(&ExtentReply {
            partitions,
            start: extent.start.0,
            end: extent.end.0,
        }))
    })
    .await
}

async fn api_read(
    State(shared): State<Arc<Shared>>,
    Query(at): Query<Where>,
    headers: HeaderMap,
) -> Response {
    answer(shared, at, &headers, |log, topic, at| {
        let max = at.max.unwrap_or(READ_RECORDS_MAX).clamp(1, READ_RECORDS_MAX);
        let batch = log.read(
            TopicPartition {
                topic,
                partition: at.partition,
            },
            Position(at.from),
            max,
        )?;
        Ok(prost::Message::encode_to_vec(&reply_of(batch)))
    })
    .await
}

/// Reads what a query asks for from the log, and gives the encoded reply.
type Read = fn(&mut dyn ReadLog, Topic, &Where) -> Result<Vec<u8>, LogError>;

/// Answers a query of the log: checks token and topic, and runs `read` on a thread that may block.
async fn answer(shared: Arc<Shared>, at: Where, headers: &HeaderMap, read: Read) -> Response {
    if !authorized(headers, &shared.admin.token) {
        return (
            StatusCode::UNAUTHORIZED,
            "the token is in admin.json of the data directory\n",
        )
            .into_response();
    }
    let Some(topic) = Topic::by_name(&at.topic) else {
        return (StatusCode::NOT_FOUND, "there is no such topic\n").into_response();
    };
    let work = move || {
        let mut reader = shared
            .reader
            .lock()
            .map_err(|_| LogError::unavailable("an earlier read panicked"))?;
        let log = match &mut *reader {
            Some(log) => log,
            none => none.insert((shared.admin.open)()?),
        };
        read(log.as_mut(), topic, &at)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(bytes)) => ([(header::CONTENT_TYPE, "application/x-protobuf")], bytes).into_response(),
        Ok(Err(LogError::OutOfRange { start, .. })) => (StatusCode::GONE, start.to_string()).into_response(),
        Ok(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", chain(&error))).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the read panicked\n").into_response(),
    }
}

/// Whether a request has the token. The comparison takes the same time wherever the texts differ.
fn authorized(headers: &HeaderMap, token: &str) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "))
        .unwrap_or(b"");
    let token = token.as_bytes();
    !token.is_empty()
        && given.len() == token.len()
        && given.iter().zip(token).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
}

#[cfg(test)]
mod tests;
