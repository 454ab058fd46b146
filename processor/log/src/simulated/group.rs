//! The consumer group of the simulated log: static members, generations, cooperative hand-over.
//!
//! A partition moves in two steps, as with Kafka's cooperative protocol: its owner is told to let go, and only when it has
//! done so is the partition given to who it is promised to. Each step is a generation. Who is silent for longer than the
//! session timeout is expelled, and loses all at once.

use super::State;
use crate::{Ownership, all_inputs};
use schemas::id::TopicPartition;
use std::collections::{BTreeMap, VecDeque};

/// Who is silent for longer is expelled, ms of the cluster's clock.
pub(super) const SESSION_MS: i64 = 6_000;
/// The chance that a rebalance that changes nothing for a member is told to it, in 1,000.
const TOLD_OF_NOTHING: u32 = 300;

#[derive(Default)]
pub(super) struct Group {
    pub generation: u64,
    members: BTreeMap<String, Member>,
    owners: BTreeMap<TopicPartition, String>,
    /// Who gets a partition once its owner has let go.
    promised: BTreeMap<TopicPartition, String>,
}

struct Member {
    /// Which of the handles of that name it is.
    handle: u64,
    heartbeat_ms: i64,
    is_silent: bool,
    /// What happened, and was not heard yet.
    news: VecDeque<Ownership>,
}

/// What a handle hears of the group.
pub(super) enum Heard {
    /// It is a member, in this generation, and this came since.
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

    /// What a handle of that name has not heard yet.
    pub fn hear(&mut self, name: &str, handle: u64) -> Heard {
        let generation = self.generation;
        match self.member(name, handle) {
            Some(member) => Heard::Member(generation, std::mem::take(&mut member.news)),
            None => Heard::Expelled,
        }
    }

    /// Whether the group goes on without heartbeats of that name for a while.
    pub fn set_silent(&mut self, name: &str, handle: Option<u64>, is_silent: bool) {
        if let Some(member) = self
            .members
            .get_mut(name)
            .filter(|member| handle.is_none_or(|handle| handle == member.handle))
        {
            member.is_silent = is_silent;
        }
    }

    pub fn owner(&self, at: TopicPartition) -> Option<&str> {
        self.owners.get(&at).map(String::as_str)
    }

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

    /// Gives partitions that nobody has to who they are promised to, else to who has least.
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

impl State {
    /// A handle joins: in the place of one of the same name, or as one more.
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
        // What the one before was to let go, it let go by its end.
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

    /// A handle leaves in good order.
    pub(super) fn leave(&mut self, name: &str, handle: u64) {
        if self.group.member(name, handle).is_some() {
            self.group.remove(name);
            self.rebalance();
        }
    }

    /// A member answers that it has let partitions go; they are given on.
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

    /// Some time passes: members give signs of life, and who gave none for too long is expelled.
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
            // What is on its way goes on, though perhaps to somebody else, and back to its owner at worst.
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
