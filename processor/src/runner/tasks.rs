//! The tasks of a worker, one for each input partition that the worker owns.

use processor_core::{AnyTask, Pending, SeriesTask};
use schemas::id::{Position, TopicPartition};
use schemas::topic::Topic;
use std::collections::BTreeMap;

/// A task, and what is known of its last commit.
pub struct Held {
    /// The task.
    pub task: AnyTask,
    /// The committed position of the task's input partition.
    pub committed: Position,
    /// [`SessionTask::clock_holds`](processor_core::SessionTask::clock_holds) at the last commit.
    pub clock_holds: u64,
}

/// Tasks by input partition. They are in the order of topics, so raw partitions come first.
#[derive(Default)]
pub struct Tasks {
    by_input: BTreeMap<TopicPartition, Held>,
}

impl Tasks {
    /// Adds a task whose position is the committed one.
    pub fn insert(&mut self, input: TopicPartition, task: AnyTask) {
        let held = Held {
            committed: task.position(),
            task,
            clock_holds: 0,
        };
        self.by_input.insert(input, held);
    }

    /// Drops a task.
    pub fn remove(&mut self, input: TopicPartition) {
        self.by_input.remove(&input);
    }

    /// The task of an input partition, for changes.
    pub fn get_mut(&mut self, input: TopicPartition) -> Option<&mut Held> {
        self.by_input.get_mut(&input)
    }

    /// The task of an input partition.
    pub fn get(&self, input: TopicPartition) -> Option<&AnyTask> {
        self.by_input.get(&input).map(|held| &held.task)
    }

    /// All tasks, in the order of their input partitions.
    pub fn iter(&self) -> impl Iterator<Item = (TopicPartition, &Held)> {
        self.by_input.iter().map(|(input, held)| (*input, held))
    }

    /// All tasks, in the order of their input partitions, for changes.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (TopicPartition, &mut Held)> {
        self.by_input.iter_mut().map(|(input, held)| (*input, held))
    }

    /// The series task of a deltas partition.
    pub fn series(&self, partition: i32) -> Option<&SeriesTask> {
        let topic = Topic::Deltas;
        self.get(TopicPartition { topic, partition })?.series()
    }

    /// How much the next commit writes for all tasks together.
    pub fn pending(&self) -> Pending {
        self.by_input
            .values()
            .fold(Pending::default(), |sum, held| sum.plus(held.task.pending()))
    }

    /// The input partitions whose tasks are ahead of the committed position.
    pub fn moved(&self) -> Vec<TopicPartition> {
        let ahead = |(_, held): &(TopicPartition, &Held)| held.task.position() != held.committed;
        self.iter().filter(ahead).map(|(input, _)| input).collect()
    }
}
