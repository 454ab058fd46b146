//! Takes texts out of a request before anything is written, in all three signals.
//!
//! One walker over the wire form, driven by the tables of `table`: what changes is rewritten, all else, unknown fields
//! included, is copied as it came, in its order. What derivation needs from a text is taken out first
//! (`extract`), so that it is derived the same whatever is kept.

mod extract;
mod rewrite;
mod table;
mod trim;

use crate::signal::Signal;
use crate::wire::WireError;
use bytes::Bytes;
use schemas::event::PRIVATE_KEYS;
use schemas::privacy::Kept;

/// A log record or span may have that many bytes; longer texts in it are cut.
pub const RECORD_BYTES_MAX: usize = 4 << 20;

/// Messages within messages, from the request down. Prost reads 100, so every reader reads what passes here.
pub const DEPTH_MAX: usize = 90;

/// The target of span events that Codex itself holds to be free of texts.
pub const TRACE_SAFE: &str = "codex_otel.trace_safe";

/// What was taken out, by rule: numbers, never values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attributes removed, by the index of their key in [`PRIVATE_KEYS`].
    pub removed: [u64; PRIVATE_KEYS.len()],
    /// Bodies of log records removed.
    pub bodies: u64,
    /// Attributes stripped because only Tachograph may write them.
    pub stripped: u64,
    /// Span events removed because their target is not [`TRACE_SAFE`].
    pub span_events: u64,
    /// Texts cut because their record was over [`RECORD_BYTES_MAX`].
    pub truncated: u64,
}

/// A request that may be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleaned {
    /// The request; the very same bytes where nothing had to change.
    pub bytes: Bytes,
    /// What was taken out.
    pub counts: Counts,
}

/// Why a request can't be cleaned, and so can't be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrivacyError {
    /// The bytes are no request of that signal.
    #[error("not an OTLP request: {0}")]
    Wire(#[from] WireError),
    /// A record is over the limit, and not because of texts that could be cut.
    #[error("a record of {bytes} bytes is over the limit of {RECORD_BYTES_MAX}, and its texts are not what makes it so")]
    RecordTooLarge {
        /// Its size, after removals.
        bytes: usize,
    },
}

/// Removes what must not be written and checks the form on the way.
///
/// Each attribute named in [`PRIVATE_KEYS`], however deep, becomes an int `tacho.<key>.bytes`; a body that holds text
/// becomes the attribute `tacho.body.bytes`; span events of other targets than [`TRACE_SAFE`] go; attributes of
/// `tacho.*` are stripped. What is `kept` stays in place; extraction and stripping are done all the same.
///
/// # Errors
/// The bytes are malformed or nested deeper than [`DEPTH_MAX`], or a record can't be cut to [`RECORD_BYTES_MAX`].
pub fn apply(signal: Signal, request: Bytes, kept: Kept) -> Result<Cleaned, PrivacyError> {
    let mut walker = rewrite::Walker::new(kept);
    let rewritten = walker.request(signal, &request)?;
    Ok(Cleaned { bytes: rewritten.map_or(request, Bytes::from), counts: walker.counts })
}
