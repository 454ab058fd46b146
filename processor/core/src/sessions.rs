//! Stage `sessions`: one task folds exactly one raw partition into sessions, and into deltas for stage
//! `series`.
//!
//! ```text
//! raw record ─► clock, timers ─► parse ─► Ledger::record ─► outcome, mark ─► touch ─► on/* ─► rows
//!                                                   │                           │        └──► facts ─┐
//!                                                   └── count of records ───────┴── sessions ────────┴► Combiner ─► deltas
//! ```
//!
//! **Architecture Invariant:** state, rows and deltas of a task are a function of the records before its
//! position and of `tacho.control`, and of nothing else. What a single commit holds depends on when it
//! happens; the sum over commits does not.

mod classify;
mod cost;
mod identity;
mod identity_cache;
mod ledger;
mod marks;
mod on;
mod origins;
mod parse;
mod row;
mod timers;

pub use cost::AMOUNT_MAX;
pub use on::CALLS_MAX;
pub use origins::ORIGINS_MAX;

use crate::clock::{self, Advance};
use crate::indexed::IndexMap;
use crate::outbox::{Outbox, Source};
use crate::task::{Applied, Effects, Halt, Input, Pending, RestoreError, Sealed, Task};
use crate::{Deltas, Rules};
use identity_cache::IdentityCache;
use ledger::Ledger;
use marks::{ChunkId, Marks};
use origins::Origins;
use parse::Sender;
use prost::Message;
use schemas::derived::{Row, SessionRow};
use schemas::id::{Epoch, Position, TopicPartition};
use schemas::settings::SEMANTICS;
use schemas::stage::Stage;
use schemas::state::{Change, MarkChunk, Meta, OriginMark, SessionState, SessionsKey, StateKey};
use schemas::time::PartitionClock;

/// The state of one conversation.
#[derive(Clone, Debug, Default, PartialEq)]
struct Conversation {
    session: Option<SessionState>,
    marks: Marks,
    /// Whether the session changed since the last take.
    dirty: bool,
    /// When the timer for what the session waits for is due, if one is set.
    waits: Option<PartitionClock>,
    /// The sender of the session's last record, if both of its reports are interned.
    last_sender: Option<Sender>,
}

impl Conversation {
    fn is_empty(&self) -> bool {
        self.session.is_none() && self.marks.is_empty()
    }
}

/// The state of stage `sessions` for one raw partition.
#[derive(Clone, Debug)]
pub struct SessionTask {
    at: TopicPartition,
    clock: Option<PartitionClock>,
    position: Position,
    epoch: Epoch,
    conversations: IndexMap<String, Conversation>,
    identities: IdentityCache,
    ledger: Ledger,
    /// The last record taken from each inbox partition and spool.
    origins: Origins,
    outbox: Outbox,
    clock_holds: u64,
}

impl Task for SessionTask {
    fn new(at: TopicPartition, rules: &Rules, from: Position) -> Self {
        Self {
            at,
            clock: None,
            position: from,
            epoch: Epoch(0),
            conversations: IndexMap::default(),
            identities: IdentityCache::default(),
            ledger: Ledger::new(at, &rules.seed),
            origins: Origins::default(),
            outbox: Outbox::new(rules),
            clock_holds: 0,
        }
    }

    fn restore<'c>(
        at: TopicPartition,
        rules: &Rules,
        meta: &Meta,
        entries: impl IntoIterator<Item = (StateKey<'c>, &'c [u8])>,
    ) -> Result<Self, RestoreError> {
        let mut task = Self::new(at, rules, Position(meta.position));
        task.clock = meta.clock.map(PartitionClock);
        task.epoch = Epoch(meta.epoch);
        task.outbox.sent = meta.sent.iter().copied().map(Position).collect();
        task.outbox.marked = meta.marked;
        for (key, value) in entries {
            task.restore_entry(key, value)?;
        }
        task.set_timers(rules);
        Ok(task)
    }

    /// Folds one record. Its faults are outcomes, so nothing that a client sends can halt the task.
    fn apply(&mut self, input: Input<'_>, rules: &Rules) -> Result<Applied, Halt> {
        if clock::advance(&mut self.clock, input.appended, input.wall, &rules.seed.time) == Advance::Held {
            self.clock_holds += 1;
        }
        // Timers fire before the position moves: the rows of sessions that end do not hold this record.
        self.fire_timers(rules);
        self.epoch = self.epoch.max(input.epoch.unwrap_or(Epoch(0)));
        if !input.tick {
            self.fold(input, rules);
        }
        self.position = input.position();
        Ok(Applied::Folded)
    }

    fn take(&mut self, rules: &Rules) -> Effects {
        self.publish_open(rules);
        let mut changes = Vec::with_capacity(self.pending().entries);
        let mut change = |key: SessionsKey<'_>, value| {
            let key = key.to_string();
            changes.push(Change { key, value });
        };
        self.ledger.quarantined_bytes = 0;
        for conversation in in_order(&mut self.ledger.dirty_sessions) {
            let state = self.conversations.get_mut(&conversation);
            let session = state.and_then(|Conversation { session, dirty, .. }| {
                *dirty = false;
                session.as_ref()
            });
            let key = SessionsKey::Session {
                conversation: &conversation,
            };
            change(key, session.map(Message::encode_to_vec));
        }
        for (conversation, chunk) in std::mem::take(&mut self.ledger.dirty_chunks) {
            let state = self.conversations.get(&conversation);
            let marks = state.and_then(|conversation| conversation.marks.bytes(chunk));
            let key = SessionsKey::Marks {
                bucket: chunk.bucket.0,
                number: chunk.number,
                conversation: &conversation,
            };
            change(key, marks.map(|marks| MarkChunk { marks }.encode_to_vec()));
        }
        for (source, mark) in self.origins.changes() {
            let key = SessionsKey::Origin { source: &source };
            change(key, mark.map(|mark| mark.encode_to_vec()));
        }
        Effects {
            changes,
            rows: std::mem::take(&mut self.ledger.rows),
            deltas: self.ledger.combiner.take(),
            quarantined: std::mem::take(&mut self.ledger.quarantined),
            ..Effects::default()
        }
    }

    fn seal(&mut self, deltas: Deltas, writer: &str, rules: &Rules) -> Sealed {
        let deltas = match self.clock {
            // Before the first record there is no clock, and nothing to send.
            None => Vec::new(),
            Some(clock) => {
                let source = Source {
                    stage: Stage::Sessions,
                    partition: self.at.partition,
                    position: self.position,
                    clock,
                };
                self.outbox.seal(deltas, source, rules)
            }
        };
        let meta = Meta {
            position: self.position.0,
            epoch: self.epoch.0,
            semantics: SEMANTICS,
            writer: writer.to_owned(),
            clock: self.clock.map(|clock| clock.0),
            sent: self.outbox.sent.iter().map(|sent| sent.0).collect(),
            marked: self.outbox.marked,
            final_until: Vec::new(),
            sources: Vec::new(),
            complete_until: Vec::new(),
        };
        Sealed { deltas, meta }
    }

    fn position(&self) -> Position {
        self.position
    }

    fn pending(&self) -> Pending {
        self.ledger.pending()
    }
}

impl SessionTask {
    /// Goes on at a later position: the records before it are gone from the log.
    pub(crate) fn skip_to(&mut self, position: Position) {
        self.position = self.position.max(position);
    }

    /// The raw partition that the task folds.
    #[must_use]
    pub const fn partition(&self) -> i32 {
        self.at.partition
    }

    /// The partition clock; `None` before the first record.
    #[must_use]
    pub const fn clock(&self) -> Option<PartitionClock> {
        self.clock
    }

    /// The epoch of the partition.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many conversations are in state.
    #[must_use]
    pub fn state_keys(&self) -> usize {
        self.conversations.len()
    }

    /// How many records were too far ahead of the clock to move it since the task was made (see
    /// [`crate::clock`]).
    #[must_use]
    pub const fn clock_holds(&self) -> u64 {
        self.clock_holds
    }

    /// The rows of at most `max` sessions in state, as they are now, those with the latest records first.
    #[must_use]
    pub fn latest_rows(&self, max: usize) -> Vec<SessionRow> {
        let sessions = self
            .conversations
            .iter()
            .filter_map(|(key, conversation)| Some((key, conversation.session.as_ref()?)));
        let mut latest: Vec<_> = sessions.collect();
        latest.sort_by_key(|(_, session)| std::cmp::Reverse((session.last_clock_ms, session.last_offset)));
        latest
            .into_iter()
            .take(max)
            .map(|(key, session)| row::of(key, session, self.at, self.position))
            .collect()
    }

    /// Emits the rows of open sessions that changed. A session whose last row is more recent than the row
    /// interval waits for a later commit.
    fn publish_open(&mut self, rules: &Rules) {
        let Some(clock) = self.clock else { return };
        let keys = in_order(&mut self.ledger.unpublished);
        self.ledger.rows.reserve(keys.len());
        for key in keys {
            let Some(conversation) = self.conversations.get_mut(&key) else {
                continue;
            };
            let Some(session) = conversation
                .session
                .as_mut()
                .filter(|session| session.unpublished)
            else {
                continue;
            };
            let interval = rules.settings(Epoch(session.epoch)).row_interval_ms;
            if session.row_clock_ms.is_some_and(|last| clock.0 < last + interval) {
                self.ledger.unpublished.push(key);
                continue;
            }
            session.row_clock_ms = Some(clock.0);
            session.unpublished = false;
            let row = row::of(&key, session, self.at, self.position);
            self.ledger.rows.push(Row::Session(Box::new(row)));
            self.ledger.changed(&key, &mut conversation.dirty);
        }
    }

    fn restore_entry(&mut self, key: StateKey<'_>, value: &[u8]) -> Result<(), RestoreError> {
        let unread = |source| RestoreError::Entry {
            key: key.to_string(),
            source,
        };
        let StateKey::Sessions(own) = key else {
            return Err(RestoreError::Stage {
                key: key.to_string(),
                stage: Stage::Sessions.def().name,
            });
        };
        match own {
            SessionsKey::Session { conversation } => {
                let session = SessionState::decode(value).map_err(unread)?;
                if session.unpublished {
                    self.ledger.unpublished.push(conversation.to_owned());
                }
                self.conversation(conversation).session = Some(session);
            }
            SessionsKey::Marks {
                bucket,
                number,
                conversation,
            } => {
                let chunk = MarkChunk::decode(value).map_err(unread)?;
                let bucket = PartitionClock(bucket);
                let id = ChunkId { bucket, number };
                self.conversation(conversation).marks.restore(id, &chunk.marks);
            }
            SessionsKey::Origin { source } => {
                let mark = OriginMark::decode(value).map_err(unread)?;
                self.origins.restore(source, mark);
            }
        }
        Ok(())
    }

    fn conversation(&mut self, key: &str) -> &mut Conversation {
        self.conversations.entry(key.to_owned()).or_default()
    }
}

/// Takes the keys out, each once and ascending, so that their order does not depend on the order of records.
fn in_order(keys: &mut Vec<String>) -> Vec<String> {
    let mut keys = std::mem::take(keys);
    keys.sort_unstable();
    keys.dedup();
    keys
}
