//! Answers rebalances: where each partition that comes begins, and what was lost of it.

use super::context::Change;
use super::{Group, REQUEST_MAX};
use crate::inbox::drain::DrainError;
use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};
use schemas::signal::Signal;

impl Group {
    /// Answers all changes of who has which partitions. Gives the number of records that were deleted from them before they were
    /// drained.
    pub fn answer(&self) -> Result<Vec<(Signal, u64)>, DrainError> {
        let mut lost = Vec::new();
        while let Some(change) = self.context().next_change() {
            match change {
                Change::Assigned(list) => {
                    let from = self.starts(list, &mut lost)?;
                    tracing::info!(partitions = from.count(), "inbox partitions assigned");
                    let answered = self.consumer.incremental_assign(&from);
                    answered.map_err(|source| DrainError::Client {
                        doing: "taking partitions over",
                        source,
                    })?;
                }
                Change::Gone(list) => {
                    tracing::info!(partitions = list.count(), "inbox partitions given away");
                    let answered = self.consumer.incremental_unassign(&list);
                    answered.map_err(|source| DrainError::Client {
                        doing: "giving partitions away",
                        source,
                    })?;
                    let mut positions = self.context().positions();
                    for element in list.elements() {
                        if let Some(signal) = self.context().signal(element.topic()) {
                            positions.remove(&(signal, element.partition()));
                        }
                    }
                }
            }
        }
        Ok(lost)
    }

    /// Where each partition begins: at the group's position, or at the start of the log where the group has none.
    fn starts(
        &self,
        list: TopicPartitionList,
        lost: &mut Vec<(Signal, u64)>,
    ) -> Result<TopicPartitionList, DrainError> {
        if list.count() == 0 {
            return Ok(list);
        }
        let committed = self.consumer.committed_offsets(list, REQUEST_MAX);
        let committed = committed.map_err(|source| DrainError::Client {
            doing: "asking for committed positions",
            source,
        })?;
        let mut from = TopicPartitionList::with_capacity(committed.count());
        for element in committed.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let extent = self.consumer.fetch_watermarks(topic, partition, REQUEST_MAX);
            let (start, end) = extent.map_err(|source| DrainError::Client {
                doing: "asking for the extent of an inbox",
                source,
            })?;
            let begin = match element.offset() {
                Offset::Offset(position) if (start..=end).contains(&position) => position,
                Offset::Offset(position) => {
                    tracing::error!(
                        topic,
                        partition,
                        position,
                        start,
                        end,
                        "the position is not in the inbox any more: going on at its start"
                    );
                    self.lose(topic, start - position, lost);
                    start
                }
                _ if start > 0 => {
                    tracing::error!(
                        topic,
                        partition,
                        start,
                        "records were deleted before anything was drained"
                    );
                    self.lose(topic, start, lost);
                    start
                }
                _ => start,
            };
            if let Some(signal) = self.context().signal(topic) {
                self.context().positions().insert((signal, partition), begin);
            }
            let added = from.add_partition_offset(topic, partition, Offset::Offset(begin));
            added.map_err(|source| DrainError::Client {
                doing: "taking partitions over",
                source,
            })?;
        }
        Ok(from)
    }

    /// Notes records of a topic that nobody can drain any more.
    fn lose(&self, topic: &str, records: i64, lost: &mut Vec<(Signal, u64)>) {
        if let (Some(signal), Ok(records)) = (self.context().signal(topic), u64::try_from(records)) {
            lost.push((signal, records));
        }
    }
}
