//! HTTP requests to the model API.

use super::{Event, add, compaction, duration_us};
use crate::out::Out;
use crate::sessions::classify;
use schemas::event::Attr;
use schemas::fact::{Fact, RetryLayer};
use schemas::state::SessionState;

/// Counts an HTTP attempt, and decides whether it failed and whether it was a retry.
pub fn api_request(event: Event<'_>, session: &mut SessionState, out: &mut Out<'_>) {
    let attrs = event.attrs;
    let endpoint = classify::endpoint(attrs);
    let status = attrs
        .int(Attr::StatusCode)
        .and_then(|status| u16::try_from(status).ok());
    let error = classify::request_error(status, attrs);
    let retry = if attrs.int(Attr::Attempt).is_some_and(|attempt| attempt > 0) {
        Some(RetryLayer::Http)
    } else if session.failed && endpoint.starts_with("/responses") {
        // A new request of the stream layer begins with `attempt` 0 again.
        Some(RetryLayer::Stream)
    } else {
        None
    };
    let duration_us = duration_us(attrs);
    session.failed |= error.is_some();
    let counts = session.counts.get_or_insert_default();
    counts.api_requests += 1;
    counts.api_errors += u64::from(error.is_some());
    counts.api_retries_http += u64::from(retry == Some(RetryLayer::Http));
    counts.api_retries_stream += u64::from(retry == Some(RetryLayer::Stream));
    add(&mut counts.api_duration_us, duration_us.unwrap_or(0));
    out.emit(&Fact::Request {
        endpoint,
        status,
        error,
        retry,
        duration_us,
    });
    if endpoint == compaction::ENDPOINT && error.is_none() {
        compaction::requested(event.record.time, session, out);
    }
}
