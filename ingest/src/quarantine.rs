//! What goes to the quarantine of what can't be understood.

use crate::route::VALUE_BYTES_MAX;
use std::borrow::Cow;

/// The bytes that are kept of a record that can't be understood: what fits into a message.
///
/// Nothing that can't be read can be cleaned field by field, so all that there is to be said about secrets in it is said
/// here, over the whole value and before it is cut: what is left of half a secret is not found.
#[must_use]
pub fn quarantined_bytes(value: &[u8]) -> Cow<'_, [u8]> {
    Cow::Borrowed(value.get(..VALUE_BYTES_MAX).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_kept_whole_and_more_is_cut() {
        assert_eq!(quarantined_bytes(b"\xff"), &b"\xff"[..]);
        assert_eq!(quarantined_bytes(&vec![7; VALUE_BYTES_MAX + 1]).len(), VALUE_BYTES_MAX);
    }
}
