//! Watches what a connection is doing, so that slow and idle ones can be closed.
//!
//! hyper's own timeout for heads does not tell an idle connection from one whose head is slow; this does.

use crate::connection::telemetry::Cut;
use axum::http::Version;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// What a connection is doing, and since when. Clones share it.
#[derive(Clone)]
pub(super) struct Activity(Arc<Mutex<Doing>>);

struct Doing {
    /// How many requests are not answered yet.
    open: usize,
    /// Whether an HTTP/1 connection waits for a request's head: for the rest of one, or for its first one.
    is_head: bool,
    is_http2: bool,
    /// Whether nothing was read yet.
    is_new: bool,
    /// When the connection became what it is: waiting for a head, or idle.
    since: Instant,
}

/// A request that is not answered yet, until this is dropped.
pub(super) struct Open(Activity);

impl Activity {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Doing {
            open: 0,
            is_head: true,
            is_http2: false,
            is_new: true,
            since: Instant::now(),
        })))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Doing) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes bytes that were read.
    fn read(&self, bytes: &[u8]) {
        self.change(|doing| {
            if std::mem::take(&mut doing.is_new) && bytes.starts_with(b"PRI") {
                // The preface of HTTP/2. Its frames do not show heads, so such a connection is only busy or idle.
                (doing.is_http2, doing.is_head) = (true, false);
            }
            if doing.open == 0 && !doing.is_head && !doing.is_http2 {
                (doing.is_head, doing.since) = (true, Instant::now());
            }
        });
    }

    /// Notes a request whose head was read.
    pub fn open(&self, version: Version) -> Open {
        self.change(|doing| {
            doing.open += 1;
            doing.is_head = false;
            doing.is_http2 |= version == Version::HTTP_2;
        });
        Open(self.clone())
    }

    /// Why the connection is to be closed now, if it is: a head may take `header`, a pause between requests `idle`.
    pub fn overdue(&self, header: Duration, idle: Duration) -> Option<Cut> {
        self.change(|doing| match doing.since.elapsed() {
            _ if doing.open > 0 => None,
            waited if doing.is_head => (waited >= header).then_some(Cut::Header),
            waited => (waited >= idle).then_some(Cut::Idle),
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.change(|doing| {
            doing.open -= 1;
            doing.since = Instant::now();
        });
    }
}

/// A connection that notes in its activity what is read.
pub(super) struct Watched {
    pub stream: TcpStream,
    pub activity: Activity,
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
