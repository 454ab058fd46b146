//! Stage `sessions`: one task folds exactly one raw partition into sessions, and into deltas for stage `series`.
//!
//! **Architecture Invariant:** a task's state, rows and deltas are a function of the records before its position, of
//! `tacho.control` and of nothing else. What a commit holds depends on when it happens; their sum does not.

mod classify;
mod cost;
mod deltas;
mod fold;
mod identity;
mod marks;
mod origins;
mod parse;
mod row;
mod told;

pub use cost::AMOUNT_MAX;
pub use fold::CALLS_MAX;
pub use origins::ORIGINS_MAX;

use crate::clock::{self, Advance};
use crate::indexed::IndexMap;
use crate::labels::DeltaMap;
use crate::{Input, RestoreError, Rules};
use deltas::Deltas;
use marks::{ChunkId, Marks};
use origins::Origins;
use parse::Said;
use prost::Message;
use schemas::changelog::{Change, MarkChunk, Meta, OriginMark, SessionState};
use schemas::delta::{DeltaEntry, DeltaRecord, target_of};
use schemas::derived::SessionRow;
use std::collections::{BTreeMap, BTreeSet};
use told::Told;

/// What the task keeps of one conversation.
#[derive(Clone, Debug, Default, PartialEq)]
struct Conversation {
    session: Option<SessionState>,
    marks: Marks,
    /// Whether the session changed since the last take.
    dirty: bool,
    /// What the session was told last of who it is, if that is kept.
    told: Option<Said>,
}

impl Conversation {
    fn is_empty(&self) -> bool {
        self.session.is_none() && self.marks.is_empty()
    }
}

/// Something to do when the clock reaches a time; ordered by time, then key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Timer {
    at: i64,
    key: String,
    /// The bucket of marks to forget; `None` is the session's own timer.
    bucket: Option<i64>,
}

/// A raw record that can't be folded: its bytes go to the quarantine topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Its offset in the raw partition.
    pub offset: i64,
    /// Why, in one word: `undecodable` or `misrouted`.
    pub reason: &'static str,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
}

/// Everything that follows from the inputs since the last take, in a fixed order.
#[derive(Debug, Default)]
#[must_use]
pub struct Effects {
    /// Upserts of the changelog, without the meta record.
    pub changes: Vec<Change>,
    /// Session rows, in the order in which they came about.
    pub rows: Vec<SessionRow>,
    /// Deltas under raw series keys.
    pub deltas: DeltaMap,
    /// Records for the quarantine topic.
    pub quarantined: Vec<Quarantined>,
}

/// How much follows from the records since the last take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Entries of the changelog.
    pub entries: usize,
    /// Bytes of the values that go to the quarantine.
    pub quarantined_bytes: usize,
}

/// The state of stage `sessions` for one raw partition.
#[derive(Clone, Debug)]
pub struct SessionTask {
    partition: i32,
    clock: Option<i64>,
    position: i64,
    epoch: i64,
    conversations: IndexMap<String, Conversation>,
    told: Told,
    ledger: Ledger,
    /// How far each inbox partition has come.
    origins: Origins,
    /// For each target partition of the deltas: the position in the last record sent there.
    sent: Vec<i64>,
    /// The mark (clock / mark_ms) of the last record sent to all targets.
    marked: Option<i64>,
    rows: Vec<SessionRow>,
    held: u64,
}

/// What folding a record adds to, beside its conversation.
#[derive(Clone, Debug)]
struct Ledger {
    deltas: Deltas,
    timers: BTreeSet<Timer>,
    quarantined: Vec<Quarantined>,
    quarantined_bytes: usize,
    /// Conversations with [`Conversation::dirty`] set, and those whose session was removed; may repeat.
    dirty_sessions: Vec<String>,
    dirty_chunks: BTreeSet<(String, ChunkId)>,
    /// Conversations with [`SessionState::unpublished`] set; may repeat, and hold some where it is not set any more.
    unpublished: Vec<String>,
}

impl SessionTask {
    /// The task at its first start: nothing known, to be fed from `position` on.
    #[must_use]
    pub fn new(partition: i32, rules: &Rules, position: i64) -> Self {
        let targets = usize::try_from(rules.seed.delta_partitions).unwrap_or(1);
        Self {
            partition,
            clock: None,
            position,
            epoch: 0,
            conversations: IndexMap::default(),
            told: Told::default(),
            ledger: Ledger {
                deltas: Deltas::new(&rules.seed),
                timers: BTreeSet::new(),
                quarantined: Vec::new(),
                quarantined_bytes: 0,
                dirty_sessions: Vec::new(),
                dirty_chunks: BTreeSet::new(),
                unpublished: Vec::new(),
            },
            origins: Origins::default(),
            sent: vec![0; targets],
            marked: None,
            rows: Vec::new(),
            held: 0,
        }
    }

    /// The raw partition that the task folds.
    #[must_use]
    pub const fn partition(&self) -> i32 {
        self.partition
    }

    /// The next offset to read.
    #[must_use]
    pub const fn position(&self) -> i64 {
        self.position
    }

    /// The partition clock, ms.
    #[must_use]
    pub const fn clock(&self) -> Option<i64> {
        self.clock
    }

    /// The partition's epoch.
    #[must_use]
    pub const fn epoch(&self) -> i64 {
        self.epoch
    }

    /// How many conversations are in state.
    #[must_use]
    pub fn conversations(&self) -> usize {
        self.conversations.len()
    }

    /// How many records could not move the clock since the task began (see [`crate::clock`]).
    #[must_use]
    pub const fn held(&self) -> u64 {
        self.held
    }

    /// How much the next take is going to hold, at least.
    #[must_use]
    pub fn pending(&self) -> Pending {
        let Ledger {
            dirty_sessions,
            dirty_chunks,
            quarantined_bytes,
            ..
        } = &self.ledger;
        Pending {
            entries: dirty_sessions.len() + dirty_chunks.len(),
            quarantined_bytes: *quarantined_bytes,
        }
    }

    /// Folds one record. Cannot fail: what is wrong with a record is an outcome.
    pub fn apply(&mut self, input: Input<'_>, rules: &Rules) {
        if clock::advance(&mut self.clock, input.appended, input.wall, &rules.seed.time) == Advance::Held {
            self.held += 1;
        }
        // Timers see the position up to this record: what they close does not hold it.
        self.fire(rules);
        self.epoch = self.epoch.max(input.epoch.unwrap_or(0));
        if !input.tick {
            self.fold(input, rules);
        }
        self.position = input.offset + 1;
    }

    fn fire(&mut self, rules: &Rules) {
        let Some(clock) = self.clock else { return };
        while self.ledger.timers.first().is_some_and(|timer| timer.at <= clock) {
            let Some(timer) = self.ledger.timers.pop_first() else {
                return;
            };
            match timer.bucket {
                Some(bucket) => self.forget_marks(&timer.key, bucket),
                None => self.session_timer(timer, rules),
            }
        }
    }

    fn forget_marks(&mut self, key: &str, bucket: i64) {
        let Some(conversation) = self.conversations.get_mut(key) else {
            return;
        };
        for chunk in conversation.marks.expire(bucket) {
            self.ledger.dirty_chunks.insert((key.to_owned(), chunk));
        }
        self.drop_if_empty(key);
    }

    fn drop_if_empty(&mut self, key: &str) {
        if self.conversations.get(key).is_some_and(Conversation::is_empty) {
            self.conversations.swap_remove(key);
        }
    }

    /// Fires, or puts off, a session's timer. A record does not move it: it looks for itself when it is due.
    fn session_timer(&mut self, timer: Timer, rules: &Rules) {
        let Some(session) = self
            .conversations
            .get(&timer.key)
            .and_then(|conversation| conversation.session.as_ref())
        else {
            return;
        };
        let due = deadline(session, rules);
        if due > timer.at {
            self.ledger.timers.insert(Timer { at: due, ..timer });
        } else if session.phase == row::ENDED {
            self.remove_session(&timer.key);
        } else {
            self.end_session(&timer.key, due, rules);
        }
    }

    fn end_session(&mut self, key: &str, due: i64, rules: &Rules) {
        let Some(conversation) = self.conversations.get_mut(key) else {
            return;
        };
        let Some(session) = conversation.session.as_mut() else {
            return;
        };
        session.phase = row::ENDED;
        session.ended_ms = Some(session.last_event_ms);
        session.unpublished = false;
        session.row_clock_ms = self.clock;
        let next = deadline(session, rules);
        let slot = fold::slot(due, self.clock.unwrap_or(due), &rules.seed.time);
        fold::active(&mut self.ledger.deltas, key, session, -1, slot);
        self.rows
            .push(row::of(key, session, self.partition, self.position));
        self.ledger.changed(key, &mut conversation.dirty);
        self.ledger.timers.insert(Timer {
            at: next,
            key: key.to_owned(),
            bucket: None,
        });
    }

    fn remove_session(&mut self, key: &str) {
        if let Some(conversation) = self.conversations.get_mut(key) {
            conversation.session = None;
        }
        self.ledger.dirty_sessions.push(key.to_owned());
        self.drop_if_empty(key);
    }

    /// Takes what follows from the records since the last take. The caller commits it, or drops the task.
    pub fn take(&mut self, rules: &Rules) -> Effects {
        self.publish_open(rules);
        let mut changes = Vec::with_capacity(self.pending().entries);
        self.ledger.quarantined_bytes = 0;
        for key in in_order(&mut self.ledger.dirty_sessions) {
            let conversation = self.conversations.get_mut(&key);
            let session = conversation.and_then(|Conversation { session, dirty, .. }| {
                *dirty = false;
                session.as_ref()
            });
            changes.push(Change {
                value: session.map(Message::encode_to_vec),
                key: format!("s/{key}"),
            });
        }
        for (key, chunk) in std::mem::take(&mut self.ledger.dirty_chunks) {
            let marks = self
                .conversations
                .get(&key)
                .and_then(|conversation| conversation.marks.bytes(chunk));
            let value = marks.map(|marks| MarkChunk { marks }.encode_to_vec());
            changes.push(Change {
                key: format!("m/{}/{}/{key}", chunk.bucket, chunk.number),
                value,
            });
        }
        for (source, mark) in self.origins.changes() {
            changes.push(Change {
                key: format!("i/{source}"),
                value: mark.map(|mark| mark.encode_to_vec()),
            });
        }
        Effects {
            changes,
            rows: std::mem::take(&mut self.rows),
            deltas: self.ledger.deltas.take(),
            quarantined: std::mem::take(&mut self.ledger.quarantined),
        }
    }

    /// Publishes the open sessions that changed, each at the first commit whose clock is far enough past its last row.
    fn publish_open(&mut self, rules: &Rules) {
        let Some(clock) = self.clock else { return };
        let keys = in_order(&mut self.ledger.unpublished);
        // Rows are large: growing step by step would write all of them twice.
        self.rows.reserve(keys.len());
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
            let interval = rules.settings(session.epoch).row_interval_ms;
            if session.row_clock_ms.is_some_and(|last| clock < last + interval) {
                self.ledger.unpublished.push(key);
                continue;
            }
            session.row_clock_ms = Some(clock);
            session.unpublished = false;
            self.rows
                .push(row::of(&key, session, self.partition, self.position));
            self.ledger.changed(&key, &mut conversation.dirty);
        }
    }

    /// Turns resolved deltas into one record for each target partition that needs one, and remembers what was sent.
    ///
    /// A target gets a record when there are deltas for it, and every target does when the clock has passed a mark.
    pub fn seal(&mut self, resolved: DeltaMap, rules: &Rules) -> Vec<(i32, DeltaRecord)> {
        let Some(clock) = self.clock else {
            return Vec::new();
        };
        let mark = clock.div_euclid(rules.seed.time.mark_ms);
        let to_all = self.marked != Some(mark);
        if to_all {
            self.marked = Some(mark);
        }
        let targets = rules.seed.delta_partitions;
        let mut entries: BTreeMap<i32, Vec<DeltaEntry>> = BTreeMap::new();
        for (series, slots) in &resolved {
            let list = entries.entry(target_of(series, targets)).or_default();
            for (slot, amount) in slots {
                let amount = Some(amount.into());
                list.push(DeltaEntry {
                    series: series.clone(),
                    slot: slot.start,
                    late: slot.late,
                    arrival: slot.arrival,
                    amount,
                });
            }
        }
        let mut records = Vec::new();
        for (target, sent) in (0..targets).zip(self.sent.iter_mut()) {
            let deltas = entries.remove(&target).unwrap_or_default();
            if to_all || !deltas.is_empty() {
                let record = DeltaRecord {
                    source: self.partition,
                    previous: *sent,
                    position: self.position,
                    clock,
                    deltas,
                };
                *sent = self.position;
                records.push((target, record));
            }
        }
        records
    }

    /// The meta record that goes with the commit; after [`SessionTask::seal`].
    #[must_use]
    pub fn meta(&self, writer: &str, rules: &Rules) -> Meta {
        Meta {
            position: self.position,
            epoch: self.epoch,
            semantics: rules.settings(self.epoch).semantics,
            writer: writer.to_owned(),
            clock: self.clock,
            sent: self.sent.clone(),
            marked: self.marked,
            final_until: Vec::new(),
            sources: Vec::new(),
        }
    }

    /// Rebuilds a task from its changelog: the meta record and the latest value of every other key, in any order.
    ///
    /// # Errors
    /// An entry that can't be read, or is of no known kind.
    pub fn restore<'c>(
        partition: i32,
        rules: &Rules,
        meta: &Meta,
        entries: impl IntoIterator<Item = (&'c str, &'c [u8])>,
    ) -> Result<Self, RestoreError> {
        let mut task = Self::new(partition, rules, meta.position);
        task.clock = meta.clock;
        task.epoch = meta.epoch;
        task.sent.clone_from(&meta.sent);
        task.marked = meta.marked;
        for (key, value) in entries {
            task.restore_entry(key, value)
                .map_err(|source| RestoreError::Entry {
                    key: key.to_owned(),
                    source,
                })?;
            if !["s/", "m/", "i/"].iter().any(|kind| key.starts_with(kind)) {
                return Err(RestoreError::Key { key: key.to_owned() });
            }
        }
        task.set_timers(rules);
        Ok(task)
    }

    fn restore_entry(&mut self, key: &str, value: &[u8]) -> Result<(), prost::DecodeError> {
        if let Some(conversation) = key.strip_prefix("s/") {
            let session = SessionState::decode(value)?;
            if session.unpublished {
                self.ledger.unpublished.push(conversation.to_owned());
            }
            self.conversations
                .entry(conversation.to_owned())
                .or_default()
                .session = Some(session);
        } else if let Some((id, conversation)) = key.strip_prefix("m/").and_then(chunk_key) {
            let chunk = MarkChunk::decode(value)?;
            self.conversations
                .entry(conversation.to_owned())
                .or_default()
                .marks
                .restore(id, &chunk.marks);
        } else if let Some(source) = key.strip_prefix("i/") {
            self.origins.restore(source, OriginMark::decode(value)?);
        }
        Ok(())
    }

    fn set_timers(&mut self, rules: &Rules) {
        for (key, conversation) in &self.conversations {
            if let Some(session) = &conversation.session {
                self.ledger.timers.insert(Timer {
                    at: deadline(session, rules),
                    key: key.clone(),
                    bucket: None,
                });
            }
            for bucket in conversation.marks.buckets() {
                let at = bucket + marks::BUCKET_MS + rules.seed.time.mark_age_ms;
                self.ledger.timers.insert(Timer {
                    at,
                    key: key.clone(),
                    bucket: Some(bucket),
                });
            }
        }
    }

    /// The rows of the sessions in state as they are now, at most `max`, those with the latest records first.
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
            .map(|(key, session)| row::of(key, session, self.partition, self.position))
            .collect()
    }
}

impl Ledger {
    /// Remembers that a conversation's session changed, unless it is known already.
    fn changed(&mut self, key: &str, dirty: &mut bool) {
        if !std::mem::replace(dirty, true) {
            self.dirty_sessions.push(key.to_owned());
        }
    }
}

/// Takes the keys out, each once, ascending: what a commit holds does not depend on which records came first.
fn in_order(keys: &mut Vec<String>) -> Vec<String> {
    let mut keys = std::mem::take(keys);
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// When a session's timer is due: its end while it is open, its removal once it ended.
fn deadline(session: &SessionState, rules: &Rules) -> i64 {
    let settings = rules.settings(session.epoch);
    session.last_clock_ms
        + if session.phase == row::ENDED {
            settings.reopen_horizon_ms
        } else {
            settings.session_gap_ms
        }
}

/// Reads `bucket/number/conversation`.
fn chunk_key(text: &str) -> Option<(ChunkId, &str)> {
    let mut parts = text.splitn(3, '/');
    let id = ChunkId {
        bucket: parts.next()?.parse().ok()?,
        number: parts.next()?.parse().ok()?,
    };
    Some((id, parts.next()?))
}
