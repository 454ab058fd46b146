//! Which signal a request is of, by its content: for bodies that were posted to `/`.
//!
//! A client that is given `http://host:4318` and takes it literally posts all three signals there.

use crate::prepare::admit;
use crate::prepare::wire::{Field, Fields, Wire, WireError};
use schemas::otlp::json::{self, JsonError};
use schemas::signal::Signal;

/// That many records are looked at, if the first do not tell.
const RECORDS_MAX: usize = 1000;
/// Fields of higher numbers are of the future, and tell nothing.
const KNOWN_MAX: u32 = 16;

/// What the content says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It is of that signal.
    Signal(Signal),
    /// It holds nothing.
    Empty,
    /// It could be of more than one, or is of none.
    Unclear,
}

/// The signal of a protobuf request.
pub(crate) fn protobuf(request: &[u8]) -> Result<Told, WireError> {
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
    Ok(if any { only(fits) } else { Told::Empty })
}

/// The signal of a JSON request.
pub(crate) fn json(body: &[u8]) -> Result<Told, JsonError> {
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
        Told::Empty
    } else {
        only(fits)
    })
}

fn only(fits: [bool; 3]) -> Told {
    let mut fitting = Signal::ALL.into_iter().filter(|signal| fits[*signal as usize]);
    match (fitting.next(), fitting.next()) {
        (Some(signal), None) => Told::Signal(signal),
        _ => Told::Unclear,
    }
}

/// Whether a record of that signal can have such a field.
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
        assert_eq!(protobuf(b""), Ok(Told::Empty));
        assert_eq!(protobuf(&request(b"")), Ok(Told::Unclear));
        // A text in field 3: severity, trace state or unit.
        assert_eq!(protobuf(&request(b"\x1a\x01x")), Ok(Told::Unclear));
        // A field that no record has.
        assert_eq!(protobuf(&request(b"\x25\x00\x00\x00\x00")), Ok(Told::Unclear));
        assert_eq!(protobuf(&request(b"\x0a")), Err(WireError::Truncated));
        assert_eq!(json(b"{\"more\": 1}"), Ok(Told::Empty));
        assert_eq!(
            json(b"{\"resourceLogs\": [], \"resourceSpans\": []}"),
            Ok(Told::Unclear)
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
            assert_eq!(protobuf(&request(record)), Ok(Told::Signal(signal)), "{record:?}");
        }
    }
}
