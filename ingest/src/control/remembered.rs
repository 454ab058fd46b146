//! Keeps the records of `tacho.control` that an ingest with a spool needs to start without its cluster.
//!
//! Kept are the seed, which pins the number of raw partitions, and the last record with a privacy policy, both as they are in
//! the topic. A policy that changes while this process is down and Kafka can't be reached is not known before Kafka answers,
//! just like one that changes while a running process can't reach the topic.

use crate::control::policy::{Policies, Reading};
use schemas::control::EpochChange;
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

/// The name of the file in the spool's directory.
const FILE: &str = "control.json";

/// A record of the control topic.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Kept {
    offset: i64,
    key: Option<String>,
    value: String,
}

/// The records that are kept, of the control topic with that prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Remembered {
    prefix: String,
    records: Vec<Kept>,
}

impl Remembered {
    /// Keeps nothing yet, of the control topic with that prefix.
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            records: Vec::new(),
        }
    }

    /// What the directory keeps of the control topic with that prefix, if it keeps anything of it.
    pub fn load(directory: &Path, prefix: &str) -> Option<Self> {
        Self::read(directory).filter(|remembered| remembered.prefix == prefix)
    }

    /// Whether the directory keeps records of a control topic with another prefix.
    pub fn is_of_another(directory: &Path, prefix: &str) -> bool {
        Self::read(directory).is_some_and(|remembered| remembered.prefix != prefix)
    }

    fn read(directory: &Path) -> Option<Self> {
        let bytes = std::fs::read(directory.join(FILE)).ok()?;
        let read = serde_json::from_slice::<Self>(&bytes);
        read.inspect_err(|error| tracing::warn!(%error, "what was remembered can't be read"))
            .ok()
    }

    /// Puts the policy that is kept into force, and gives the number of raw partitions; none where no seed is kept.
    pub fn restore(&self, policies: &Arc<Policies>) -> Option<i32> {
        let mut reading = self.reading(Arc::clone(policies))?;
        reading.publish();
        reading.raw_partitions()
    }

    /// The number of raw partitions that the kept seed pins; none where no seed is kept.
    pub fn raw_partitions(&self) -> Option<i32> {
        self.reading(Arc::default())?.raw_partitions()
    }

    fn reading(&self, policies: Arc<Policies>) -> Option<Reading> {
        let mut reading = Reading::new(policies);
        for Kept { offset, key, value } in &self.records {
            reading
                .add(*offset, key.as_deref().map(str::as_bytes), value.as_bytes())
                .ok()?;
        }
        reading.raw_partitions().map(|_| reading)
    }

    /// Takes the next record of the topic; says whether it is one to keep.
    pub fn add(&mut self, offset: i64, key: Option<&[u8]>, value: &[u8]) -> bool {
        let has_policy = matches!(
            EpochChange::of_record(key, value),
            Some(Ok(EpochChange { privacy: Some(_), .. }))
        );
        let (Ok(value), Ok(key)) = (
            std::str::from_utf8(value),
            key.map(std::str::from_utf8).transpose(),
        ) else {
            return false;
        };
        if offset != 0 && !has_policy {
            return false;
        }
        self.records.truncate(usize::from(offset != 0));
        self.records.push(Kept {
            offset,
            key: key.map(str::to_owned),
            value: value.to_owned(),
        });
        true
    }

    /// Writes what is kept into the directory. After a crash the file there is whole: the old one or this one.
    ///
    /// # Errors
    /// The file can't be written; the old one is still there.
    pub fn save(&self, directory: &Path) -> std::io::Result<()> {
        let part = directory.join(format!("{FILE}.part"));
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&part)?;
        file.write_all(&serde_json::to_vec(self).map_err(std::io::Error::other)?)?;
        file.sync_all()?;
        std::fs::rename(part, directory.join(FILE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::policy::TextSettings;
    use schemas::control::EPOCH_KEY;
    use schemas::settings::Seed;

    #[test]
    fn the_seed_and_the_last_policy_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut remembered = Remembered::new("lab.");
        let key = Some(EPOCH_KEY.as_bytes());
        assert!(remembered.add(0, Some(b"seed"), &Seed::shipped().to_json()));
        assert!(remembered.add(1, key, br#"{"privacy":{"default":{"prompt":"keep"}}}"#));
        assert!(remembered.add(2, key, br#"{"privacy":{"default":{"output":"keep"}}}"#));
        assert!(!remembered.add(3, Some(b"foreign"), b"x"));
        remembered.save(dir.path()).unwrap();
        assert_eq!(Remembered::load(dir.path(), ""), None, "of another prefix");
        assert!(Remembered::is_of_another(dir.path(), "") && !Remembered::is_of_another(dir.path(), "lab."));
        let loaded = Remembered::load(dir.path(), "lab.").unwrap();
        assert_eq!((&loaded, loaded.records.len()), (&remembered, 2));
        let policies = Arc::new(Policies::default());
        assert_eq!(loaded.restore(&policies), Some(Seed::shipped().raw_partitions));
        assert_eq!(
            policies.rule(TextSettings::default(), "t").unwrap().epoch,
            Some(2)
        );
        assert_eq!(Remembered::new("").restore(&Arc::new(Policies::default())), None);
    }
}
