//! Timers by the partition clock: they end sessions, remove ended sessions, end what sessions wait for, and let dedup marks
//! expire.
//!
//! A record does not move its session's timer. A timer that is due looks at the session, and puts itself off
//! if a record has come since it was set.

use super::identity::of_identity;
use super::marks::BUCKET_MS;
use super::on::waits;
use super::{Conversation, SessionTask, ledger, row};
use crate::Rules;
use crate::clock::slot;
use crate::out::Out;
use schemas::derived::Row;
use schemas::id::{Epoch, split_raw_key};
use schemas::state::SessionState;
use schemas::time::{EventTime, PartitionClock};

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// What the session waits for ([`waits`]).
    Waits,
    /// The end of the session, or its removal.
    Session,
    /// The expiry of the marks in the bucket that starts then.
    Marks(PartitionClock),
}

/// A timer. Timers are ordered by time, then key, then purpose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    /// When the timer is due.
    pub at: PartitionClock,
    /// The key of the conversation.
    pub key: String,
    pub purpose: Purpose,
}

impl Timer {
    /// The timer for a bucket of a conversation's marks: due when all marks in it are older than
    /// `mark_age_ms`.
    pub fn of_marks(key: &str, bucket: PartitionClock, rules: &Rules) -> Self {
        let age_ms = BUCKET_MS.saturating_add(rules.seed.time.mark_age_ms);
        Self {
            at: PartitionClock(bucket.0.saturating_add(age_ms)),
            key: key.to_owned(),
            purpose: Purpose::Marks(bucket),
        }
    }

    /// The timer for a conversation's session, due at `at`.
    pub fn of_session(key: &str, at: PartitionClock) -> Self {
        Self {
            at,
            key: key.to_owned(),
            purpose: Purpose::Session,
        }
    }

    /// The timer for what a conversation's session waits for, due at `at`.
    pub fn of_waits(key: &str, at: PartitionClock) -> Self {
        Self {
            at,
            key: key.to_owned(),
            purpose: Purpose::Waits,
        }
    }
}

/// When a session is due: to end while it is open, to be removed once it has ended.
pub fn deadline(session: &SessionState, rules: &Rules) -> PartitionClock {
    let settings = rules.settings(Epoch(session.epoch));
    let wait_ms = if session.phase == row::ENDED {
        settings.reopen_horizon_ms
    } else {
        settings.session_gap_ms
    };
    PartitionClock(session.last_clock_ms.saturating_add(wait_ms))
}

impl SessionTask {
    /// Fires all timers that are due at the clock, in their order.
    pub(super) fn fire_timers(&mut self, rules: &Rules) {
        let Some(clock) = self.clock else { return };
        while self.ledger.timers.first().is_some_and(|timer| timer.at <= clock) {
            let Some(timer) = self.ledger.timers.pop_first() else {
                return;
            };
            match timer.purpose {
                Purpose::Waits => self.waits_due(&timer, rules),
                Purpose::Session => self.session_due(timer, rules),
                Purpose::Marks(bucket) => self.expire_marks(&timer.key, bucket),
            }
        }
    }

    fn expire_marks(&mut self, key: &str, bucket: PartitionClock) {
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

    /// Ends what a session waits for if it is due, and sets the timer for what is left.
    fn waits_due(&mut self, timer: &Timer, rules: &Rules) {
        if let Some(conversation) = self.conversations.get_mut(&timer.key) {
            conversation.waits = None;
        }
        self.end_waits(&timer.key, timer.at, rules);
        let Some(Conversation {
            session: Some(session),
            waits,
            ..
        }) = self.conversations.get_mut(&timer.key)
        else {
            return;
        };
        self.ledger.wait_for(&timer.key, session, waits);
    }

    /// Ends what a session waits for and is due at `now`.
    fn end_waits(&mut self, key: &str, now: PartitionClock, rules: &Rules) {
        let (Some(clock), Some(conversation)) = (self.clock, self.conversations.get_mut(key)) else {
            return;
        };
        let Some(session) = &mut conversation.session else {
            return;
        };
        if waits::due(session).is_none_or(|due| due > now) {
            return;
        }
        let identity = session.identity.take().unwrap_or_default();
        let time = &rules.seed.time;
        let mut out = Out {
            combiner: &mut self.ledger.combiner,
            rows: &mut self.ledger.rows,
            slot: slot(EventTime(now.0.min(clock.0)), clock, time),
            who: of_identity(split_raw_key(key).0, &identity),
            at: self.at,
            position: self.position,
            clock,
            time,
        };
        waits::end(now, rules.prices(self.epoch), session, &mut out);
        session.identity = Some(identity);
        if !std::mem::replace(&mut session.unpublished, true) {
            self.ledger.unpublished.push(key.to_owned());
        }
        self.ledger.changed(key, &mut conversation.dirty);
    }

    /// Ends or removes the session of a timer, or puts the timer off if a record has come since it was set.
    fn session_due(&mut self, timer: Timer, rules: &Rules) {
        let conversation = self.conversations.get(&timer.key);
        let Some(session) = conversation.and_then(|conversation| conversation.session.as_ref()) else {
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

    fn end_session(&mut self, key: &str, due: PartitionClock, rules: &Rules) {
        // Nothing waits beyond the end of its session.
        self.end_waits(key, PartitionClock(i64::MAX), rules);
        let Some(conversation) = self.conversations.get_mut(key) else {
            return;
        };
        let Some(session) = conversation.session.as_mut() else {
            return;
        };
        session.phase = row::ENDED;
        session.ended_ms = Some(session.last_event_ms);
        session.unpublished = false;
        session.row_clock_ms = self.clock.map(|clock| clock.0);
        let next = deadline(session, rules);
        let slot = slot(EventTime(due.0), self.clock.unwrap_or(due), &rules.seed.time);
        ledger::active(&mut self.ledger.combiner, key, session, -1, slot);
        let row = row::of(key, session, self.at, self.position);
        self.ledger.rows.push(Row::Session(Box::new(row)));
        self.ledger.changed(key, &mut conversation.dirty);
        self.ledger.timers.insert(Timer::of_session(key, next));
    }

    fn remove_session(&mut self, key: &str) {
        if let Some(conversation) = self.conversations.get_mut(key) {
            conversation.session = None;
        }
        self.ledger.dirty_sessions.push(key.to_owned());
        self.drop_if_empty(key);
    }

    /// Sets the timers for all sessions and marks in state, after a restore.
    pub(super) fn set_timers(&mut self, rules: &Rules) {
        for (key, conversation) in &mut self.conversations {
            if let Some(session) = &conversation.session {
                let timer = Timer::of_session(key, deadline(session, rules));
                self.ledger.timers.insert(timer);
                self.ledger.wait_for(key, session, &mut conversation.waits);
            }
            for bucket in conversation.marks.buckets() {
                self.ledger.timers.insert(Timer::of_marks(key, bucket, rules));
            }
        }
    }
}
