//! What of `tacho.control` an ingest with a spool needs to begin without its cluster: kept beside the spool.
//!
//! The seed, which pins the number of raw partitions, and the last record with a privacy policy, as they are in the topic. A
//! policy that changed while this process was down and Kafka away is not known until Kafka answers, just as one that changes
//! while a running process can't reach the topic.

use crate::control::policy::{Policies, Reading};
use schemas::control::EpochChange;
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

const FILE: &str = "control.json";

/// A control record.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Kept {
    offset: i64,
    key: Option<String>,
    value: String,
}

/// The records that count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Remembered {
    prefix: String,
    records: Vec<Kept>,
}

impl Remembered {
    /// Nothing yet, of the control topic with that prefix.
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            records: Vec::new(),
        }
    }

    /// What is kept in the directory, of a control topic with that prefix.
    pub fn load(directory: &Path, prefix: &str) -> Option<Self> {
        Self::read(directory).filter(|remembered| remembered.prefix == prefix)
    }

    /// Whether the directory belongs to another prefix.
    pub fn is_of_another(directory: &Path, prefix: &str) -> bool {
        Self::read(directory).is_some_and(|remembered| remembered.prefix != prefix)
    }

    fn read(directory: &Path) -> Option<Self> {
        let bytes = std::fs::read(directory.join(FILE)).ok()?;
        let read = serde_json::from_slice::<Self>(&bytes);
        read.inspect_err(|error| tracing::warn!(%error, "what was remembered can't be read"))
            .ok()
    }

    /// Puts the policy into force: the number of raw partitions.
    pub fn restore(&self, policies: &Arc<Policies>) -> Option<i32> {
        let mut reading = self.reading(Arc::clone(policies))?;
        reading.publish();
        reading.raw_partitions()
    }

    /// The number of raw partitions alone.
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

    /// Takes the next record of the topic; whether it counts.
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

    /// Keeps it in the directory, durably.
    ///
    /// # Errors
    /// The file system.
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
    use crate::Config;
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
        assert_eq!(policies.rule(&Config::default(), "t").unwrap().epoch, Some(2));
        assert_eq!(Remembered::new("").restore(&Arc::new(Policies::default())), None);
    }
}
