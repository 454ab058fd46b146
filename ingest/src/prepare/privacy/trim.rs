//! Cuts the longest texts of a record that is over the limit, so that the record is kept.

use super::{PrivacyError, RECORD_BYTES_MAX};
use crate::prepare::wire::{
    Field, Fields, Patch, WireError, any_text, key_and_value, len_field_size, put_len,
};

/// How many bytes a cut text may have beside what is kept of it: the marker, and lengths that may take more bytes.
const MARKER_BYTES: usize = 64;

/// The record with its longest texts cut, and how many texts were cut; none if the record is small enough as it is.
///
/// `attributes` and `body` are the numbers of the fields whose texts may be cut: strings that are the value of an attribute or
/// the body, and none within lists.
pub(super) fn fit(
    record: &[u8],
    attributes: u32,
    body: Option<u32>,
) -> Result<Option<(Vec<u8>, u64)>, PrivacyError> {
    if record.len() <= RECORD_BYTES_MAX {
        return Ok(None);
    }
    let mut lengths = Vec::new();
    for field in Fields::new(record) {
        if let Some(text) = text_of(&field?, attributes, body)? {
            lengths.push(text.len());
        }
    }
    let limit = level(record.len(), &lengths).ok_or(PrivacyError::RecordTooLarge { bytes: record.len() })?;
    let (mut patch, mut count) = (Patch::new(record), 0);
    for field in Fields::new(record) {
        let field = field?;
        match text_of(&field, attributes, body)? {
            Some(text) if text.len() > limit + MARKER_BYTES => {
                let mut any = Vec::with_capacity(limit + MARKER_BYTES);
                put_len(&mut any, 1, cut(text, limit).as_bytes());
                patch.replace(&field, &with_value(&field, attributes, any)?);
                count += 1;
            }
            _ => patch.keep(&field),
        }
    }
    Ok(patch.finish().map(|cut| (cut, count)))
}

/// The text of a field, if it is one that may be cut.
fn text_of<'a>(field: &Field<'a>, attributes: u32, body: Option<u32>) -> Result<Option<&'a str>, WireError> {
    let any = if field.number == attributes {
        key_and_value(field.len_payload()?)?.1
    } else if Some(field.number) == body {
        Some(field.len_payload()?)
    } else {
        None
    };
    any.map_or(Ok(None), any_text)
}

/// The payload of the field, with `any` as its value.
fn with_value(field: &Field<'_>, attributes: u32, any: Vec<u8>) -> Result<Vec<u8>, WireError> {
    if field.number != attributes {
        return Ok(any);
    }
    let mut attribute = Vec::with_capacity(any.len() + len_field_size(1, MARKER_BYTES));
    put_len(&mut attribute, 1, key_and_value(field.len_payload()?)?.0);
    put_len(&mut attribute, 2, &any);
    Ok(attribute)
}

/// The largest length to which texts can be cut so that a record of `size` bytes fits; none if it would not fit without any
/// text.
fn level(size: usize, lengths: &[usize]) -> Option<usize> {
    let saved = |limit: usize| {
        lengths
            .iter()
            .map(|length| length.saturating_sub(limit + MARKER_BYTES))
            .sum::<usize>()
    };
    let excess = size.saturating_sub(RECORD_BYTES_MAX);
    if saved(0) < excess {
        return None;
    }
    let (mut fits, mut too_long) = (0, RECORD_BYTES_MAX);
    while too_long - fits > 1 {
        let middle = usize::midpoint(fits, too_long);
        if saved(middle) >= excess {
            fits = middle
        } else {
            too_long = middle
        }
    }
    Some(fits)
}

fn cut(text: &str, limit: usize) -> String {
    let kept = text.floor_char_boundary(limit);
    format!("{}...[truncated {} bytes]", &text[..kept], text.len() - kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare::wire::text_attribute;

    fn record(texts: &[&str]) -> Vec<u8> {
        let mut record = Vec::new();
        for text in texts {
            put_len(&mut record, 6, &text_attribute("key", text));
        }
        record
    }

    #[test]
    fn only_the_longest_text_is_cut_and_says_by_how_much() {
        let (long, short) = ("é".repeat(3 << 20), "x".repeat(1 << 20));
        let before = record(&[&short, &long]);
        let (after, count) = fit(&before, 6, None).unwrap().unwrap();
        assert_eq!(count, 1);
        assert!(
            after.len() <= RECORD_BYTES_MAX && after.len() > RECORD_BYTES_MAX - 256,
            "{}",
            after.len()
        );
        let fields: Vec<_> = Fields::new(&after).map(Result::unwrap).collect();
        assert_eq!(text_of(&fields[0], 6, None).unwrap(), Some(short.as_str()));
        let text = text_of(&fields[1], 6, None).unwrap().unwrap();
        let (kept, marker) = text.split_once("...[truncated ").unwrap();
        assert_eq!(marker, format!("{} bytes]", long.len() - kept.len()));
    }

    #[test]
    fn many_texts_are_cut_to_one_length() {
        let text = "y".repeat(2 << 20);
        let (after, count) = fit(&record(&[&text, &text, &text]), 6, None).unwrap().unwrap();
        assert_eq!(count, 3);
        assert!(after.len() <= RECORD_BYTES_MAX);
    }

    #[test]
    fn what_fits_is_left_and_what_cannot_fit_is_refused() {
        assert_eq!(fit(&record(&["z"]), 6, None).unwrap(), None);
        let mut bytes = Vec::new();
        put_len(&mut bytes, 99, &vec![0; RECORD_BYTES_MAX]);
        assert!(matches!(
            fit(&bytes, 6, None),
            Err(PrivacyError::RecordTooLarge { .. })
        ));
    }
}
