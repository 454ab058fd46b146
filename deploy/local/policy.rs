//! The privacy policy of this process's own ingest: follows the control topic, on a cluster or in the embedded log.

use ingest::control::policy::{FOLLOW_EVERY, Policies, Reading};
use processor_log::{Log, LogError};
use schemas::id::{Position, TopicPartition};
use schemas::topic::Topic;
use settings::process::chain;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often to look for the seed of a log that is new.
const SEED_EVERY: Duration = Duration::from_millis(50);
/// How many records one read takes.
const READ_MAX: usize = 100;
/// The only partition there is.
const CONTROL: TopicPartition = TopicPartition {
    topic: Topic::Control,
    partition: 0,
};

/// Puts each policy of the log into force, from its last one on, until `ending` says so. Where the log can't be read, the
/// last one stays.
pub async fn follow(log: Box<dyn Log>, policies: Arc<Policies>, mut ending: watch::Receiver<bool>) {
    let mut control = Control {
        log,
        reading: Reading::new(policies),
        next: Position(0),
        told: String::new(),
    };
    loop {
        let looked = tokio::task::spawn_blocking(move || {
            control.look();
            control
        });
        control = match looked.await {
            Ok(control) => control,
            Err(error) => {
                return tracing::error!(%error, "the control topic is followed no longer: the privacy policy stays as it is");
            }
        };
        let pause = if control.reading.raw_partitions().is_some() {
            FOLLOW_EVERY
        } else {
            SEED_EVERY
        };
        // The sender is gone only when the process ends.
        if tokio::time::timeout(pause, ending.wait_for(|over| *over))
            .await
            .is_ok()
        {
            return;
        }
    }
}

struct Control {
    log: Box<dyn Log>,
    reading: Reading,
    next: Position,
    /// Why it could not be read, where that was told.
    told: String,
}

impl Control {
    fn look(&mut self) {
        match self.read() {
            Ok(()) => self.told.clear(),
            Err(why) if why != self.told => {
                tracing::warn!(
                    reason = why,
                    "the control topic can't be read: the privacy policy stays as it is"
                );
                self.told = why;
            }
            Err(_) => {}
        }
    }

    /// Reads all that is new; what it comes to is in force then.
    fn read(&mut self) -> Result<(), String> {
        let text = |error: LogError| chain(&error);
        let end = self.log.extent(CONTROL).map_err(text)?.end;
        while self.next < end {
            let batch = self.log.read(CONTROL, self.next, READ_MAX).map_err(text)?;
            if batch.next == self.next {
                return Ok(());
            }
            for record in &batch.records {
                let value = record.value.as_deref().unwrap_or_default();
                self.reading
                    .add(record.offset, record.key.as_deref(), value)
                    .map_err(|error| chain(&error))?;
            }
            self.next = batch.next;
        }
        self.reading.publish();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use ingest::Config;
    use processor_log::embedded::Embedded;
    use schemas::control::{EPOCH_KEY, EpochChange};
    use schemas::privacy::Action;
    use schemas::record::NewRecord;
    use schemas::settings::Seed;

    fn append(log: &mut dyn Log, key: &'static str, value: Vec<u8>) {
        let record = NewRecord {
            to: CONTROL,
            key: Some(Bytes::from_static(key.as_bytes())),
            value: Some(value.into()),
            headers: Vec::new(),
        };
        log.append(vec![record]).unwrap();
    }

    /// Waits for the rule of that epoch: the fields that it keeps.
    async fn prompts_kept(policies: &Policies, epoch: i64) -> bool {
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        for _ in 0..6_000 {
            looks.tick().await;
            let rule = policies.rule(Config::default().text_settings(), "default");
            if let Some(rule) = rule.filter(|rule| rule.epoch == Some(epoch)) {
                return rule.actions.at(0) == Action::Keep;
            }
        }
        panic!("epoch {epoch} does not come into force");
    }

    #[tokio::test]
    async fn an_epoch_in_the_embedded_log_is_in_force_soon_after() {
        let dir = tempfile::tempdir().unwrap();
        let log = Embedded::open(dir.path(), &Seed::shipped()).unwrap();
        let mut writer = log.handle();
        let policies = Arc::new(Policies::default());
        let (end, ending) = watch::channel(false);
        let following = tokio::spawn(follow(Box::new(log.handle()), Arc::clone(&policies), ending));
        assert!(!policies.is_read(), "there is no seed yet");
        append(&mut writer, "seed", Seed::shipped().to_json());
        assert!(!prompts_kept(&policies, 0).await);
        let keep = EpochChange::from_toml("[privacy.default]\nprompt = \"keep\"\n").unwrap();
        append(&mut writer, EPOCH_KEY, keep.to_json());
        assert!(prompts_kept(&policies, 1).await);
        append(
            &mut writer,
            EPOCH_KEY,
            EpochChange::from_toml("[privacy]\n").unwrap().to_json(),
        );
        assert!(!prompts_kept(&policies, 2).await);
        end.send(true).unwrap();
        following.await.unwrap();
    }
}
