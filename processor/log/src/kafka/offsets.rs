//! Where partitions begin and end: one request to each broker, for however many partitions.
//!
//! What the end is goes by who asks: the last stable offset for a read_committed client, else that of the next record.

use super::clients::{self, REQUEST_MAX};
use super::names::Names;
use crate::{Extent, LogError};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use schemas::id::{Position, TopicPartition};

/// Where one partition begins and ends.
pub(super) fn extent<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    names: &Names,
    at: TopicPartition,
) -> Result<Extent, LogError> {
    let name = names.name(at.topic);
    let asking = || format!("asking for the extent of {at}");
    let (start, end) = clients::ask(asking, || {
        client.fetch_watermarks(&name, at.partition, REQUEST_MAX)
    })?;
    Ok(Extent {
        start: Position(start),
        end: Position(end),
    })
}

/// Where each of these partitions begins and ends.
pub(super) fn extents<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    names: &Names,
    at: &[TopicPartition],
) -> Result<Vec<Extent>, LogError> {
    let (starts, ends) = (
        sides(client, names, at, Offset::Beginning)?,
        sides(client, names, at, Offset::End)?,
    );
    Ok(starts
        .into_iter()
        .zip(ends)
        .map(|(start, end)| Extent { start, end })
        .collect())
}

/// Where each of these partitions ends.
pub(super) fn ends<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    names: &Names,
    at: &[TopicPartition],
) -> Result<Vec<Position>, LogError> {
    sides(client, names, at, Offset::End)
}

/// The request for offsets by time knows two times that are none: the beginning and the end (Kafka protocol, `ListOffsets`).
fn sides<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    names: &Names,
    at: &[TopicPartition],
    side: Offset,
) -> Result<Vec<Position>, LogError> {
    if at.is_empty() {
        // The client takes that for a mistake.
        return Ok(Vec::new());
    }
    let asking = || format!("asking for the {side:?} of {} partitions", at.len());
    clients::ask(asking, || {
        let mut list = names.unset(at);
        list.set_all_offsets(side)?;
        let found = client.offsets_for_times(list, REQUEST_MAX)?;
        let of = |at: &TopicPartition| {
            answered(&found, names, *at)?.ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::NoOffset))
        };
        at.iter().map(of).collect()
    })
}

/// What an answer says of one partition: its offset, if it has one.
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
        _ => None,
    })
}
