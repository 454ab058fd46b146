//! Takes texts, or the secrets in them, out of a request before anything of it is written, in all three signals.
//!
//! One walker (`rewrite`) goes over the wire form, driven by the tables of `table`. What a policy changes is rewritten;
//! everything else, unknown fields included, is copied as it came, in its order. What derivation needs from a text is taken
//! out first (`extract`), so that the same is derived whatever is kept.
//!
//! **Invariant:** a request that needs no change comes out as the very same bytes.

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

pub use crate::prepare::wire::DEPTH_MAX;

/// How many bytes a log record or span may have; the longest texts of a larger one are cut.
pub const RECORD_BYTES_MAX: usize = 4 << 20;

/// The target of span events that Codex itself considers free of texts.
pub const TRACE_SAFE: &str = "codex_otel.trace_safe";

/// How many values cleaning changed, by field and rule; never the values. Fields are in the order of
/// [`schemas::privacy::fields`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many values were removed, by field.
    pub dropped: [u64; FIELD_COUNT],
    /// How many values were replaced by a hash, by field.
    pub hashed: [u64; FIELD_COUNT],
    /// How many values were removed because a hash was wanted and there is no key, by field.
    pub unhashed: [u64; FIELD_COUNT],
    /// How many secrets were taken out of texts, by field and the id of the rule that found them.
    pub scrubbed: BTreeMap<(usize, &'static str), u64>,
    /// How many attributes were removed because only Tachograph may write their keys.
    pub stripped: u64,
    /// How many texts were cut because their record was over [`RECORD_BYTES_MAX`].
    pub truncated: u64,
}

/// A request that may be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleaned {
    /// The cleaned request; the very same bytes where nothing had to change.
    pub bytes: Bytes,
    /// What cleaning changed.
    pub counts: Counts,
    /// The conversation of each log record; empty for other signals.
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
        /// The record's size after removals, in bytes.
        bytes: usize,
    },
}

/// Cleans a request: applies each field's action, and checks the form of all messages on the way.
///
/// - *drop* leaves the size of a value: an attribute with a key of [`PRIVATE_KEYS`](schemas::event::PRIVATE_KEYS), however
///   deep, becomes an int `tacho.<key>.bytes`, and a body that holds text the attribute `tacho.body.bytes`. Texts of spans, and
///   span events of other targets than [`TRACE_SAFE`], leave nothing.
/// - *hash* replaces a value by its hash under `key`; without a key the value is dropped.
/// - *scrub* puts the name of a rule in the place of each secret that the rules of [`scrub`](crate::prepare::scrub) find.
/// - *keep* leaves a value in place.
///
/// Whatever the actions are, facts are taken out of texts, and attributes of `tacho.*` that came with the request are removed.
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
