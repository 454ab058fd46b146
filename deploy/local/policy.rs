//! The privacy policy of this process's own ingest: follows the control topic, on a cluster or in the embedded log.

use ingest::Policies;
use ingest::control::follow_policy;
use processor_log::ReadLog;
use std::sync::Arc;
use tokio::sync::watch;

/// Puts each policy of the log into force, from its last one on, until `ending` says so. Where the log can't be read, the
/// last one stays.
pub async fn follow(mut log: Box<dyn ReadLog>, policies: Arc<Policies>, mut ending: watch::Receiver<bool>) {
    let runtime = tokio::runtime::Handle::current();
    let following = tokio::task::spawn_blocking(move || {
        follow_policy(log.as_mut(), policies, |pause| {
            // The sender is gone only when the process ends.
            let over = async { tokio::time::timeout(pause, ending.wait_for(|over| *over)).await };
            runtime.block_on(over).is_ok()
        });
    });
    if let Err(error) = following.await {
        tracing::error!(%error, "the control topic is followed no longer: the privacy policy stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ingest::Config;
    use processor_log::control::append;
    use processor_log::embedded::Embedded;
    use schemas::control::{EPOCH_KEY, EpochChange};
    use schemas::privacy::Action;
    use schemas::settings::Seed;
    use std::time::Duration;

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
        append(&mut writer, "seed", Seed::shipped().to_json()).unwrap();
        assert!(!prompts_kept(&policies, 0).await);
        let keep = EpochChange::from_toml("[privacy.default]\nprompt = \"keep\"\n").unwrap();
        append(&mut writer, EPOCH_KEY, keep.to_json()).unwrap();
        assert!(prompts_kept(&policies, 1).await);
        append(
            &mut writer,
            EPOCH_KEY,
            EpochChange::from_toml("[privacy]\n").unwrap().to_json(),
        )
        .unwrap();
        assert!(!prompts_kept(&policies, 2).await);
        end.send(true).unwrap();
        following.await.unwrap();
    }
}
