//! The consumer group of the simulated log: static members, generations, cooperative hand-over.
//!
//! A partition moves in two steps, as with Kafka's cooperative protocol: its owner is told to let go, and only when it has
//! done so is the partition given to the member that it is promised to. Each step is a generation. A member that is silent
//! for longer than the session timeout is expelled, and loses all partitions at once.

use super::Brokers;
use crate::{Ownership, all_inputs};
use schemas::id::TopicPartition;
use std::collections::{BTreeMap, VecDeque};

/// The session timeout, ms of the cluster's clock: a member that is silent for longer is expelled.
pub(super) const SESSION_MS: i64 = 6_000;
/// The chance in 1,000 that a member is told of a rebalance that changes nothing for it.
const TOLD_OF_NOTHING: u32 = 300;

/// The group as its coordinator knows it.
#[derive(Default)]
pub(super) struct Group {
    /// Counted up with each change of the assignment.
    pub generation: u64,
    members: BTreeMap<String, Member>,
    owners: BTreeMap<TopicPartition, String>,
    /// The member that gets a partition once its owner has let go.
    promised: BTreeMap<TopicPartition, String>,
}

/// A member of the group.
struct Member {
    /// The number of the handle that is the member, among those of its name.
    handle: u64,
    /// When it last gave a sign of life, ms of the cluster's clock.
    heartbeat_ms: i64,
    is_silent: bool,
    /// Changes of ownership that the handle has not fetched yet.
    news: VecDeque<Ownership>,
}

/// What a handle learns from the group.
pub(super) enum Heard {
    /// The handle is a member in this generation, and these changes of ownership came since it last asked.
    Member(u64, VecDeque<Ownership>),
    /// The group went on without it.
    Expelled,
}

impl Group {
    fn member(&mut self, name: &str, handle: u64) -> Option<&mut Member> {
        self.members
            .get_mut(name)
            .filter(|member| member.handle == handle)
    }

    /// Gives a handle of that name what it has not fetched yet.
    pub fn hear(&mut self, name: &str, handle: u64) -> Heard {
        let generation = self.generation;
        match self.member(name, handle) {
            Some(member) => Heard::Member(generation, std::mem::take(&mut member.news)),
            None => Heard::Expelled,
        }
    }

    /// Stops the heartbeats of a member, or lets them go on; with a handle, only if that handle is the member.
    pub fn set_silent(&mut self, name: &str, handle: Option<u64>, is_silent: bool) {
        if let Some(member) = self
            .members
            .get_mut(name)
            .filter(|member| handle.is_none_or(|handle| handle == member.handle))
        {
            member.is_silent = is_silent;
        }
    }

    /// The name of the member that has a partition.
    pub fn owner(&self, at: TopicPartition) -> Option<&str> {
        self.owners.get(&at).map(String::as_str)
    }

    /// How many partitions a member has or is promised.
    fn load(&self, name: &str) -> usize {
        self.owners
            .iter()
            .filter(|(at, owner)| self.promised.get(at).unwrap_or(owner) == name)
            .count()
    }

    fn least_loaded(&self) -> Option<String> {
        self.members.keys().min_by_key(|name| self.load(name)).cloned()
    }

    fn tell(&mut self, name: &str, change: Ownership) {
        if let Some(member) = self.members.get_mut(name) {
            member.news.push_back(change);
        }
    }

    /// Gives partitions that nobody has to the members that they are promised to, else to those with the fewest.
    fn give(&mut self, free: Vec<TopicPartition>) {
        let mut given: BTreeMap<String, Vec<TopicPartition>> = BTreeMap::new();
        for at in free {
            let promised = self
                .promised
                .remove(&at)
                .filter(|name| self.members.contains_key(name));
            let Some(name) = promised.or_else(|| self.least_loaded()) else {
                continue;
            };
            self.owners.insert(at, name.clone());
            given.entry(name).or_default().push(at);
        }
        given
            .into_iter()
            .for_each(|(name, partitions)| self.tell(&name, Ownership::Assigned(partitions)));
    }

    /// Takes a member out; its partitions are free.
    fn remove(&mut self, name: &str) {
        self.members.remove(name);
        self.owners.retain(|_, owner| owner != name);
    }
}

impl Brokers {
    /// Lets a handle join: in the place of one of the same name, or as one more member.
    pub(super) fn join(&mut self, name: &str, handle: u64) {
        let fresh = Member {
            handle,
            heartbeat_ms: self.wall_ms,
            is_silent: false,
            news: VecDeque::new(),
        };
        if self.group.members.insert(name.to_owned(), fresh).is_none() {
            self.rebalance();
            return;
        }
        // Partitions that the handle before this one was to let go are free by its end.
        let group = &mut self.group;
        let (mut kept, mut let_go) = (Vec::new(), Vec::new());
        for (at, _) in group.owners.iter().filter(|(_, owner)| *owner == name) {
            let to = if group.promised.contains_key(at) {
                &mut let_go
            } else {
                &mut kept
            };
            to.push(*at);
        }
        group.tell(name, Ownership::Assigned(kept));
        self.let_go(&let_go);
    }

    /// Lets a handle leave in good order.
    pub(super) fn leave(&mut self, name: &str, handle: u64) {
        if self.group.member(name, handle).is_some() {
            self.group.remove(name);
            self.rebalance();
        }
    }

    /// Takes partitions from the member that has let them go, and gives them on.
    pub(super) fn let_go(&mut self, partitions: &[TopicPartition]) {
        if partitions.is_empty() {
            return;
        }
        self.group.generation += 1;
        partitions
            .iter()
            .for_each(|at| drop(self.group.owners.remove(at)));
        self.group.give(partitions.to_vec());
    }

    /// Lets members give signs of life, and expels those that gave none for too long.
    pub(super) fn beat(&mut self) {
        let now = self.wall_ms;
        self.group
            .members
            .values_mut()
            .filter(|member| !member.is_silent)
            .for_each(|member| member.heartbeat_ms = now);
        let dead = |member: &Member| now - member.heartbeat_ms > SESSION_MS;
        let names: Vec<String> = self
            .group
            .members
            .iter()
            .filter(|(_, member)| dead(member))
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            self.group.remove(&name);
            self.happened.expelled += 1;
            self.rebalance();
        }
    }

    /// Spreads the input partitions over the members; most stay where they are.
    fn rebalance(&mut self) {
        self.happened.rebalances += 1;
        let inputs = all_inputs(|topic| self.count(topic));
        let group = &mut self.group;
        group.generation += 1;
        if group.members.is_empty() {
            return;
        }
        let share = inputs.len().div_ceil(group.members.len());
        let mut to_let_go: BTreeMap<String, Vec<TopicPartition>> = BTreeMap::new();
        let (mut free, mut kept) = (Vec::new(), BTreeMap::<String, usize>::new());
        for at in inputs {
            let Some(owner) = group.owners.get(&at).cloned() else {
                free.push(at);
                continue;
            };
            // A partition that is being handed over goes on, perhaps to another member, and back to its owner at worst.
            let is_moving = group.promised.remove(&at).is_some();
            let count = kept.entry(owner.clone()).or_default();
            if *count < share && !is_moving {
                *count += 1;
                continue;
            }
            if let Some(to) = group.least_loaded() {
                group.promised.insert(at, to);
            }
            if !is_moving {
                to_let_go.entry(owner).or_default().push(at);
            }
        }
        group.give(free);
        to_let_go
            .into_iter()
            .for_each(|(name, partitions)| group.tell(&name, Ownership::Revoked(partitions)));
        let untouched = |member: &Member| member.news.is_empty();
        let names: Vec<String> = group
            .members
            .iter()
            .filter(|(_, member)| untouched(member))
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            if self.random.chance(TOLD_OF_NOTHING) {
                self.group.tell(&name, Ownership::Assigned(Vec::new()));
            }
        }
    }
}
