//! The identity cache: interns what resources and records report of who sent them.
//!
//! Every record repeats its resource and who is signed in, and these hardly ever differ from those of the
//! conversation's record before. A distinct report is read once and gets a number; a conversation whose last
//! record had the same numbers has nothing to learn from the next one.
//!
//! **Invariant:** nothing that is derived depends on what is cached. The cache is empty after a restart, and
//! is emptied when it is full.

use super::parse::Sender;
use crate::indexed::IndexMap;
use schemas::event::Attr;
use schemas::otlp::scan::Attrs;

/// How many distinct reports of one kind are interned; when there are as many, all are dropped before the
/// next raw record.
pub const INTERNED_MAX: usize = 1024;
/// The most bytes of a report that is interned; a larger one is kept until the end of its raw record.
pub const INTERNED_BYTES_MAX: usize = 1024;

/// A text that a resource or a record reports of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    ServiceName,
    Team,
    Project,
    CostCentre,
    Department,
    Env,
    Model,
    Originator,
    AppVersion,
    AuthMode,
    TerminalType,
    UserEmail,
    UserAccountId,
}

/// The texts that a resource reports, by attribute.
pub const OF_RESOURCE: [(Attr, Reported); 6] = [
    (Attr::ServiceName, Reported::ServiceName),
    (Attr::TeamId, Reported::Team),
    (Attr::Project, Reported::Project),
    (Attr::CostCentre, Reported::CostCentre),
    (Attr::Department, Reported::Department),
    (Attr::Env, Reported::Env),
];
/// The texts that a record itself reports, by attribute; most records repeat them.
pub const OF_RECORD: [(Attr, Reported); 7] = [
    (Attr::Model, Reported::Model),
    (Attr::Originator, Reported::Originator),
    (Attr::AppVersion, Reported::AppVersion),
    (Attr::AuthMode, Reported::AuthMode),
    (Attr::TerminalType, Reported::TerminalType),
    (Attr::UserEmail, Reported::UserEmail),
    (Attr::UserAccountId, Reported::UserAccountId),
];

/// The texts of a report that are there.
pub type Texts = Vec<(Reported, String)>;

/// The identifier of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportId {
    /// The number of an interned report, which no other report gets.
    Interned(u64),
    /// The index of a report that is kept until the next raw record.
    Transient(usize),
}

/// The reports of one kind, resources or records.
#[derive(Clone, Debug, Default)]
pub struct Interner {
    /// The texts of interned reports, by the reports' bytes.
    interned: IndexMap<Box<[u8]>, Texts>,
    /// The number of the first report in `interned`.
    first: u64,
    transient: Vec<Texts>,
}

impl Interner {
    /// Drops the reports of the last raw record that are not interned, and all reports if their number is at
    /// its limit. Must be called before each raw record.
    pub fn begin(&mut self) {
        self.transient.clear();
        if self.interned.len() >= INTERNED_MAX {
            self.first += self.interned.len() as u64;
            self.interned.clear();
        }
    }

    /// The interned report with these bytes; `None` if there is none.
    pub fn find(&self, bytes: &[u8]) -> Option<ReportId> {
        self.interned
            .get_index_of(bytes)
            .map(|index| ReportId::Interned(self.first + index as u64))
    }

    /// Adds a report that is not interned yet, with the texts of the attributes in `of` that are there.
    /// Without `bytes` the report is not interned.
    pub fn add(&mut self, bytes: Option<&[u8]>, attrs: &Attrs<'_>, of: &[(Attr, Reported)]) -> ReportId {
        let texts = of
            .iter()
            .filter_map(|(attr, reported)| Some((*reported, attrs.text(*attr)?.to_owned())))
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

    /// The texts of a report that was found or added for the current raw record.
    pub fn texts(&self, report: ReportId) -> &[(Reported, String)] {
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

/// The identity cache of one raw partition.
#[derive(Clone, Debug, Default)]
pub struct IdentityCache {
    pub resources: Interner,
    pub records: Interner,
    /// The buffer in which the bytes of each record's report are written.
    bytes: Vec<u8>,
}

impl IdentityCache {
    /// Makes room, as by [`Interner::begin`]. Must be called before each raw record.
    pub fn begin(&mut self) {
        self.resources.begin();
        self.records.begin();
    }

    /// The texts that a record and its resource report.
    pub fn texts(&self, sender: Sender) -> impl Iterator<Item = &(Reported, String)> {
        self.resources
            .texts(sender.resource)
            .iter()
            .chain(self.records.texts(sender.record))
    }

    /// The report of a record, interned if it is new.
    pub fn of_record(&mut self, attrs: &Attrs<'_>) -> ReportId {
        self.bytes.clear();
        for (number, (attr, _)) in (0..).zip(OF_RECORD) {
            if let Some(text) = attrs.text(attr) {
                // With the length of each text, no two reports have the same bytes.
                self.bytes.push(number);
                self.bytes.extend_from_slice(&text.len().to_le_bytes());
                self.bytes.extend_from_slice(text.as_bytes());
            }
        }
        self.records
            .find(&self.bytes)
            .unwrap_or_else(|| self.records.add(Some(&self.bytes), attrs, &OF_RECORD))
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
            "the same text of another attribute is another report"
        );
        assert_eq!(cache.records.texts(b), [(Reported::Model, "b".to_owned())]);
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
        assert_ne!(again, first, "a report that was dropped got its number again");
        assert_eq!(cache.records.texts(again), [(Reported::Model, "0".to_owned())]);
        let long = "x".repeat(INTERNED_BYTES_MAX);
        let transient = cache.of_record(&of(Attr::Model, &long));
        assert_eq!(transient, ReportId::Transient(0));
        assert_eq!(cache.records.texts(transient), [(Reported::Model, long)]);
        cache.begin();
        assert!(cache.records.transient.is_empty());
    }
}
