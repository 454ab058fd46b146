//! Makes raw records of a request's body: decompresses, decodes, bounds, cleans and splits it.
//!
//! ```text
//! body ─decompress─► JSON ─decode─► protobuf ─bound─► ─clean─► ─route─► raw records
//! ```
//!
//! All steps are pure but for the permit, which each step that needs more bytes asks first.

use crate::control::policy::Rule;
use crate::prepare::admit::{Permit, Size, check_fields};
use crate::prepare::coding::{Coding, CodingError};
use crate::prepare::config::Config;
use crate::prepare::detect::{self, Detected};
use crate::prepare::error::PipelineError;
use crate::prepare::hash::HashKey;
use crate::prepare::json;
use crate::prepare::lanes::Lane;
use crate::prepare::partial;
use crate::prepare::privacy::{self, Cleaned, Counts, PrivacyError};
use crate::prepare::route;
use crate::sink::RawRecord;
use bytes::Bytes;
use schemas::id::DEFAULT_TENANT;
use schemas::privacy::Actions;
use schemas::signal::Signal;

/// A request whose protobuf is larger has the fields of its records counted, and is prepared outside of the threads that
/// serve connections, as everything is that must be decompressed or is JSON.
pub(super) const INLINE_BYTES_MAX: usize = 64 << 10;
/// Bytes that a JSON request may have decompressed, and again in protobuf: while it is decoded, both are in memory.
const JSON_BYTES_MAX: usize = 32 << 20;

/// How a request is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Binary protobuf.
    Protobuf,
    /// OTLP/JSON.
    Json,
}

/// A request as it came in, with what is needed to read it.
#[derive(Debug)]
pub struct Incoming {
    /// The request's signal; none where only its content tells.
    pub signal: Option<Signal>,
    /// How the decompressed body is encoded.
    pub format: Format,
    /// How the body is compressed.
    pub coding: Coding,
    /// The body's bytes.
    pub body: Bytes,
    /// Room for the bytes that the request holds: at first those of `body`, more after decompression.
    pub permit: Permit,
}

/// A request that may be written.
pub(crate) struct Prepared {
    pub signal: Signal,
    pub records: Vec<RawRecord>,
    pub counts: Counts,
    /// The size of the body after decompression.
    pub decoded_bytes: usize,
    /// What of the request is not among `records`.
    pub left_out: Option<LeftOut>,
    pub permit: Permit,
}

/// Log records, spans or data points of a request that is taken without them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeftOut {
    pub count: u64,
    /// Why the whole request could not be taken.
    pub error: PrivacyError,
}

/// What to do with a request of which some records can't be cleaned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadRecords {
    /// The request is taken without them.
    LeaveOut,
    /// The request is refused.
    Refuse,
}

/// Why a request is not prepared.
pub(super) enum NotPrepared {
    Refused(PipelineError),
    /// The request, decompressed, is larger than its lane. It comes back as it was.
    Outgrown(Incoming),
}

impl<E: Into<PipelineError>> From<E> for NotPrepared {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

/// Prepares a request on this thread, whatever its size.
///
/// # Errors
/// Why the request is refused; then nothing of it may be written.
pub(crate) fn prepare(
    config: &Config,
    rule: Rule,
    bad_records: BadRecords,
    incoming: Incoming,
) -> Result<Prepared, PipelineError> {
    match prepare_in(Lane::Large, config, rule, bad_records, incoming) {
        Ok(prepared) => Ok(prepared),
        Err(NotPrepared::Refused(error)) => Err(error),
        Err(NotPrepared::Outgrown(_)) => Err(PipelineError::Internal("no lane is wide enough")),
    }
}

/// Prepares a request of at most the lane's size.
pub(super) fn prepare_in(
    lane: Lane,
    config: &Config,
    rule: Rule,
    bad_records: BadRecords,
    incoming: Incoming,
) -> Result<Prepared, NotPrepared> {
    let Decoded {
        signal,
        format,
        bytes_max,
        body,
        mut permit,
    } = decode(lane, config, incoming)?;
    let decoded_bytes = body.len();
    let Some(signal) = signal_of(signal, format, &body)? else {
        return Ok(Prepared {
            signal: Signal::Logs,
            records: Vec::new(),
            counts: Counts::default(),
            decoded_bytes,
            left_out: None,
            permit,
        });
    };
    let request = match format {
        Format::Protobuf => body,
        Format::Json => {
            let request = json::to_protobuf_within(signal, &body, bytes_max)?;
            // The JSON is freed here. Until now both were there, for which the lane has room.
            drop(body);
            permit.shrink(request.len() as u64);
            let held = usize::try_from(permit.held()).unwrap_or(usize::MAX);
            permit.grow(request.len().saturating_sub(held))?;
            Bytes::from(request)
        }
    };
    let size = Size::of(&request)?;
    size.check()?;
    if request.len() > INLINE_BYTES_MAX {
        check_fields(&request)??;
    }
    let may_leave_out = bad_records == BadRecords::LeaveOut && size.records > 1;
    let (actions, key) = (rule.actions, config.hash_key.as_ref());
    let (cleaned, left_out) = clean(signal, request, actions, key, may_leave_out)?;
    let mut records = route::route_by(
        &config.routes,
        signal,
        DEFAULT_TENANT,
        &cleaned.bytes,
        &cleaned.conversations,
    )?;
    records.iter_mut().for_each(|record| record.policy = rule.epoch);
    Ok(Prepared {
        signal,
        records,
        counts: cleaned.counts,
        decoded_bytes,
        left_out,
        permit,
    })
}

/// A request after decompression.
struct Decoded {
    signal: Option<Signal>,
    format: Format,
    /// How many bytes a request of that format may have.
    bytes_max: usize,
    body: Bytes,
    permit: Permit,
}

fn decode(lane: Lane, config: &Config, incoming: Incoming) -> Result<Decoded, NotPrepared> {
    let Incoming {
        signal,
        format,
        coding,
        body,
        mut permit,
    } = incoming;
    let held = permit.held();
    let bytes_max = match format {
        Format::Protobuf => config.decoded_bytes_max,
        Format::Json => config.decoded_bytes_max.min(JSON_BYTES_MAX),
    };
    let limit = bytes_max.min(lane.bytes_max());
    // Cloning shares the bytes: a request that outgrows its lane is decompressed anew from them.
    let again = (coding != Coding::Identity).then(|| body.clone());
    match (coding.decode(body, limit, &mut permit), again) {
        (Ok(body), _) => Ok(Decoded {
            signal,
            format,
            bytes_max,
            body,
            permit,
        }),
        (Err(CodingError::TooLarge), Some(body)) if limit < bytes_max => {
            permit.shrink(held);
            Err(NotPrepared::Outgrown(Incoming {
                signal,
                format,
                coding,
                body,
                permit,
            }))
        }
        (Err(CodingError::TooLarge), _) => Err(PipelineError::DecodedTooLarge(bytes_max).into()),
        (Err(CodingError::Busy(busy)), _) => Err(busy.into()),
        (Err(CodingError::Malformed(coding)), _) => Err(PipelineError::Compressed(coding).into()),
    }
}

/// The request's signal; none where the request holds nothing, whichever signal it is of.
fn signal_of(named: Option<Signal>, format: Format, body: &[u8]) -> Result<Option<Signal>, PipelineError> {
    let detected = match (named, format) {
        (Some(signal), _) => return Ok(Some(signal)),
        (None, Format::Protobuf) => detect::protobuf(body)?,
        (None, Format::Json) => detect::json(body)?,
    };
    match detected {
        Detected::Signal(signal) => Ok(Some(signal)),
        Detected::Empty => Ok(None),
        Detected::Unclear => Err(PipelineError::UnclearSignal),
    }
}

/// The cleaned request, and what was left out of it because it can't be cleaned.
fn clean(
    signal: Signal,
    request: Bytes,
    actions: Actions,
    key: Option<&HashKey>,
    may_leave_out: bool,
) -> Result<(Cleaned, Option<LeftOut>), PipelineError> {
    let error = match privacy::apply(signal, request.clone(), actions, key) {
        Ok(cleaned) => return Ok((cleaned, None)),
        Err(error) => error,
    };
    if may_leave_out && let Ok(Some(sound)) = partial::sound(signal, &request, actions, key) {
        let left_out = LeftOut {
            count: sound.rejected,
            error,
        };
        return Ok((
            privacy::apply(signal, sound.request, actions, key)?,
            Some(left_out),
        ));
    }
    Err(error.into())
}
