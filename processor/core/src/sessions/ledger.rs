//! Folds the log records of one raw record into sessions, dedup marks, deltas and rows.
//!
//! Every log record ends in exactly one outcome, which is itself a fact (`tacho_log_records_total`). The
//! questions are asked in this order: has its dedup mark been seen (duplicate), is its event known (unknown),
//! is it late (late), does it derive something but has no mark (unmarked); otherwise it is applied. A raw
//! record that can't be read or has another conversation's key counts as one quarantined record.
//!
//! Only records that derive say something of their session. Records that derive nothing are counted, have no mark, and neither
//! begin nor re-open a session, nor move what it was last.
//!
//! **Lateness** is a property of the record, judged when it is folded. A window [s, e) is closed on a
//! partition when the partition's clock reaches e + grace (30 s). The late level of a record says for how
//! many of the window sizes it came after that. For a size that is not among them the record is part of the
//! final; for one that is, of a correction, keyed by the minute of arrival.
//!
//! **Invariant:** an outcome depends on the records before it on the partition and on the seed, never on when
//! or in which batch it was folded.

use super::identity::{learn, learn_seldom, moves, of_identity};
use super::identity_cache::IdentityCache;
use super::marks::{Added, ChunkId};
use super::on::{self, Event};
use super::parse::{Context, Derived, Parsed, parse};
use super::row::{ENDED, OPEN, REOPENED};
use super::timers::Timer;
use super::{Conversation, SessionTask};
use crate::Rules;
use crate::clock::slot;
use crate::combiner::{Combiner, RecordClass};
use crate::out::Out;
use crate::task::{Input, Pending, Quarantined};
use schemas::delta::Slot;
use schemas::derived::Row;
use schemas::event::EventKind;
use schemas::fact::{Fact, Outcome, TimeSource};
use schemas::id::{Epoch, TopicPartition, can_route, split_raw_key};
use schemas::price::Prices;
use schemas::settings::Seed;
use schemas::state::{Identity, SessionState};
use schemas::time::{EventTime, PartitionClock};
use std::collections::BTreeSet;

/// What folding adds to beside the record's conversation: deltas, rows, timers, quarantined records, and what
/// changed.
#[derive(Clone, Debug)]
pub struct Ledger {
    pub combiner: Combiner,
    pub rows: Vec<Row>,
    pub timers: BTreeSet<Timer>,
    pub quarantined: Vec<Quarantined>,
    pub quarantined_bytes: usize,
    /// Conversations with [`Conversation::dirty`] set, and those whose session was removed; some may be there
    /// twice.
    pub dirty_sessions: Vec<String>,
    pub dirty_chunks: BTreeSet<(String, ChunkId)>,
    /// Conversations with [`SessionState::unpublished`] set; some may be there twice, and some where it is no
    /// longer set.
    pub unpublished: Vec<String>,
    at: TopicPartition,
}

/// Adds a change of the number of open sessions to the series of a session.
pub fn active(combiner: &mut Combiner, key: &str, session: &SessionState, change: i64, slot: Slot) {
    let nobody = Identity::default();
    let dimensions = of_identity(split_raw_key(key).0, session.identity.as_ref().unwrap_or(&nobody));
    combiner.observe(&Fact::SessionsActive { change }, &dimensions, slot);
}

/// A raw record that is being folded, and what its log records are folded with.
struct Folding<'a> {
    input: Input<'a>,
    tenant: &'a str,
    clock: PartitionClock,
    epoch: Epoch,
    rules: &'a Rules,
    /// The prices of the partition's epoch.
    prices: &'a Prices,
    identities: &'a IdentityCache,
    /// The chunk of marks that the last mark went into, which is in [`Ledger::dirty_chunks`] already.
    dirty_chunk: Option<ChunkId>,
}

impl SessionTask {
    /// Folds a raw record that is not a tick.
    pub(super) fn fold(&mut self, input: Input<'_>, rules: &Rules) {
        let Some(clock) = self.clock else { return };
        let (tenant, routed_by) = split_raw_key(input.key);
        let time = &rules.seed.time;
        let context = Context {
            tenant,
            appended: input.appended,
            clock,
            rules: time,
        };
        let records = parse(input.value, context, &mut self.identities);
        if input
            .origin
            .is_some_and(|origin| !self.origins.take(origin, input.offset))
        {
            return self.ledger.repeated(records.ok().as_deref(), context);
        }
        let Ok(records) = records else {
            return self.ledger.quarantine(input, "undecodable", context);
        };
        if records.iter().any(|record| misrouted(record, routed_by)) {
            return self.ledger.quarantine(input, "misrouted", context);
        }
        let mut folding = Folding {
            input,
            tenant,
            clock,
            epoch: self.epoch,
            rules,
            prices: rules.prices(self.epoch),
            identities: &self.identities,
            dirty_chunk: None,
        };
        let mut fold = |conversation: &mut Conversation| {
            for record in &records {
                self.ledger.record(record, &mut folding, conversation);
            }
        };
        if let Some(conversation) = self.conversations.get_mut(input.key) {
            fold(conversation);
        } else {
            let mut conversation = Conversation::default();
            fold(&mut conversation);
            if !conversation.is_empty() {
                self.conversations.insert(input.key.to_owned(), conversation);
            }
        }
    }
}

impl Ledger {
    pub fn new(at: TopicPartition, seed: &Seed) -> Self {
        Self {
            combiner: Combiner::new(seed),
            rows: Vec::new(),
            timers: BTreeSet::new(),
            quarantined: Vec::new(),
            quarantined_bytes: 0,
            dirty_sessions: Vec::new(),
            dirty_chunks: BTreeSet::new(),
            unpublished: Vec::new(),
            at,
        }
    }

    /// Adds a conversation whose session changed to the dirty ones, unless `dirty` says that it is there;
    /// sets `dirty`.
    pub fn changed(&mut self, key: &str, dirty: &mut bool) {
        if !std::mem::replace(dirty, true) {
            self.dirty_sessions.push(key.to_owned());
        }
    }

    /// How much the next take gives, at least.
    pub fn pending(&self) -> Pending {
        let (sessions, chunks) = (self.dirty_sessions.len(), self.dirty_chunks.len());
        Pending {
            entries: sessions + chunks + self.rows.len() + self.unpublished.len(),
            bytes: self.quarantined_bytes + self.combiner.bytes(),
        }
    }

    /// Counts the log records of a raw record that was taken from its origin before, as duplicates. Nothing
    /// else follows from them.
    fn repeated(&mut self, records: Option<&[Parsed<'_>]>, context: Context<'_>) {
        let Some(records) = records else {
            return self.unread(Outcome::Duplicate, context);
        };
        for record in records {
            let slot = slot(record.time, context.clock, context.rules);
            self.combiner
                .count(class_of(record, Outcome::Duplicate), context.tenant, slot);
        }
    }

    fn quarantine(&mut self, input: Input<'_>, reason: &'static str, context: Context<'_>) {
        self.unread(Outcome::Quarantined, context);
        self.quarantined_bytes += input.value.len();
        self.quarantined.push(Quarantined {
            offset: input.offset,
            reason,
            key: input.key.to_owned(),
            value: input.value.to_vec(),
        });
    }

    /// Counts a raw record that can't be folded as one log record, at the time of the clock.
    fn unread(&mut self, outcome: Outcome, context: Context<'_>) {
        let Context { clock, rules, .. } = context;
        let class = RecordClass {
            event: EventKind::Unknown,
            outcome,
            time_source: TimeSource::Received,
            clamped: false,
        };
        let slot = slot(EventTime(clock.0), clock, rules);
        self.combiner.count(class, context.tenant, slot);
    }

    fn record(&mut self, record: &Parsed<'_>, folding: &mut Folding<'_>, conversation: &mut Conversation) {
        let slot = slot(record.time, folding.clock, &folding.rules.seed.time);
        let outcome = self.outcome(record, folding, conversation, slot);
        self.combiner
            .count(class_of(record, outcome), folding.tenant, slot);
        if outcome == Outcome::Duplicate {
            return;
        }
        let Some(derived) = record.derives.as_deref() else {
            return;
        };
        if record.conversation.is_none() || is_stale(record, conversation, folding) {
            let mut identity = Identity::default();
            learn(&mut identity, derived, folding.identities);
            let mut nobody = SessionState::default();
            return self.handle(record, derived, &identity, folding, &mut nobody, slot);
        }
        self.touch(record, derived, folding, conversation, slot);
        let Conversation { session, waits, .. } = conversation;
        let Some(session) = session else { return };
        // A handler does not change who the session is, so the identity is lent to the event instead of being
        // copied.
        let identity = session.identity.take().unwrap_or_default();
        self.handle(record, derived, &identity, folding, session, slot);
        session.identity = Some(identity);
        self.wait_for(folding.input.key, session, waits);
    }

    fn handle(
        &mut self,
        record: &Parsed<'_>,
        derived: &Derived<'_>,
        identity: &Identity,
        folding: &Folding<'_>,
        session: &mut SessionState,
        slot: Slot,
    ) {
        let event = Event {
            record,
            attrs: &derived.attrs,
            identity,
            prices: folding.prices,
        };
        let mut out = Out {
            combiner: &mut self.combiner,
            rows: &mut self.rows,
            slot,
            who: of_identity(folding.tenant, identity),
            at: self.at,
            position: folding.input.position(),
            clock: folding.clock,
            time: &folding.rules.seed.time,
        };
        on::handle(event, session, &mut out);
    }

    /// Sets the timer for what a session waits for, unless an earlier one is set.
    pub fn wait_for(&mut self, key: &str, session: &SessionState, waits: &mut Option<PartitionClock>) {
        let Some(due) = on::waits::due(session) else {
            return;
        };
        if waits.is_none_or(|set| due < set) {
            *waits = Some(due);
            self.timers.insert(Timer::of_waits(key, due));
        }
    }

    /// Decides the outcome of a record, and adds its dedup mark.
    fn outcome(
        &mut self,
        record: &Parsed<'_>,
        folding: &mut Folding<'_>,
        conversation: &mut Conversation,
        slot: Slot,
    ) -> Outcome {
        if let Some(mark) = record.mark {
            let marks_max = folding.rules.seed.time.marks_max;
            match conversation.marks.add(mark, folding.clock, marks_max) {
                Added::Seen => return Outcome::Duplicate,
                Added::New {
                    chunk,
                    first,
                    dropped,
                } => self.marked(chunk, first, dropped, folding),
            }
        }
        if record.event == EventKind::Unknown {
            Outcome::Unknown
        } else if slot.late > 0 {
            Outcome::Late
        } else if record.derives.is_some() && record.mark.is_none() {
            Outcome::Unmarked
        } else {
            Outcome::Applied
        }
    }

    /// Records that a mark went into a chunk, which has to be written, and that another chunk may have been
    /// dropped.
    fn marked(
        &mut self,
        chunk: ChunkId,
        is_first: bool,
        dropped: Option<ChunkId>,
        folding: &mut Folding<'_>,
    ) {
        let key = folding.input.key;
        if is_first {
            self.timers
                .insert(Timer::of_marks(key, chunk.bucket, folding.rules));
        }
        let written = (folding.dirty_chunk != Some(chunk)).then_some(chunk);
        let dirty = written.into_iter().chain(dropped);
        self.dirty_chunks
            .extend(dirty.map(|chunk| (key.to_owned(), chunk)));
        folding.dirty_chunk = Some(chunk);
    }

    /// Starts, continues or re-opens the session of a record.
    fn touch(
        &mut self,
        record: &Parsed<'_>,
        derived: &Derived<'_>,
        folding: &Folding<'_>,
        conversation: &mut Conversation,
        slot: Slot,
    ) {
        let Folding {
            input,
            clock,
            epoch,
            rules,
            ..
        } = *folding;
        let key = input.key;
        self.changed(key, &mut conversation.dirty);
        let phase = conversation.session.as_ref().map(|session| session.phase);
        let last_sender = conversation.last_sender;
        conversation.last_sender = derived.sender.is_interned().then_some(derived.sender);
        let session = conversation
            .session
            .get_or_insert_with(|| begin(record, input.offset));
        session.last_event_ms = session.last_event_ms.max(record.time.0);
        session.last_clock_ms = clock.0;
        session.last_offset = input.offset;
        let renewed = std::mem::replace(&mut session.epoch, epoch.0) != epoch.0;
        if !std::mem::replace(&mut session.unpublished, true) {
            self.unpublished.push(key.to_owned());
        }
        let is_open = phase.is_some_and(|phase| phase != ENDED);
        let is_new = phase.is_none() || last_sender != Some(derived.sender);
        self.identify(derived, folding, session, is_new, is_open, slot);
        session.counts.get_or_insert_default().records += 1;
        if !is_open || renewed {
            // A record need not move its session's timer, which puts itself off when it is due too early. An
            // epoch with a shorter gap makes the session due earlier, so it needs a timer of its own.
            let gap_ms = rules.settings(epoch).session_gap_ms;
            let at = PartitionClock(clock.0.saturating_add(gap_ms));
            self.timers.insert(Timer::of_session(key, at));
        }
        if is_open {
            return;
        }
        if phase.is_none() {
            session.phase = OPEN;
            let identity = session.identity.get_or_insert_default();
            let dimensions = of_identity(folding.tenant, identity);
            self.combiner.observe(&Fact::SessionStarted, &dimensions, slot);
        } else {
            session.phase = REOPENED;
            session.ended_ms = None;
            // Without a time of the last row, the next commit publishes the re-opening.
            session.row_clock_ms = None;
        }
        active(&mut self.combiner, key, session, 1, slot);
    }

    /// Takes over what a record reports of its session. If that changes the series under which an open
    /// session is counted, the session is moved from the old series to the new one.
    fn identify(
        &mut self,
        derived: &Derived<'_>,
        folding: &Folding<'_>,
        session: &mut SessionState,
        is_new: bool,
        is_open: bool,
        slot: Slot,
    ) {
        let key = folding.input.key;
        let moves = is_new
            && is_open
            && session
                .identity
                .as_ref()
                .is_some_and(|identity| moves(identity, derived.sender, folding.identities));
        if moves {
            active(&mut self.combiner, key, session, -1, slot);
        }
        let identity = session.identity.get_or_insert_default();
        if is_new {
            learn(identity, derived, folding.identities);
        } else {
            learn_seldom(identity, &derived.attrs);
        }
        if moves {
            active(&mut self.combiner, key, session, 1, slot);
        }
    }
}

/// Whether a record can't be told from a repetition, since the marks of its time are gone: its session has ended, saw later
/// records, and would be opened again by what it may well have counted. The record counts in totals, and not in the session.
fn is_stale(record: &Parsed<'_>, conversation: &Conversation, folding: &Folding<'_>) -> bool {
    let age_ms = folding.clock.0.saturating_sub(record.time.0);
    age_ms > folding.rules.seed.time.mark_age_ms
        && conversation
            .session
            .as_ref()
            .is_some_and(|session| session.phase == ENDED && record.time.0 <= session.last_event_ms)
}

/// A new session that begins with a record.
fn begin(record: &Parsed<'_>, offset: i64) -> SessionState {
    SessionState {
        segment_start_ms: record.time.0,
        last_event_ms: record.time.0,
        first_offset: offset,
        ..SessionState::default()
    }
}

/// The class of a record, given its outcome.
const fn class_of(record: &Parsed<'_>, outcome: Outcome) -> RecordClass {
    RecordClass {
        event: record.event,
        outcome,
        time_source: record.time_source,
        clamped: record.clamped,
    }
}

/// Whether a record belongs to another conversation than the key of its raw record says. An id that can't be
/// part of a key was replaced by ingest, and is not compared.
fn misrouted(record: &Parsed<'_>, routed_by: &str) -> bool {
    record
        .conversation
        .is_some_and(|id| id != routed_by && can_route(id))
}
