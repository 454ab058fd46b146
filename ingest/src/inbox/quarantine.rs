//! Decides what goes to the quarantine of an inbox record that can't become raw records.
//!
//! The record goes to `codex.quarantine.v1` with its reason (which is its key, too), origin and tenant in
//! headers, through the same producer as raw records, so that it is durable before the position goes on.
//! After a crash it may be there twice, and both name the same origin. Secrets that the scrubber finds in its
//! bytes are overwritten, and large values are cut.
//!
//! If the brokers turn a large record down for its size, it is quarantined at the next try; parts of it that
//! were durable by then stay.
//!
//! The processor quarantines raw records (`undecodable`, or `misrouted`: under the key of another
//! conversation) as effects of the fold, in the transaction of the commit, and so once.

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
