//! The identity cache: what records say of who sent them, each distinct report interned once.
//!
//! Resource and sign-in come with every record, and hardly ever differ from the conversation's record before. Read and
//! compared once, a report is a number from then on; and a conversation whose last record reported that number has nothing
//! to learn.
//!
//! Nothing that is derived depends on what is cached: the cache is empty after a restart, and is emptied when it is full.

use super::parse::Sender;
use crate::indexed::IndexMap;
use schemas::event::Attr;
use schemas::otlp::scan::Attrs;

/// How many distinct reports are interned; with one more, all are forgotten.
pub const INTERNED_MAX: usize = 1024;
/// A report of more bytes is not interned: it is known until the end of its raw record.
pub const INTERNED_BYTES_MAX: usize = 1024;

/// The attributes of a resource that say who sent its records.
pub const RESOURCE_ATTRS: [Attr; 6] = [
    Attr::ServiceName,
    Attr::TeamId,
    Attr::Project,
    Attr::CostCentre,
    Attr::Department,
    Attr::Env,
];
/// The attributes of a record that say who sent it, and that most records repeat.
pub const SENDER_ATTRS: [Attr; 7] = [
    Attr::Model,
    Attr::Originator,
    Attr::AppVersion,
    Attr::AuthMode,
    Attr::TerminalType,
    Attr::UserEmail,
    Attr::UserAccountId,
];

/// Texts by attribute.
pub type Texts = Vec<(Attr, String)>;

/// The number of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportId {
    /// An interned report; the number is never given to another one.
    Interned(u64),
    /// A report that is known until the next raw record.
    Transient(usize),
}

/// The reports of one kind.
#[derive(Clone, Debug, Default)]
pub struct Interner {
    /// Interned reports, by their bytes.
    interned: IndexMap<Box<[u8]>, Texts>,
    /// The number of the first of the interned reports.
    first: u64,
    transient: Vec<Texts>,
}

impl Interner {
    /// Makes room; to be called between two raw records.
    pub fn begin(&mut self) {
        self.transient.clear();
        if self.interned.len() >= INTERNED_MAX {
            self.first += self.interned.len() as u64;
            self.interned.clear();
        }
    }

    /// The report of these bytes, if it is interned.
    pub fn find(&self, bytes: &[u8]) -> Option<ReportId> {
        self.interned
            .get_index_of(bytes)
            .map(|index| ReportId::Interned(self.first + index as u64))
    }

    /// Adds a report that is not interned yet: the texts of those of the attributes that are there. Without `bytes` it is
    /// not interned.
    pub fn add(&mut self, bytes: Option<&[u8]>, attrs: &Attrs<'_>, of: &[Attr]) -> ReportId {
        let texts = of
            .iter()
            .filter_map(|attr| Some((*attr, attrs.text(*attr)?.to_owned())))
            .collect();
        match bytes.filter(|bytes| bytes.len() <= INTERNED_BYTES_MAX && self.interned.len() < INTERNED_MAX) {
            Some(bytes) => {
                ReportId::Interned(self.first + self.interned.insert_full(bytes.into(), texts).0 as u64)
            }
            None => {
                self.transient.push(texts);
                ReportId::Transient(self.transient.len() - 1)
            }
        }
    }

    /// The texts of a report of this raw record.
    pub fn texts(&self, report: ReportId) -> &[(Attr, String)] {
        let found = match report {
            ReportId::Interned(number) => self
                .interned
                .get_index((number - self.first) as usize)
                .map(|(_, texts)| texts),
            ReportId::Transient(index) => self.transient.get(index),
        };
        found.map_or(&[], Vec::as_slice)
    }
}

/// The reports of one raw partition.
#[derive(Clone, Debug, Default)]
pub struct IdentityCache {
    pub resources: Interner,
    pub records: Interner,
    /// Reused for the bytes of each record's report.
    bytes: Vec<u8>,
}

impl IdentityCache {
    /// See [`Interner::begin`].
    pub fn begin(&mut self) {
        self.resources.begin();
        self.records.begin();
    }

    /// The texts that a record and its resource report.
    pub fn texts(&self, sender: Sender) -> impl Iterator<Item = &(Attr, String)> {
        self.resources
            .texts(sender.resource)
            .iter()
            .chain(self.records.texts(sender.record))
    }

    /// The report of a record.
    pub fn of_record(&mut self, attrs: &Attrs<'_>) -> ReportId {
        self.bytes.clear();
        for (number, attr) in (0..).zip(SENDER_ATTRS) {
            if let Some(text) = attrs.text(attr) {
                // The length of each text keeps two reports from having the same bytes.
                self.bytes.push(number);
                self.bytes.extend_from_slice(&text.len().to_le_bytes());
                self.bytes.extend_from_slice(text.as_bytes());
            }
        }
        self.records
            .find(&self.bytes)
            .unwrap_or_else(|| self.records.add(Some(&self.bytes), attrs, &SENDER_ATTRS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::otlp::scan::Value;

    fn of<'a>(attr: Attr, text: &'a str) -> Attrs<'a> {
        let mut attrs = Attrs::default();
        attrs.set(attr, Value::Str(text));
        attrs
    }

    #[test]
    fn one_number_for_one_report() {
        let mut cache = IdentityCache::default();
        let [a, b, c] = ["a", "b", "a"].map(|model| cache.of_record(&of(Attr::Model, model)));
        assert_eq!((a == b, a == c), (false, true));
        assert_ne!(
            a,
            cache.of_record(&of(Attr::Originator, "a")),
            "of another attribute"
        );
        assert_eq!(cache.records.texts(b), [(Attr::Model, "b".to_owned())]);
    }

    #[test]
    fn numbers_are_not_given_again_and_memory_is_bounded() {
        let mut cache = IdentityCache::default();
        let first = cache.of_record(&of(Attr::Model, "0"));
        for number in 1..=INTERNED_MAX {
            cache.begin();
            cache.of_record(&of(Attr::Model, &number.to_string()));
            assert!(cache.records.interned.len() <= INTERNED_MAX);
        }
        let again = cache.of_record(&of(Attr::Model, "0"));
        assert_ne!(again, first, "it was forgotten meanwhile");
        assert_eq!(cache.records.texts(again), [(Attr::Model, "0".to_owned())]);
        let long = "x".repeat(INTERNED_BYTES_MAX);
        let transient = cache.of_record(&of(Attr::Model, &long));
        assert_eq!(transient, ReportId::Transient(0));
        assert_eq!(cache.records.texts(transient), [(Attr::Model, long)]);
        cache.begin();
        assert!(cache.records.transient.is_empty());
    }
}
