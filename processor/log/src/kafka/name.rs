//! The name of a static member, after the brokers said that somebody else has it.
//!
//! That may be nobody but ourselves: when a session times out during an outage, librdkafka forgets its member id, but goes
//! on with heartbeats until the loss of the partitions is answered. A broker that comes back and remembers the old id
//! calls them fenced, and for the client that is fatal. A member that nobody keeps alive is forgotten after the session
//! timeout; another process' is not. So it is waited for that, in silence: who has lost his name must not fence its owner.

use super::clients::failed;
use crate::LogError;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::groups::GroupList;
use std::time::{Duration, Instant};

/// How long beyond the session timeout a name may stay taken by nobody: brokers look at sessions late after a restart, and
/// a rebalance of the others may be under way.
const GRACE: Duration = Duration::from_secs(10);
/// How long the brokers may take to say who is in the group.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// How long the part of a member id is that brokers add to the name, with the hyphen between: a UUID in text.
const MEMBER_ID_MORE: usize = 1 + 36;
/// What brokers call a group whose members they know.
const STATES: [&str; 4] = ["Empty", "Stable", "PreparingRebalance", "CompletingRebalance"];

/// A static member's name, and whether it is still ours.
#[derive(Clone, Debug)]
pub(super) struct Name {
    group: String,
    instance: String,
    session_timeout: Duration,
    /// Since when somebody else seems to have it.
    lost: Option<Instant>,
    /// When we last came back under it.
    regained: Option<Instant>,
}

impl Name {
    pub fn new(group: &str, instance: &str, session_timeout: Duration) -> Self {
        Self {
            group: group.to_owned(),
            instance: instance.to_owned(),
            session_timeout,
            lost: None,
            regained: None,
        }
    }

    /// The brokers say that somebody else has it.
    ///
    /// # Errors
    /// [`LogError::Fenced`]: it was taken as soon as we had come back under it.
    pub fn lose(&mut self) -> Result<(), LogError> {
        let now = Instant::now();
        if self
            .regained
            .is_some_and(|at| now.duration_since(at) < self.session_timeout)
        {
            return Err(LogError::Fenced {
                reason: format!("{}: taken again as soon as it was ours again", self.instance),
            });
        }
        self.lost = Some(now);
        Ok(())
    }

    /// `Ok` once nobody has it.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]: somebody has it; ask again. [`LogError::Fenced`]: another process has it, for longer than
    /// the dead keep a name.
    pub fn regain<C: ConsumerContext>(&mut self, consumer: &BaseConsumer<C>) -> Result<(), LogError> {
        let lost = self.lost.unwrap_or_else(Instant::now);
        let looked = consumer.client().fetch_group_list(Some(&self.group), LOOK_MAX);
        let reason = match looked.map(|groups| self.is_free(&groups)) {
            Ok(true) => {
                tracing::info!(
                    name = self.instance,
                    "nobody has our name in the group: joining again"
                );
                self.lost = None;
                self.regained = Some(Instant::now());
                return Ok(());
            }
            Ok(false) => format!("a member of {} has the name {}", self.group, self.instance),
            Err(error) => {
                // Nobody knows since when there was nobody to say that it is free.
                self.lost = Some(Instant::now());
                return Err(failed("asking who is in the group", &error));
            }
        };
        if lost.elapsed() > self.session_timeout + GRACE {
            return Err(LogError::Fenced {
                reason: format!("{reason}: is it another process?"),
            });
        }
        Err(LogError::Unavailable {
            reason: format!("fenced; {reason}; waiting until that is free"),
        })
    }

    /// Not while the brokers do not know of the group: they may be loading it.
    fn is_free(&self, groups: &GroupList) -> bool {
        let known = groups
            .groups()
            .iter()
            .find(|group| group.name() == self.group && STATES.contains(&group.state()));
        known.is_some_and(|group| {
            !group
                .members()
                .iter()
                .any(|member| is_of(member.id(), &self.instance))
        })
    }
}

/// Whether brokers gave that member id to a static member of that name.
fn is_of(member: &str, instance: &str) -> bool {
    member
        .strip_prefix(instance)
        .is_some_and(|more| more.len() == MEMBER_ID_MORE && more.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_told_by_their_names() {
        let id = "6f1de0c1-21a4-4a7a-8a4e-0d6a2e8f3c55";
        assert!(is_of(&format!("one-1-{id}"), "one-1"));
        assert!(
            !is_of(&format!("one-1-{id}"), "one"),
            "a name that begins alike is another"
        );
        assert!(!is_of(&format!("one-11-{id}"), "one-1"));
        assert!(!is_of("one-1", "one-1"));
    }
}
