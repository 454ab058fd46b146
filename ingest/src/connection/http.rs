//! Answers OTLP/HTTP requests: reads head and body, hands them to the pipeline, writes the answer.

use crate::connection::agent::Agent;
use crate::connection::body::{read, refuse};
use crate::connection::error::RequestError;
use crate::connection::reply::{success_json, success_protobuf};
use crate::connection::telemetry::{Protocol, RequestTelemetry};
use crate::prepare::coding::Coding;
use crate::prepare::pipeline::{Accepted, Pipeline};
use crate::prepare::request::{Format, Incoming};
use crate::sink::Sink;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use schemas::signal::Signal;
use std::sync::Arc;
use std::time::Instant;

/// What is posted to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Signal(Signal),
    /// Requests of any signal, told apart by their content.
    Any,
}

impl Target {
    /// The target of a path; none for paths that nothing is posted to.
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

pub(super) async fn answer<S: Sink>(
    pipeline: &Arc<Pipeline<S>>,
    telemetry: &RequestTelemetry,
    request: Request,
) -> Response {
    let started = Instant::now();
    let (format, agent) = (format(request.headers()), Agent::in_headers(request.headers()));
    let target = Target::of(request.uri().path());
    let outcome = match target {
        None => refuse(RequestError::NotFound, request.into_body()).await,
        Some(_) if request.method() != Method::POST => {
            refuse(RequestError::Method, request.into_body()).await
        }
        Some(target) => export(pipeline, target, format, request).await,
    };
    let format = format.unwrap_or(Format::Json);
    let (response, signal, reason) = match &outcome {
        Ok(accepted) => (success(format, accepted), Some(accepted.signal), None),
        Err(error) => {
            let verdict = error.verdict();
            telemetry.refused(agent, verdict.retry_after.is_some());
            error.log();
            let signal = target.and_then(Target::signal);
            (failure(format, error), signal, Some(verdict.reason.name()))
        }
    };
    telemetry.answered(
        Protocol::Http,
        signal,
        response.status().as_u16(),
        reason,
        started.elapsed(),
    );
    response
}

async fn export<S: Sink>(
    pipeline: &Arc<Pipeline<S>>,
    target: Target,
    format: Option<Format>,
    request: Request,
) -> Result<Accepted, RequestError> {
    let (parts, mut body) = request.into_parts();
    let read = match (format, coding(&parts.headers)) {
        (Some(format), Ok(coding)) => {
            let mut permit = pipeline.permit()?;
            let body = read(
                &mut body,
                pipeline.config.body_bytes_max,
                pipeline.config.body_time_max,
                &mut permit,
            )
            .await;
            body.map(|body| Incoming {
                signal: target.signal(),
                format,
                coding,
                body,
                permit,
            })
        }
        (None, _) => Err(RequestError::ContentType),
        (_, Err(error)) => Err(error),
    };
    match read {
        Ok(incoming) => Ok(pipeline.accept(incoming).await?),
        Err(error @ (RequestError::Slow | RequestError::Body)) => Err(error),
        Err(error) => refuse(error, body).await,
    }
}

/// The format that the content type names, whatever its parameters.
fn format(headers: &HeaderMap) -> Option<Format> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next()?.trim();
    if essence.eq_ignore_ascii_case("application/x-protobuf") {
        Some(Format::Protobuf)
    } else if essence.eq_ignore_ascii_case("application/json") {
        Some(Format::Json)
    } else {
        None
    }
}

/// How the body is compressed; at most one coding is understood.
fn coding(headers: &HeaderMap) -> Result<Coding, RequestError> {
    let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(value) = values.next() else {
        return Ok(Coding::Identity);
    };
    let coding = value
        .to_str()
        .ok()
        .and_then(Coding::by_name)
        .filter(|_| values.next().is_none());
    coding.ok_or(RequestError::ContentEncoding)
}

fn success(format: Format, accepted: &Accepted) -> Response {
    let body = match (format, &accepted.warning) {
        (Format::Protobuf, None) => Body::empty(),
        (Format::Protobuf, Some(_)) => Body::from(success_protobuf(accepted)),
        (Format::Json, _) => Body::from(success_json(accepted)),
    };
    response(StatusCode::OK, format, body)
}

fn failure(format: Format, error: &RequestError) -> Response {
    let verdict = error.verdict();
    let body = match format {
        Format::Protobuf => error.status().to_protobuf(),
        Format::Json => error.status().to_json(),
    };
    let mut response = response(verdict.http, format, Body::from(body));
    if let Some(seconds) = verdict.retry_after {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if matches!(error, RequestError::Method) {
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    if matches!(error, RequestError::ContentEncoding) {
        response
            .headers_mut()
            .insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd"));
    }
    response
}

fn response(status: StatusCode, format: Format, body: Body) -> Response {
    let content_type = match format {
        Format::Protobuf => "application/x-protobuf",
        Format::Json => "application/json",
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
