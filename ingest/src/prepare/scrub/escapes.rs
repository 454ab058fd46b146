//! Looks at a text as JSON and shells mean it: its strings, and what it is without the backslashes of escapes.

use super::TEXT_BYTES_MIN;

/// A text without the backslashes of escapes.
pub(super) struct Unescaped {
    pub bytes: Vec<u8>,
    /// The index of each byte in the text with backslashes.
    pub at: Vec<u32>,
}

/// Where the strings of a text that may be JSON begin and end: after a quote, and before the next quote without a backslash.
pub(super) fn json_strings(text: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text.get(at..)?.iter().position(|byte| *byte == b'"')? + 1;
        let mut end = start;
        while *text.get(end)? != b'"' {
            end += if text[end] == b'\\' { 2 } else { 1 };
        }
        at = end + 1;
        Some((start, end))
    })
    .filter(|(start, end)| end - start >= TEXT_BYTES_MIN)
}

/// The text without the backslashes before quotes, slashes and letters that stand for white space; none where it has no such
/// backslash.
pub(super) fn unescaped(text: &[u8]) -> Option<Unescaped> {
    let stands_for = |byte: u8| match byte {
        b'n' | b'r' => Some(b'\n'),
        b't' => Some(b'\t'),
        b'"' | b'\'' | b'/' => Some(byte),
        _ => None,
    };
    let mut out: Option<Unescaped> = None;
    let mut at = 0;
    while let Some(next) = text[at..]
        .iter()
        .position(|byte| *byte == b'\\')
        .map(|next| at + next)
    {
        let run = text[next..].iter().take_while(|byte| **byte == b'\\').count();
        let meant = text.get(next + run).and_then(|byte| stands_for(*byte));
        if let (Some(meant), Ok(_)) = (meant, u32::try_from(text.len())) {
            let out = out.get_or_insert_with(|| Unescaped {
                bytes: Vec::with_capacity(text.len()),
                at: Vec::with_capacity(text.len()),
            });
            let copied = out.at.last().map_or(0, |last| *last as usize + 1);
            out.bytes.extend_from_slice(&text[copied..next]);
            out.at.extend(copied as u32..next as u32);
            out.bytes.push(meant);
            out.at.push((next + run) as u32);
        }
        at = next + run + 1;
        if at >= text.len() {
            break;
        }
    }
    let mut out = out?;
    let copied = out.at.last().map_or(0, |last| *last as usize + 1);
    out.bytes.extend_from_slice(&text[copied..]);
    out.at.extend(copied as u32..text.len() as u32);
    Some(out)
}
