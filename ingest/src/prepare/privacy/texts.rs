//! Tells of values on the wire whether and how much text they hold.

use super::{DEPTH_MAX, TRACE_SAFE};
use crate::prepare::wire::{Fields, WireError, any_text, key_and_value};

const SPAN_EVENT_ATTRIBUTES: u32 = 3;

/// The size of a value in bytes: the length of a text, and of anything else the length of its encoding.
pub(super) fn text_bytes(any: &[u8]) -> Result<u64, WireError> {
    Ok(any_text(any)?.map_or(any.len(), str::len) as u64)
}

/// Whether a value holds a string or bytes at any depth; keys of key-value lists do not count.
pub(super) fn holds_text(any: &[u8], depth: usize) -> Result<bool, WireError> {
    if depth > DEPTH_MAX {
        return Err(WireError::TooDeep);
    }
    for field in Fields::new(any) {
        let field = field?;
        let found = match field.number {
            1 | 7 => true,
            5 => list_holds_text(field.len_payload()?, depth + 1)?,
            6 => pairs_hold_text(field.len_payload()?, depth + 1)?,
            _ => false,
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

fn list_holds_text(list: &[u8], depth: usize) -> Result<bool, WireError> {
    for value in Fields::new(list) {
        let value = value?;
        if value.number == 1 && holds_text(value.len_payload()?, depth + 1)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn pairs_hold_text(list: &[u8], depth: usize) -> Result<bool, WireError> {
    for pair in Fields::new(list) {
        let pair = pair?;
        if pair.number != 1 {
            continue;
        }
        for field in Fields::new(pair.len_payload()?) {
            let field = field?;
            if field.number == 2 && holds_text(field.len_payload()?, depth + 2)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether all targets that a span event names are [`TRACE_SAFE`] or below it, and it names one.
pub(super) fn is_trace_safe(event: &[u8]) -> Result<bool, WireError> {
    let mut safe = false;
    for field in Fields::new(event) {
        let field = field?;
        if field.number != SPAN_EVENT_ATTRIBUTES {
            continue;
        }
        let (key, value) = key_and_value(field.len_payload()?)?;
        if key == b"target" {
            safe = match value
                .map(any_text)
                .transpose()?
                .flatten()
                .and_then(|target| target.strip_prefix(TRACE_SAFE))
            {
                Some(rest) => rest.is_empty() || rest.starts_with(['.', ':']),
                None => false,
            };
            if !safe {
                return Ok(false);
            }
        }
    }
    Ok(safe)
}
