//! Origins: where a raw record was before, if a foreign writer put it into an inbox topic first, or ingest
//! into its spool.

use std::fmt;

/// The place in an inbox or a spool of what became a raw record: the value of the raw record's header
/// [`HEADER_ORIGIN`](crate::record::HEADER_ORIGIN).
///
/// Written as `topic/partition@offset#part stamped`, the topic without its prefix. The pairs of offset and
/// part of one source rise in the order of the inbox. An inbox record becomes one part or more for each
/// conversation in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// `topic/partition` of the inbox, or `spool/id`, for which `offset` is the record's number in the spool
    /// and the stamp is
    /// 0. At most [`SOURCE_BYTES_MAX`] bytes.
    pub source: &'a str,
    /// Offset of the inbox record.
    pub offset: i64,
    /// Which part of the inbox record the raw record is: rises from 0 or above, with holes.
    pub part: u32,
    /// Append time of the inbox record, ms since the Unix epoch; 0 where the brokers did not stamp it.
    pub stamped_ms: i64,
}

/// The most bytes of [`Origin::source`]; an origin with a longer one is not read.
pub const SOURCE_BYTES_MAX: usize = 64;

impl<'a> Origin<'a> {
    /// Reads the value of a header; `None` if it has another form.
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
