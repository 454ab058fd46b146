//! Timers by the partition clock: they end sessions, remove ended sessions, and let dedup marks expire.
//!
//! A record does not move its session's timer. A timer that is due looks at the session, and puts itself off
//! if a record has come since it was set.

use super::marks::BUCKET_MS;
use super::{Conversation, SessionTask, ledger, row};
use crate::Rules;
use crate::clock::slot;
use schemas::derived::Row;
use schemas::id::Epoch;
use schemas::state::SessionState;
use schemas::time::{EventTime, PartitionClock};

/// A timer. Timers are ordered by time, then key, then bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    /// When the timer is due.
    pub at: PartitionClock,
    /// The key of the conversation.
    pub key: String,
    /// The start of the bucket of marks that expires; `None` for the timer of the session.
    pub bucket: Option<PartitionClock>,
}

impl Timer {
    /// The timer for a bucket of a conversation's marks: due when all marks in it are older than
    /// `mark_age_ms`.
    pub fn of_marks(key: &str, bucket: PartitionClock, rules: &Rules) -> Self {
        let age_ms = BUCKET_MS.saturating_add(rules.seed.time.mark_age_ms);
        Self {
            at: PartitionClock(bucket.0.saturating_add(age_ms)),
            key: key.to_owned(),
            bucket: Some(bucket),
        }
    }

    /// The timer for a conversation's session, due at `at`.
    pub fn of_session(key: &str, at: PartitionClock) -> Self {
        Self {
            at,
            key: key.to_owned(),
            bucket: None,
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
            match timer.bucket {
                Some(bucket) => self.expire_marks(&timer.key, bucket),
                None => self.session_due(timer, rules),
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
        for (key, conversation) in &self.conversations {
            if let Some(session) = &conversation.session {
                let timer = Timer::of_session(key, deadline(session, rules));
                self.ledger.timers.insert(timer);
            }
            for bucket in conversation.marks.buckets() {
                self.ledger.timers.insert(Timer::of_marks(key, bucket, rules));
            }
        }
    }
}
