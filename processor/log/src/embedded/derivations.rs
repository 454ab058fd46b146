//! The derivations of a directory: each has a prefix, and by it a number that its keys hold. One of them is open at a time.

use super::codec::{DERIVATION_KEY, Derivation, Keys, RETIRED_KEY};
use super::store::{number, stored};
use crate::LogError;
use fjall::{Database, Keyspace, PersistMode};
use schemas::id::TopicPartition;
use schemas::stage::Stage;
use std::collections::BTreeMap;

/// The most derivations that a directory has had.
pub(super) const DERIVATIONS_MAX: u16 = 1_000;

/// The derivations of a directory, and which of them is open.
pub(super) struct Derivations {
    /// The keys of the one that is open.
    pub keys: Keys,
    /// The others that may be gone on with.
    others: Vec<Derivation>,
}

/// Finds the derivation of that prefix, or makes it.
///
/// # Errors
/// The store failed, holds what can't be read, or there are too many derivations.
pub(super) fn open(db: &Database, meta: &Keyspace, prefix: &str) -> Result<Derivations, LogError> {
    let known = all(meta)?;
    let opened = match known.get(prefix) {
        Some(derivation) => *derivation,
        None => {
            let made = Derivation(u16::try_from(known.len()).unwrap_or(u16::MAX));
            if made.0 > DERIVATIONS_MAX {
                let reason = format!(
                    "the directory has had {DERIVATIONS_MAX} derivations, which is the most; use a new one"
                );
                return Err(LogError::unavailable(reason));
            }
            stored(meta.insert(key(prefix), i64::from(made.0).to_be_bytes()))?;
            stored(db.persist(PersistMode::SyncAll))?;
            made
        }
    };
    let mut others = Vec::new();
    for (name, derivation) in known {
        if derivation != opened && !is_retired(meta, &name)? {
            others.push(derivation);
        }
    }
    Ok(Derivations {
        keys: Keys { derivation: opened },
        others,
    })
}

/// The derivations of a directory by their prefixes, retired ones too.
///
/// # Errors
/// The store failed, or holds what can't be read.
pub(super) fn all(meta: &Keyspace) -> Result<BTreeMap<String, Derivation>, LogError> {
    let mut known = BTreeMap::from([(String::new(), Derivation::default())]);
    for entry in meta.prefix(DERIVATION_KEY) {
        let (key, value) = stored(entry.into_inner())?;
        let corrupt = || LogError::corrupt("the list of derivations".to_owned(), "an entry is none");
        let name = key.get(DERIVATION_KEY.len()..).ok_or_else(corrupt)?;
        let name = std::str::from_utf8(name).map_err(|_| corrupt())?;
        let number = u16::try_from(number(&value, || "the list of derivations".to_owned())?);
        known.insert(name.to_owned(), Derivation(number.map_err(|_| corrupt())?));
    }
    Ok(known)
}

/// Whether a derivation is retired: it holds no raw record back, and is not gone on with.
///
/// # Errors
/// The store failed.
pub(super) fn is_retired(meta: &Keyspace, prefix: &str) -> Result<bool, LogError> {
    let key = [RETIRED_KEY, prefix.as_bytes()].concat();
    Ok(stored(meta.get(key))?.is_some())
}

/// Retires a derivation for good.
///
/// # Errors
/// The store failed.
pub(super) fn retire(db: &Database, meta: &Keyspace, prefix: &str) -> Result<(), LogError> {
    let key = [RETIRED_KEY, prefix.as_bytes()].concat();
    stored(meta.insert(key, []))?;
    stored(db.persist(PersistMode::SyncAll))
}

/// The key of a derivation's number.
pub(super) fn key(prefix: &str) -> Vec<u8> {
    [DERIVATION_KEY, prefix.as_bytes()].concat()
}

impl Derivations {
    /// The lowest position that any other derivation has committed, for each of these partitions that is a stage's input.
    ///
    /// A derivation that was made and has committed nothing of a partition begins at its start. The one without a prefix
    /// counts only once it has committed anything: every directory has it, whether it is used or not.
    ///
    /// # Errors
    /// The store failed, or holds what can't be read.
    pub fn committed_elsewhere(
        &self,
        meta: &Keyspace,
        shared: impl Iterator<Item = TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, i64>, LogError> {
        let inputs: Vec<TopicPartition> = shared.filter(|at| Stage::of_input(at.topic).is_some()).collect();
        let mut lowest = BTreeMap::new();
        for &derivation in &self.others {
            let keys = Keys { derivation };
            let mut positions = Vec::new();
            for &at in &inputs {
                let stored = stored(meta.get(keys.committed(at)))?;
                let position = stored.map(|bytes| number(&bytes, || format!("a position in {at}")));
                positions.push((at, position.transpose()?));
            }
            let is_used = positions.iter().any(|(_, position)| position.is_some());
            if derivation == Derivation::default() && !is_used {
                continue;
            }
            for (at, position) in positions {
                let position = position.unwrap_or(0);
                lowest
                    .entry(at)
                    .and_modify(|lowest: &mut i64| *lowest = position.min(*lowest))
                    .or_insert(position);
            }
        }
        Ok(lowest)
    }
}
