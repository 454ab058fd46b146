//! The OTLP/HTTP door.

use crate::connection::agent::Agent;
use crate::connection::body::{discard, read};
use crate::connection::listener::{Gate, run};
use crate::connection::protocols::Entrance;
use crate::connection::reply::{Accepted, Reject};
use crate::control::policy::Policies;
use crate::prepare::coding::Coding;
use crate::prepare::config::Config;
use crate::prepare::pipeline::{Door, Form, Incoming};
use crate::sink::Sink;
use crate::telemetry::Protocol;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use schemas::signal::Signal;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpListener;

/// Serves OTLP/HTTP on `listener` until `shutdown` resolves, and open requests for up to five seconds more.
pub async fn serve<S: Sink>(
    config: Config,
    policies: Arc<Policies>,
    listener: TcpListener,
    sink: Arc<S>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let gate = Gate::new(&config);
    run(
        listener,
        Entrance::http(Door::new(config, policies, sink)),
        gate,
        shutdown,
    )
    .await;
}

/// What a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Signal(Signal),
    /// Any signal: the content tells.
    Any,
}

impl Target {
    fn of(path: &str) -> Option<Self> {
        if path == "/" {
            return Some(Self::Any);
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        Signal::ALL
            .into_iter()
            .find(|signal| path.ends_with(signal.path()))
            .map(Self::Signal)
    }

    const fn signal(self) -> Option<Signal> {
        match self {
            Self::Signal(signal) => Some(signal),
            Self::Any => None,
        }
    }
}

pub(crate) async fn answer<S: Sink>(door: &Arc<Door<S>>, request: Request) -> Response {
    let started = Instant::now();
    let (form, agent) = (form(request.headers()), Agent::in_headers(request.headers()));
    let target = Target::of(request.uri().path());
    let outcome = match target {
        None => refuse(Reject::NotFound, request.into_body()).await,
        Some(_) if request.method() != Method::POST => refuse(Reject::Method, request.into_body()).await,
        Some(target) => export(door, target, form, request).await,
    };
    if let Err(reject) = &outcome {
        door.telemetry
            .refused(agent, reject.verdict().retry_after.is_some());
    }
    finish(door, target.and_then(Target::signal), form, started, outcome)
}

async fn refuse(reject: Reject, body: Body) -> Result<Accepted, Reject> {
    discard(body).await;
    Err(reject)
}

fn finish<S: Sink>(
    door: &Door<S>,
    signal: Option<Signal>,
    form: Option<Form>,
    started: Instant,
    outcome: Result<Accepted, Reject>,
) -> Response {
    let form = form.unwrap_or(Form::Json);
    let (response, signal, reason) = match &outcome {
        Ok(accepted) => (success(form, accepted), Some(accepted.signal), None),
        Err(reject) => (failure(form, reject), signal, Some(reject.tell())),
    };
    door.telemetry.answered(
        Protocol::Http,
        signal,
        response.status().as_u16(),
        reason,
        started.elapsed(),
    );
    response
}

async fn export<S: Sink>(
    door: &Arc<Door<S>>,
    target: Target,
    form: Option<Form>,
    request: Request,
) -> Result<Accepted, Reject> {
    let (parts, mut body) = request.into_parts();
    let read = match (form, coding(&parts.headers)) {
        (Some(form), Ok(coding)) => {
            let mut permit = door.permit()?;
            let body = read(
                &mut body,
                door.config.body_bytes_max,
                door.config.body_time_max,
                &mut permit,
            )
            .await;
            body.map(|body| Incoming {
                signal: target.signal(),
                form,
                coding,
                body,
                permit,
            })
        }
        (None, _) => Err(Reject::ContentType),
        (_, Err(reject)) => Err(reject),
    };
    match read {
        Ok(incoming) => door.accept(incoming).await,
        Err(reject @ (Reject::Slow | Reject::Body)) => Err(reject),
        Err(reject) => refuse(reject, body).await,
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

/// How the body is compressed.
fn coding(headers: &HeaderMap) -> Result<Coding, Reject> {
    let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(value) = values.next() else {
        return Ok(Coding::Identity);
    };
    let coding = value
        .to_str()
        .ok()
        .and_then(Coding::by_name)
        .filter(|_| values.next().is_none());
    coding.ok_or(Reject::ContentEncoding)
}

fn success(form: Form, accepted: &Accepted) -> Response {
    let body = match (form, &accepted.warning) {
        (Form::Protobuf, None) => Body::empty(),
        (Form::Protobuf, Some(_)) => Body::from(accepted.to_protobuf()),
        (Form::Json, _) => Body::from(accepted.to_json()),
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
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if matches!(reject, Reject::Method) {
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    if matches!(reject, Reject::ContentEncoding) {
        response
            .headers_mut()
            .insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd"));
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
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (path, target) in [
            ("/v1/logs", Some(Target::Signal(Signal::Logs))),
            ("/v1/traces/", Some(Target::Signal(Signal::Traces))),
            ("/team-a/otlp/v1/metrics", Some(Target::Signal(Signal::Metrics))),
            ("/", Some(Target::Any)),
            ("/v1/logs//", None),
            ("/v1/profiles", None),
            ("/team-av1/logs", None),
            ("/team-a", None),
            ("/v1/logs/more", None),
            ("", None),
        ] {
            assert_eq!(Target::of(path), target, "{path}");
        }
    }
}
