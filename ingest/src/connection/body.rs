//! Reads request bodies, within limits of size and time.

use crate::connection::error::RequestError;
use crate::prepare::admit::Permit;
use crate::prepare::error::PipelineError;
use crate::prepare::memory::capacity;
use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

/// How many bytes of a refused body are read and thrown away, so that the client comes to read the answer.
const DISCARD_BYTES_MAX: usize = 64 << 20;
/// How long the rest of a refused body is read.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(5);

/// Reads a whole body of at most `limit` bytes within `time`. The permit grows by its bytes as they come.
///
/// # Errors
/// The body is too large, too slow or breaks off, or open requests hold too many bytes.
pub(crate) async fn read(
    body: &mut Body,
    limit: usize,
    time: Duration,
    permit: &mut Permit,
) -> Result<Bytes, RequestError> {
    tokio::time::timeout(time, whole(body, limit, permit))
        .await
        .unwrap_or(Err(RequestError::Slow))
}

async fn whole(body: &mut Body, limit: usize, permit: &mut Permit) -> Result<Bytes, RequestError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(PipelineError::BodyTooLarge(limit).into());
    }
    let mut whole = BytesMut::new();
    let mut first: Option<Bytes> = None;
    while let Some(chunk) = chunk(body).await? {
        let length = whole.len() + first.as_ref().map_or(0, Bytes::len) + chunk.len();
        if length > limit {
            return Err(PipelineError::BodyTooLarge(limit).into());
        }
        permit.grow(chunk.len()).map_err(PipelineError::from)?;
        match first.take() {
            None if whole.is_empty() => first = Some(chunk),
            Some(before) => {
                // The announced size is reserved at once, but the permit counts bytes only as they come.
                whole.reserve(capacity(announced.max(length)));
                whole.extend_from_slice(&before);
                whole.extend_from_slice(&chunk);
            }
            None => {
                // Only a body that does not announce its size grows further.
                if whole.capacity() < length {
                    whole.reserve(capacity(2 * length) - whole.len());
                }
                whole.extend_from_slice(&chunk);
            }
        }
    }
    // Most bodies are one chunk, which is not copied.
    Ok(first.unwrap_or_else(|| whole.freeze()))
}

/// The next data of a body; none at the end.
async fn chunk(body: &mut Body) -> Result<Option<Bytes>, RequestError> {
    loop {
        match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
            None => return Ok(None),
            Some(Err(_)) => return Err(RequestError::Body),
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

/// Refuses a request with that error, and reads what is left of its body first.
///
/// # Errors
/// Always the error given.
pub(crate) async fn refuse<T>(error: RequestError, body: Body) -> Result<T, RequestError> {
    discard(body).await;
    Err(error)
}

/// Reads what is left of a refused body, within limits, since a client that is still sending would miss the answer.
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
