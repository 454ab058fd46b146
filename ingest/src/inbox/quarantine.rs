//! Decides what goes to the quarantine of a record that can't become raw records.

use crate::prepare::route::VALUE_BYTES_MAX;
use crate::prepare::scrub::Scrubber;

/// The bytes that are kept of a record that can't be understood: what fits into a message.
///
/// A value that can't be read can't be cleaned field by field. So everything that looks like a secret is overwritten, whatever
/// the policy says. That is done before the value is cut, since half a secret would not be found.
pub(super) fn quarantined_bytes(value: &[u8]) -> Vec<u8> {
    let mut kept = Scrubber::shared().mask(value).bytes;
    kept.truncate(VALUE_BYTES_MAX);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_overwritten_and_lengths_stay() {
        let secret = format!("ghp_{}", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8");
        let kept = quarantined_bytes(format!("\u{fffd} token={secret} end").as_bytes());
        assert_eq!(
            kept,
            format!("\u{fffd} token={} end", "*".repeat(secret.len())).into_bytes()
        );
    }

    #[test]
    fn what_fits_is_kept_whole_and_more_is_cut() {
        assert_eq!(quarantined_bytes(b"\xff"), &b"\xff"[..]);
        assert_eq!(
            quarantined_bytes(&vec![7; VALUE_BYTES_MAX + 1]).len(),
            VALUE_BYTES_MAX
        );
    }
}
