//! Finds what of a request can be taken when not all of it can.

use crate::prepare::hash::HashKey;
use crate::prepare::memory::capacity;
use crate::prepare::privacy::{self, PrivacyError};
use crate::prepare::wire::{Fields, Patch, WireError, len_field_size, put_head, put_len};
use bytes::Bytes;
use schemas::privacy::Actions;
use schemas::signal::Signal;

/// A request without the records that can't be cleaned.
pub(crate) struct Sound {
    pub request: Bytes,
    /// How many log records, spans or data points were left out.
    pub rejected: u64,
}

/// The request without each record that can't be cleaned by itself; none where that leaves no record, or none was bad.
///
/// # Errors
/// The messages that hold the records are malformed.
pub(crate) fn sound(
    signal: Signal,
    request: &Bytes,
    actions: Actions,
    key: Option<&HashKey>,
) -> Result<Option<Sound>, WireError> {
    let (mut rejected, mut taken) = (0, 0);
    let mut outer = Patch::new(request);
    for resource in Fields::new(request) {
        let resource = resource?;
        if resource.number != 1 {
            outer.keep(&resource);
            continue;
        }
        let mut middle = Patch::new(resource.len_payload()?);
        for scope in Fields::new(resource.len_payload()?) {
            let scope = scope?;
            if scope.number != 2 {
                middle.keep(&scope);
                continue;
            }
            let mut inner = Patch::new(scope.len_payload()?);
            for record in Fields::new(scope.len_payload()?) {
                let record = record?;
                if record.number != 2 || is_sound(signal, record.len_payload()?, actions, key) {
                    taken += usize::from(record.number == 2);
                    inner.keep(&record);
                } else {
                    rejected += items(signal, record.payload);
                    inner.remove(&record);
                }
            }
            match inner.finish() {
                Some(scope_without) => middle.replace(&scope, &scope_without),
                None => middle.keep(&scope),
            }
        }
        match middle.finish() {
            Some(resource_without) => outer.replace(&resource, &resource_without),
            None => outer.keep(&resource),
        }
    }
    let changed = outer.finish().filter(|_| taken > 0);
    Ok(changed.map(|request| Sound {
        request: Bytes::from(request),
        rejected,
    }))
}

/// Whether a request with that record alone can be cleaned.
fn is_sound(signal: Signal, record: &[u8], actions: Actions, key: Option<&HashKey>) -> bool {
    let scope = len_field_size(2, record.len());
    let resource = len_field_size(2, scope);
    // The record may be as large as the whole request, so it is copied once, into room for all of it.
    let mut request = Vec::with_capacity(capacity(len_field_size(1, resource)));
    for (number, length) in [(1, resource), (2, scope)] {
        put_head(&mut request, number, length);
    }
    put_len(&mut request, 2, record);
    let cleaned: Result<_, PrivacyError> = privacy::apply(signal, Bytes::from(request), actions, key);
    cleaned.is_ok()
}

/// How many items a record counts for: a metric counts for its data points, as far as they can be read.
fn items(signal: Signal, record: &[u8]) -> u64 {
    match signal {
        Signal::Logs | Signal::Traces => 1,
        Signal::Metrics => data_points(record).max(1),
    }
}

/// How many data points of a metric can be read.
fn data_points(metric: &[u8]) -> u64 {
    let data = Fields::new(metric)
        .flatten()
        .filter(|field| matches!(field.number, 5 | 7 | 9 | 10 | 11));
    let points = data.flat_map(|data| {
        Fields::new(data.payload)
            .flatten()
            .filter(|point| point.number == 1)
    });
    points.count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare::wire::text_attribute;
    use schemas::privacy::Action;

    const DROP: Actions = Actions::all(Action::Drop);

    fn request(records: &[&[u8]]) -> Bytes {
        let (mut scope, mut resource, mut request) = (Vec::new(), Vec::new(), Vec::new());
        put_len(&mut scope, 1, b"\x0a\x01s");
        records.iter().for_each(|record| put_len(&mut scope, 2, record));
        put_len(&mut resource, 2, &scope);
        put_len(&mut request, 1, &resource);
        request.into()
    }

    #[test]
    fn bad_records_go_and_all_else_stays() {
        let mut good = Vec::new();
        put_len(&mut good, 6, &text_attribute("k", "v"));
        let bad = &b"\x1a\x01\xff"[..];
        let sound = |request: &Bytes| sound(Signal::Logs, request, DROP, None).unwrap();
        let rest = sound(&request(&[&good, bad, &good, bad])).unwrap();
        assert_eq!((rest.request, rest.rejected), (request(&[&good, &good]), 2));
        assert!(sound(&request(&[bad, bad])).is_none());
        assert!(sound(&request(&[&good])).is_none());
    }

    #[test]
    fn a_metric_counts_for_its_points() {
        // A gauge with two points, whose name is not UTF-8.
        let bad = &b"\x0a\x01\xff\x2a\x04\x0a\x00\x0a\x00"[..];
        let rest = sound(Signal::Metrics, &request(&[b"\x0a\x01m", bad]), DROP, None)
            .unwrap()
            .unwrap();
        assert_eq!((rest.request, rest.rejected), (request(&[b"\x0a\x01m"]), 2));
    }
}
