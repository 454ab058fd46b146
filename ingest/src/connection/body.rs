//! Reading request bodies, within limits of size and time.

use crate::connection::reply::Reject;
use crate::prepare::admit::Permit;
use crate::prepare::memory::capacity;
use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

/// Of a refused body that much is read and thrown away, so that the client gets to read the answer.
const DISCARD_BYTES_MAX: usize = 64 << 20;
/// And for no longer than that.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(5);

/// The whole body, in that time; its bytes count against the permit as they come.
pub(crate) async fn read(
    body: &mut Body,
    limit: usize,
    time: Duration,
    permit: &mut Permit,
) -> Result<Bytes, Reject> {
    tokio::time::timeout(time, whole(body, limit, permit))
        .await
        .unwrap_or(Err(Reject::Slow))
}

async fn whole(body: &mut Body, limit: usize, permit: &mut Permit) -> Result<Bytes, Reject> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(Reject::BodyTooLarge(limit));
    }
    let mut whole = BytesMut::new();
    let mut first: Option<Bytes> = None;
    while let Some(chunk) = chunk(body).await? {
        let length = whole.len() + first.as_ref().map_or(0, Bytes::len) + chunk.len();
        if length > limit {
            return Err(Reject::BodyTooLarge(limit));
        }
        permit.grow(chunk.len())?;
        match first.take() {
            None if whole.is_empty() => first = Some(chunk),
            Some(before) => {
                // What is announced is not there yet, and counts only as it comes.
                whole.reserve(capacity(announced.max(length)));
                whole.extend_from_slice(&before);
                whole.extend_from_slice(&chunk);
            }
            None => {
                // Of a body that does not announce its size.
                if whole.capacity() < length {
                    whole.reserve(capacity(2 * length) - whole.len());
                }
                whole.extend_from_slice(&chunk);
            }
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
pub(crate) async fn discard(mut body: Body) {
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
