//! Where partitions begin and end: one request to each broker, for however many partitions.
//!
//! A read_committed client is told the last stable offset as the end, any other client the offset that the next record gets.

use super::clients;
use super::names::Names;
use crate::{Extent, LogError};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use schemas::id::{Position, TopicPartition};
use std::time::Duration;

/// Where one partition begins and ends; `answer_max` is how long the brokers may take.
pub(super) fn extent<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    names: &Names,
    at: TopicPartition,
    answer_max: Duration,
) -> Result<Extent, LogError> {
    let name = names.name(at.topic);
    let asking = || format!("asking for the extent of {at}");
    let (start, end) = clients::ask(answer_max, asking, || {
        client.fetch_watermarks(&name, at.partition, answer_max)
    })?;
    Ok(Extent {
        start: Position(start),
        end: Position(end),
    })
}

/// Where each of these partitions begins and ends, in the order asked.
pub(super) fn extents<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    names: &Names,
    at: &[TopicPartition],
    answer_max: Duration,
) -> Result<Vec<Extent>, LogError> {
    let starts = sides(client, names, at, Offset::Beginning, answer_max)?;
    let ends = sides(client, names, at, Offset::End, answer_max)?;
    Ok(starts
        .into_iter()
        .zip(ends)
        .map(|(start, end)| Extent { start, end })
        .collect())
}

/// Where each of these partitions ends, in the order asked.
pub(super) fn ends<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    names: &Names,
    at: &[TopicPartition],
    answer_max: Duration,
) -> Result<Vec<Position>, LogError> {
    sides(client, names, at, Offset::End, answer_max)
}

/// One side of each of these partitions, its beginning or its end. Both are special values of the time in a request for offsets
/// by time (Kafka protocol, `ListOffsets`).
fn sides<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    names: &Names,
    at: &[TopicPartition],
    side: Offset,
    answer_max: Duration,
) -> Result<Vec<Position>, LogError> {
    if at.is_empty() {
        // The client refuses a request for no partitions.
        return Ok(Vec::new());
    }
    let asking = || format!("asking for the {side:?} of {} partitions", at.len());
    clients::ask(answer_max, asking, || {
        let mut list = names.unset(at);
        list.set_all_offsets(side)?;
        let found = client.offsets_for_times(list, answer_max)?;
        let of = |at: &TopicPartition| {
            answered(&found, names, *at)?.ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::NoOffset))
        };
        at.iter().map(of).collect()
    })
}

/// The offset that an answer gives for one partition; `None` if it gives none.
pub(super) fn answered(
    found: &TopicPartitionList,
    names: &Names,
    at: TopicPartition,
) -> KafkaResult<Option<Position>> {
    let element = found.find_partition(&names.name(at.topic), at.partition);
    let element = element.ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition))?;
    element.error()?;
    Ok(match element.offset() {
        Offset::Offset(offset) => Some(Position(offset)),
        Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => None,
    })
}
