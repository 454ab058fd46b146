//! The name of a static member, and what to do when the brokers say that somebody else has it.
//!
//! The name may be taken by nobody but this process: when a session times out during an outage, librdkafka forgets its member id, but
//! goes on with heartbeats until the loss of the partitions is answered. A broker that comes back and remembers the old id
//! calls them fenced, and for the client that is fatal. The brokers forget a member that nobody keeps alive after the
//! session timeout, and keep another process's. So the member waits for that time in silence: a process that has lost its
//! name must not fence the one that has it.

use crate::LogError;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::groups::GroupList;
use std::time::{Duration, Instant};

/// How long beyond the session timeout a name that nobody uses may stay taken: brokers look at sessions late after a
/// restart, and a rebalance of the others may be under way.
const GRACE: Duration = Duration::from_secs(10);
/// How long the brokers may take to say who is in the group.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// How many characters brokers add to a name to make a member id: a hyphen, and a UUID in text.
const MEMBER_ID_SUFFIX: usize = 1 + 36;
/// The states of a group whose members the brokers know.
const KNOWN_STATES: [&str; 4] = ["Empty", "Stable", "PreparingRebalance", "CompletingRebalance"];

/// A static member's name, and whether another member has taken it.
#[derive(Clone, Debug)]
pub(super) struct Name {
    group: String,
    instance: String,
    session_timeout: Duration,
    /// Since when somebody else seems to have the name.
    lost: Option<Instant>,
    /// When this member last joined again under the name.
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

    /// Takes note that the brokers say that somebody else has the name.
    ///
    /// # Errors
    /// [`LogError::Fenced`]: it was taken again within a session timeout after it was regained.
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

    /// Asks whether the name is free, and takes it back if it is.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]: somebody has it; ask again. [`LogError::Fenced`]: another process has it, for longer than
    /// a dead member keeps a name.
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
                // While nobody answers, nobody could say that the name is free: the wait begins anew.
                self.lost = Some(Instant::now());
                return Err(LogError::failed("asking who is in the group", error));
            }
        };
        if lost.elapsed() > self.session_timeout + GRACE {
            return Err(LogError::Fenced {
                reason: format!("{reason}: is it another process?"),
            });
        }
        Err(LogError::unavailable(format!(
            "fenced; {reason}; waiting until that is free"
        )))
    }

    /// Whether no member has the name. False while the brokers do not know of the group: they may be loading it.
    fn is_free(&self, groups: &GroupList) -> bool {
        let known = groups
            .groups()
            .iter()
            .find(|group| group.name() == self.group && KNOWN_STATES.contains(&group.state()));
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
        .is_some_and(|more| more.len() == MEMBER_ID_SUFFIX && more.starts_with('-'))
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
