//! What records say of who sent them, each distinct saying kept once.
//!
//! Resource and sign-in are sent with every record, and hardly ever differ from the conversation's record before. Read and
//! compared once, they are a number from then on; and a conversation that was told that number last has nothing to learn.
//!
//! Nothing that is derived depends on what is kept here: it is forgotten at a restart, and when there is too much of it.

use super::parse::Said;
use crate::indexed::IndexMap;
use schemas::event::Attr;
use schemas::otlp::scan::Attrs;

/// How many distinct sayings are kept; with one more, all are forgotten.
pub const TOLD_MAX: usize = 1024;
/// A longer one is not kept beyond its raw record, bytes.
pub const TOLD_BYTES_MAX: usize = 1024;

/// The attributes of a resource that are learnt.
pub const OF_RESOURCE: [Attr; 6] = [
    Attr::ServiceName,
    Attr::TeamId,
    Attr::Project,
    Attr::CostCentre,
    Attr::Department,
    Attr::Env,
];
/// The attributes that most records repeat, and that are learnt.
pub const OF_RECORD: [Attr; 7] = [
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

/// The number of a saying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saying {
    /// Kept; never given to another one.
    Kept(u64),
    /// Known until the next raw record.
    Passing(usize),
}

/// The sayings of one kind.
#[derive(Clone, Debug, Default)]
pub struct Sayings {
    /// By their bytes.
    kept: IndexMap<Box<[u8]>, Texts>,
    /// The number of the first of them.
    first: u64,
    passing: Vec<Texts>,
}

impl Sayings {
    /// To be called between two raw records: makes room.
    pub fn begin(&mut self) {
        self.passing.clear();
        if self.kept.len() >= TOLD_MAX {
            self.first += self.kept.len() as u64;
            self.kept.clear();
        }
    }

    /// The saying of these bytes, if it is kept.
    pub fn find(&self, bytes: &[u8]) -> Option<Saying> {
        self.kept
            .get_index_of(bytes)
            .map(|index| Saying::Kept(self.first + index as u64))
    }

    /// A saying that is not kept yet: which attributes have which texts, and the bytes that say so, if they are known.
    pub fn add(&mut self, bytes: Option<&[u8]>, attrs: &Attrs<'_>, of: &[Attr]) -> Saying {
        let texts = of
            .iter()
            .filter_map(|attr| Some((*attr, attrs.text(*attr)?.to_owned())))
            .collect();
        match bytes.filter(|bytes| bytes.len() <= TOLD_BYTES_MAX && self.kept.len() < TOLD_MAX) {
            Some(bytes) => Saying::Kept(self.first + self.kept.insert_full(bytes.into(), texts).0 as u64),
            None => {
                self.passing.push(texts);
                Saying::Passing(self.passing.len() - 1)
            }
        }
    }

    /// What a saying of this raw record says.
    pub fn texts(&self, saying: Saying) -> &[(Attr, String)] {
        let found = match saying {
            Saying::Kept(number) => self
                .kept
                .get_index((number - self.first) as usize)
                .map(|(_, texts)| texts),
            Saying::Passing(index) => self.passing.get(index),
        };
        found.map_or(&[], Vec::as_slice)
    }
}

/// All that is kept for one raw partition.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub resources: Sayings,
    pub records: Sayings,
    /// Reused for the bytes of a record's saying.
    bytes: Vec<u8>,
}

impl Told {
    /// See [`Sayings::begin`].
    pub fn begin(&mut self) {
        self.resources.begin();
        self.records.begin();
    }

    /// What a record and its resource say.
    pub fn texts(&self, said: Said) -> impl Iterator<Item = &(Attr, String)> {
        self.resources
            .texts(said.resource)
            .iter()
            .chain(self.records.texts(said.record))
    }

    /// The saying of a record.
    pub fn of_record(&mut self, attrs: &Attrs<'_>) -> Saying {
        self.bytes.clear();
        for (number, attr) in (0..).zip(OF_RECORD) {
            if let Some(text) = attrs.text(attr) {
                // With its length, so that no two sayings have the same bytes.
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
    fn one_number_for_one_saying() {
        let mut told = Told::default();
        let [a, b, c] = ["a", "b", "a"].map(|model| told.of_record(&of(Attr::Model, model)));
        assert_eq!((a == b, a == c), (false, true));
        assert_ne!(
            a,
            told.of_record(&of(Attr::Originator, "a")),
            "of another attribute"
        );
        assert_eq!(told.records.texts(b), [(Attr::Model, "b".to_owned())]);
    }

    #[test]
    fn numbers_are_not_given_again_and_memory_is_bounded() {
        let mut told = Told::default();
        let first = told.of_record(&of(Attr::Model, "0"));
        for number in 1..=TOLD_MAX {
            told.begin();
            told.of_record(&of(Attr::Model, &number.to_string()));
            assert!(told.records.kept.len() <= TOLD_MAX);
        }
        let again = told.of_record(&of(Attr::Model, "0"));
        assert_ne!(again, first, "it was forgotten meanwhile");
        assert_eq!(told.records.texts(again), [(Attr::Model, "0".to_owned())]);
        let long = "x".repeat(TOLD_BYTES_MAX);
        let passing = told.of_record(&of(Attr::Model, &long));
        assert_eq!(passing, Saying::Passing(0));
        assert_eq!(told.records.texts(passing), [(Attr::Model, long)]);
        told.begin();
        assert!(told.records.passing.is_empty());
    }
}
