//! The row of a session, made of its state.

use schemas::derived::{SegmentState, SessionRow};
use schemas::id::{Position, TopicPartition, split_raw_key};
use schemas::state::SessionState;

/// The phase of a session that is open.
pub const OPEN: u32 = 0;
/// The phase of a session that was silent for the session gap.
pub const ENDED: u32 = 1;
/// The phase of a session that had ended and got another record.
pub const REOPENED: u32 = 2;

/// The row of the session of conversation `key`, as it is at `position`.
pub fn of(key: &str, session: &SessionState, at: TopicPartition, position: Position) -> SessionRow {
    let (tenant, conversation) = split_raw_key(key);
    let (nobody, nothing) = Default::default();
    let identity = session.identity.as_ref().unwrap_or(&nobody);
    let mut row = SessionRow {
        tenant: tenant.to_owned(),
        conversation_id: conversation.to_owned(),
        segment_start_ms: session.segment_start_ms,
        state: match session.phase {
            ENDED => SegmentState::Ended,
            REOPENED => SegmentState::Reopened,
            _ => SegmentState::Open,
        },
        source_topic: at.topic.name().to_owned(),
        source_partition: at.partition,
        position: position.0,
        revision: position.0,
        epoch: session.epoch,
        started_ms: session.segment_start_ms,
        last_event_ms: session.last_event_ms,
        ended_ms: session.ended_ms,
        duration_ms: session.last_event_ms - session.segment_start_ms,
        first_offset: session.first_offset,
        last_offset: session.last_offset,
        entrypoint: super::classify::entrypoint(&identity.service_name, &identity.originator).to_owned(),
        open_calls: i64::try_from(session.open_calls.len()).unwrap_or(i64::MAX),
        ..SessionRow::default()
    };
    row.set_identity(identity);
    row.set_counts(session.counts.as_ref().unwrap_or(&nothing));
    row
}
