//! Takes texts, or the secrets in them, out of a request before anything is written, in all three signals.
//!
//! One walker over the wire form, driven by the tables of `table`: what changes is rewritten, all else, unknown fields
//! included, is copied as it came, in its order. What derivation needs from a text is taken out first
//! (`extract`), so that it is derived the same whatever is kept.

mod extract;
mod rewrite;
mod table;
mod texts;
mod trim;

use crate::prepare::conversation::Conversations;
use crate::prepare::hash::HashKey;
use crate::prepare::wire::WireError;
use bytes::Bytes;
use schemas::privacy::{Actions, FIELD_COUNT};
use schemas::signal::Signal;
use std::collections::BTreeMap;

/// A log record or span may have that many bytes; longer texts in it are cut.
pub const RECORD_BYTES_MAX: usize = 4 << 20;

/// Messages within messages, from the request down. Prost reads 100, so every reader reads what passes here.
pub const DEPTH_MAX: usize = 90;

/// The target of span events that Codex itself holds to be free of texts.
pub const TRACE_SAFE: &str = "codex_otel.trace_safe";

/// What was changed, by field and rule: numbers, never values. Fields are in the order of [`schemas::privacy::fields`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Removed, by field.
    pub dropped: [u64; FIELD_COUNT],
    /// Replaced by a hash, by field.
    pub hashed: [u64; FIELD_COUNT],
    /// Removed, where a hash was wanted and there is no key, by field.
    pub unhashed: [u64; FIELD_COUNT],
    /// Secrets taken out of texts, by field and the id of the rule.
    pub scrubbed: BTreeMap<(usize, &'static str), u64>,
    /// Attributes stripped because only Tachograph may write them.
    pub stripped: u64,
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
    /// Of a logs request, the conversation of each record.
    pub conversations: Conversations,
}

/// Why a request can't be cleaned, and so can't be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrivacyError {
    /// The bytes are no request of that signal.
    #[error("not an OTLP request: {0}")]
    Wire(#[from] WireError),
    /// A record is over the limit, and not because of texts that could be cut.
    #[error(
        "a record of {bytes} bytes is over the limit of {RECORD_BYTES_MAX}, and its texts are not what makes it so"
    )]
    RecordTooLarge {
        /// Its size, after removals.
        bytes: usize,
    },
}

/// Removes or changes what must not be written and checks the form on the way.
///
/// What is dropped leaves its size: each attribute named in [`PRIVATE_KEYS`](schemas::event::PRIVATE_KEYS), however deep,
/// becomes an int `tacho.<key>.bytes`, a body that holds text the attribute `tacho.body.bytes`; span events of other targets
/// than [`TRACE_SAFE`], and texts of spans, leave nothing. A hash takes the place of a value, by `key`; without a key the value
/// is dropped. What is scrubbed loses what the rules of [`scrub`](crate::scrub) find. What is kept stays in place. Extraction,
/// and stripping of attributes of `tacho.*`, are done all the same.
///
/// # Errors
/// The bytes are malformed or nested deeper than [`DEPTH_MAX`], or a record can't be cut to [`RECORD_BYTES_MAX`].
pub fn apply(
    signal: Signal,
    request: Bytes,
    actions: Actions,
    key: Option<&HashKey>,
) -> Result<Cleaned, PrivacyError> {
    let mut walker = rewrite::Walker::new(actions, key);
    let rewritten = walker.request(signal, &request)?;
    Ok(Cleaned {
        bytes: rewritten.map_or(request, Bytes::from),
        counts: walker.counts,
        conversations: walker.conversations,
    })
}
