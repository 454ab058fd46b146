//! Tells from a request's content which signal it is of, for bodies that were posted to `/`.
//!
//! A client that is given `http://host:4318` and takes it literally posts all three signals to that path.

use crate::prepare::admit;
use crate::prepare::wire::{Field, Fields, Wire, WireError};
use schemas::otlp::json::{self, JsonError};
use schemas::signal::Signal;

/// How many records are looked at before the signal counts as unclear.
const RECORDS_MAX: usize = 1000;
/// The highest field number that any record has today; higher ones may come with later versions, and tell nothing.
const KNOWN_MAX: u32 = 16;

/// What a request's content tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detected {
    /// The request is of that signal.
    Signal(Signal),
    /// The request holds no records.
    Empty,
    /// The request could be of several signals, or is of none.
    Unclear,
}

/// Detects the signal of a protobuf request.
///
/// # Errors
/// The bytes are no protobuf, as far as they are looked at.
pub(crate) fn protobuf(request: &[u8]) -> Result<Detected, WireError> {
    let (mut fits, mut any) = ([true; 3], false);
    for record in admit::records(request).take(RECORDS_MAX) {
        any = true;
        for field in Fields::new(record?) {
            let field = field?;
            for signal in Signal::ALL {
                fits[signal as usize] &= field.number > KNOWN_MAX || fits_into(signal, &field);
            }
        }
        if fits.iter().filter(|fits| **fits).count() < 2 {
            break;
        }
    }
    Ok(if any { only(fits) } else { Detected::Empty })
}

/// Detects the signal of a JSON request by the names of its top-level members.
///
/// # Errors
/// The body is no JSON object.
pub(crate) fn json(body: &[u8]) -> Result<Detected, JsonError> {
    let mut fits = [false; 3];
    for request in json::requests(body)? {
        let signal = match request {
            json::Request::Logs => Signal::Logs,
            json::Request::Traces => Signal::Traces,
            json::Request::Metrics => Signal::Metrics,
        };
        fits[signal as usize] = true;
    }
    Ok(if fits == [false; 3] {
        Detected::Empty
    } else {
        only(fits)
    })
}

/// The one signal that fits.
fn only(fits: [bool; 3]) -> Detected {
    let mut fitting = Signal::ALL.into_iter().filter(|signal| fits[*signal as usize]);
    match (fitting.next(), fitting.next()) {
        (Some(signal), None) => Detected::Signal(signal),
        _ => Detected::Unclear,
    }
}

/// Whether a record of that signal can have a field of that number and wire type.
///
/// Source: opentelemetry-proto `LogRecord`, `Span`, `Metric`.
fn fits_into(signal: Signal, field: &Field<'_>) -> bool {
    let id =
        |bytes: usize| field.wire == Wire::Len && (field.payload.is_empty() || field.payload.len() == bytes);
    match signal {
        Signal::Logs => match field.number {
            1 | 11 => field.wire == Wire::Fixed64,
            2 | 7 => field.wire == Wire::Varint,
            8 => field.wire == Wire::Fixed32,
            9 => id(16),
            10 => id(8),
            3 | 5 | 6 | 12 => field.wire == Wire::Len,
            _ => false,
        },
        Signal::Traces => match field.number {
            1 => id(16),
            2 | 4 => id(8),
            7 | 8 => field.wire == Wire::Fixed64,
            6 | 10 | 12 | 14 => field.wire == Wire::Varint,
            16 => field.wire == Wire::Fixed32,
            _ => field.wire == Wire::Len,
        },
        Signal::Metrics => matches!(field.number, 1 | 2 | 3 | 5 | 7 | 9..=12) && field.wire == Wire::Len,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare::wire::put_len;

    fn request(record: &[u8]) -> Vec<u8> {
        let (mut scope, mut resource, mut request) = (Vec::new(), Vec::new(), Vec::new());
        put_len(&mut scope, 2, record);
        put_len(&mut resource, 2, &scope);
        put_len(&mut request, 1, &resource);
        request
    }

    #[test]
    fn what_tells_nothing_is_unclear() {
        assert_eq!(protobuf(b""), Ok(Detected::Empty));
        assert_eq!(protobuf(&request(b"")), Ok(Detected::Unclear));
        // Field 3 holds a text in all three: severity, trace state, unit.
        assert_eq!(protobuf(&request(b"\x1a\x01x")), Ok(Detected::Unclear));
        // No record has a field 4 of fixed 32 bits.
        assert_eq!(protobuf(&request(b"\x25\x00\x00\x00\x00")), Ok(Detected::Unclear));
        assert_eq!(protobuf(&request(b"\x0a")), Err(WireError::Truncated));
        assert_eq!(json(b"{\"more\": 1}"), Ok(Detected::Empty));
        assert_eq!(
            json(b"{\"resourceLogs\": [], \"resourceSpans\": []}"),
            Ok(Detected::Unclear)
        );
    }

    #[test]
    fn one_telling_field_is_enough() {
        for (record, signal) in [
            (&b"\x59\0\0\0\0\0\0\0\0"[..], Signal::Logs),
            (b"\x32\x00", Signal::Logs),
            (b"\x1a\x01x\x22\x00", Signal::Traces),
            (b"\x41\0\0\0\0\0\0\0\0", Signal::Traces),
            (b"\x0a\x04name\x2a\x00", Signal::Metrics),
        ] {
            assert_eq!(
                protobuf(&request(record)),
                Ok(Detected::Signal(signal)),
                "{record:?}"
            );
        }
    }
}
