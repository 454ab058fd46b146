//! The OTLP/HTTP door.

use crate::agent::Agent;
use crate::config::Config;
use crate::door::{Door, Form, Incoming};
use crate::grpc;
use crate::policy::Policies;
use crate::reply::Reject;
use crate::signal::Signal;
use crate::sink::Sink;
use crate::telemetry::Protocol;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use bytes::{Bytes, BytesMut};
use std::future::{Future, IntoFuture, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// A body must have come within that time.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);
/// Of a refused body that much is read and thrown away, so that the client gets to read the answer.
const DISCARD_BYTES_MAX: usize = 64 << 20;
/// And for no longer than that.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(5);
/// After the shutdown signal, open requests get that long.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(5);

/// Why a door closed by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener failed.
    #[error("the listener failed")]
    Listener(#[source] std::io::Error),
}

/// Serves OTLP/HTTP on `listener` until `shutdown` resolves, and open requests for up to five seconds more.
///
/// # Errors
/// The listener failed.
pub async fn serve<S: Sink>(
    config: Config,
    policies: Arc<Policies>,
    listener: TcpListener,
    sink: Arc<S>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    run(listener, router(Door::new(config, policies, sink)), shutdown).await
}

/// Serves a router, one of this crate's or one that merges them, until `shutdown` resolves and up to five seconds more.
///
/// # Errors
/// The listener failed.
pub async fn run(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
    let (begin, begun) = tokio::sync::oneshot::channel();
    let server = axum::serve(listener, router).with_graceful_shutdown(async move {
        shutdown.await;
        let _ = begin.send(());
    });
    let patience = async {
        let _ = begun.await;
        tokio::time::sleep(SHUTDOWN_TIME_MAX).await;
    };
    tokio::select! {
        result = server.into_future() => result.map_err(Error::Listener),
        () = patience => Ok(()),
    }
}

/// The routes of OTLP/HTTP; every other path is 404.
pub fn router<S: Sink>(door: Arc<Door<S>>) -> Router {
    routes().fallback(not_found::<S>).with_state(door)
}

/// The routes of both protocols, for one port; what neither has is told in the words of the one that was spoken.
pub fn both_router<S: Sink>(door: Arc<Door<S>>) -> Router {
    let other = |state: State<Arc<Door<S>>>, request: Request| async move {
        let content_type = request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        if content_type.starts_with(b"application/grpc") { grpc::unknown_method() } else { not_found(state, request).await }
    };
    routes().merge(grpc::routes()).fallback(other).with_state(door)
}

async fn not_found<S: Sink>(State(door): State<Arc<Door<S>>>, request: Request) -> Response {
    refuse(&door, None, Reject::NotFound, request).await
}

fn routes<S: Sink>() -> Router<Arc<Door<S>>> {
    let mut router = Router::new();
    for signal in Signal::ALL {
        let export = move |State(door): State<Arc<Door<S>>>, request: Request| async move { answer(&door, signal, request).await };
        let other = move |State(door): State<Arc<Door<S>>>, request: Request| async move {
            refuse(&door, Some(signal), Reject::Method, request).await
        };
        router = router.route(signal.path(), post(export).fallback(other));
    }
    router
}

async fn answer<S: Sink>(door: &Arc<Door<S>>, signal: Signal, request: Request) -> Response {
    let started = Instant::now();
    let (form, agent) = (form(request.headers()), agent(request.headers()));
    let outcome = Box::pin(export(door, signal, form, request)).await;
    if let Err(reject) = &outcome {
        door.telemetry.refused(agent, reject.verdict().retry_after.is_some());
    }
    finish(door, Some(signal), form, started, outcome)
}

fn agent(headers: &HeaderMap) -> Agent {
    Agent::of(headers.get(header::USER_AGENT).map(HeaderValue::as_bytes))
}

async fn refuse<S: Sink>(door: &Arc<Door<S>>, signal: Option<Signal>, reject: Reject, request: Request) -> Response {
    let started = Instant::now();
    let form = form(request.headers());
    discard(request.into_body()).await;
    finish(door, signal, form, started, Err(reject))
}

fn finish<S: Sink>(door: &Door<S>, signal: Option<Signal>, form: Option<Form>, started: Instant, outcome: Result<(), Reject>) -> Response {
    let form = form.unwrap_or(Form::Json);
    let (response, reason) = match &outcome {
        Ok(()) => (success(form), None),
        Err(reject) => {
            let verdict = reject.verdict();
            if verdict.http.is_server_error() {
                tracing::warn!(reason = verdict.reason, error = %reject, "request refused");
            } else {
                tracing::debug!(reason = verdict.reason, "request refused");
            }
            (failure(form, reject), Some(verdict.reason))
        }
    };
    door.telemetry.answered(Protocol::Http, signal, response.status().as_u16(), reason, started.elapsed());
    response
}

async fn export<S: Sink>(door: &Arc<Door<S>>, signal: Signal, form: Option<Form>, request: Request) -> Result<(), Reject> {
    let (parts, mut body) = request.into_parts();
    let head = match (form, encoding(&parts.headers)) {
        (Some(form), Ok(gzip)) => Ok((form, gzip)),
        (None, _) => Err(Reject::ContentType),
        (_, Err(reject)) => Err(reject),
    };
    let limit = door.config.body_bytes_max;
    let read = match head {
        Ok((form, gzip)) => {
            let mut permit = door.permit()?;
            let body = tokio::time::timeout(BODY_TIME_MAX, read(&mut body, limit, &mut permit)).await.unwrap_or(Err(Reject::Slow));
            body.map(|body| Incoming { signal, form, gzip, body, permit })
        }
        Err(reject) => Err(reject),
    };
    match read {
        Ok(incoming) => door.accept(incoming).await,
        Err(reject) => {
            if !matches!(reject, Reject::Slow | Reject::Body) {
                discard(body).await;
            }
            Err(reject)
        }
    }
}

/// The encoding that the content type names, parameters left aside.
fn form(headers: &HeaderMap) -> Option<Form> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next()?.trim();
    if essence.eq_ignore_ascii_case("application/x-protobuf") {
        Some(Form::Protobuf)
    } else if essence.eq_ignore_ascii_case("application/json") {
        Some(Form::Json)
    } else {
        None
    }
}

/// Whether the body is gzip.
fn encoding(headers: &HeaderMap) -> Result<bool, Reject> {
    let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(false) };
    let name = value.to_str().map_err(|_| Reject::ContentEncoding)?.trim();
    match values.next() {
        None if name.eq_ignore_ascii_case("gzip") => Ok(true),
        None if name.is_empty() || name.eq_ignore_ascii_case("identity") => Ok(false),
        _ => Err(Reject::ContentEncoding),
    }
}

/// The whole body; its bytes count against the permit as they come.
async fn read(body: &mut Body, limit: usize, permit: &mut crate::admit::Permit) -> Result<Bytes, Reject> {
    if body.size_hint().lower() > limit as u64 {
        return Err(Reject::BodyTooLarge(limit));
    }
    let mut whole = BytesMut::new();
    let mut first = None;
    while let Some(chunk) = chunk(body).await? {
        let length = whole.len() + first.as_ref().map_or(0, Bytes::len) + chunk.len();
        if length > limit {
            return Err(Reject::BodyTooLarge(limit));
        }
        permit.grow(chunk.len())?;
        match first.take() {
            None if whole.is_empty() => first = Some(chunk),
            Some(before) => {
                whole.extend_from_slice(&before);
                whole.extend_from_slice(&chunk);
            }
            None => whole.extend_from_slice(&chunk),
        }
    }
    // A body of one chunk, the usual case, is not copied.
    Ok(first.unwrap_or_else(|| whole.freeze()))
}

/// The next data of a body; none at its end.
async fn chunk(body: &mut Body) -> Result<Option<Bytes>, Reject> {
    loop {
        match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
            None => return Ok(None),
            Some(Err(_)) => return Err(Reject::Body),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data()
                    && !data.is_empty()
                {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Reads what is left of a refused body, within limits: a client that is still sending would miss the answer.
async fn discard(mut body: Body) {
    let all = async {
        let mut length = 0;
        while let Ok(Some(chunk)) = chunk(&mut body).await {
            length += chunk.len();
            if length > DISCARD_BYTES_MAX {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIME_MAX, all).await;
}

fn success(form: Form) -> Response {
    let body = match form {
        Form::Protobuf => Body::empty(),
        Form::Json => Body::from("{}"),
    };
    response(StatusCode::OK, form, body)
}

fn failure(form: Form, reject: &Reject) -> Response {
    let verdict = reject.verdict();
    let body = match form {
        Form::Protobuf => reject.status().to_protobuf(),
        Form::Json => reject.status().to_json(),
    };
    let mut response = response(verdict.http, form, Body::from(body));
    if let Some(seconds) = verdict.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if matches!(reject, Reject::Method) {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

fn response(status: StatusCode, form: Form, body: Body) -> Response {
    let content_type = match form {
        Form::Protobuf => "application/x-protobuf",
        Form::Json => "application/json",
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
