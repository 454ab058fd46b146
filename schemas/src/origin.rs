//! Where a raw record came from, if a foreign writer put it into an inbox topic first, or ingest into its spool.

use std::fmt;

/// The place in an inbox of what became a raw record: the value of header [`crate::record::HEADER_ORIGIN`] there.
///
/// Written as `topic/partition@offset#part stamped`, without the prefix of topics. Of one source the pairs of offset and
/// part rise in the order of the inbox; one inbox record becomes a part for each conversation in it, or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// `topic/partition`, or `spool/id` (then `offset` is the number there, and the stamp is 0), at most [`SOURCE_BYTES_MAX`] bytes.
    pub source: &'a str,
    /// The inbox record's own offset.
    pub offset: i64,
    /// Which of the raw records that it became: rises, from 0 or above, with holes.
    pub part: u32,
    /// When the brokers took the inbox record in, ms; 0 where they did not stamp it.
    pub stamped_ms: i64,
}

/// Longest source that is read.
pub const SOURCE_BYTES_MAX: usize = 64;

impl<'a> Origin<'a> {
    /// Reads a header's value; `None` where it is of another form.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (place, stamped) = text.split_once(' ')?;
        let (source, at) = place.split_once('@')?;
        let (offset, part) = at.split_once('#')?;
        let is_source =
            !source.is_empty() && source.len() <= SOURCE_BYTES_MAX && !source.chars().any(char::is_control);
        let origin = Self {
            source,
            offset: offset.parse().ok()?,
            part: part.parse().ok()?,
            stamped_ms: stamped.parse().ok()?,
        };
        is_source.then_some(origin)
    }
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            offset,
            part,
            stamped_ms,
        } = self;
        write!(f, "{source}@{offset}#{part} {stamped_ms}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let origin = Origin {
            source: "codex.inbox.logs.v1/3",
            offset: 17,
            part: 2,
            stamped_ms: 1_795_348_800_000,
        };
        assert_eq!(origin.to_string(), "codex.inbox.logs.v1/3@17#2 1795348800000");
        assert_eq!(Origin::parse(&origin.to_string()), Some(origin));
    }

    #[test]
    fn other_texts_are_no_origins() {
        let long = format!("{}@1#0 1", "x".repeat(SOURCE_BYTES_MAX + 1));
        for text in [
            "",
            "a/1@2",
            "a/1@2#3",
            "@2#3 4",
            "a/1@b#3 4",
            "a/1@2#-3 4",
            "a/1@2#3 4 5",
            "a\n@2#3 4",
            long.as_str(),
        ] {
            assert_eq!(Origin::parse(text), None, "{text:?}");
        }
    }
}
