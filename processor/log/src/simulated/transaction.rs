//! Transactions of the simulated log, as Kafka's coordinator keeps them: open, then decided, then marked, in one partition
//! after the other.
//!
//! A decision is final at once, but its marks arrive in their own time: until then readers of the partition wait.

use super::Brokers;
use super::partition::TransactionId;
use crate::{Commit, LogError};
use schemas::id::{Position, TopicPartition};
use std::collections::BTreeSet;

/// The coordinator aborts what is open for longer, ms of the cluster's clock.
const TIMEOUT_MS: i64 = 10_000;
/// The chance that a late mark arrives when the clock moves, in 1,000.
const ARRIVES: u32 = 300;

/// A place where the end of a transaction is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Marked {
    Partition(TopicPartition),
    /// The group's positions.
    Positions,
}

/// A transaction that is open, or that is decided and has marks on their way.
pub(super) struct Transaction {
    writer: String,
    began_ms: i64,
    positions: Vec<(TopicPartition, Position)>,
    /// Marks that have not arrived.
    left: BTreeSet<Marked>,
    /// Whether it is committed; `None` while it is open.
    decision: Option<bool>,
}

impl Brokers {
    /// Writes a transaction's records and positions, and leaves it open.
    pub(super) fn begin(&mut self, writer: &str, commit: Commit) -> Result<TransactionId, LogError> {
        let id = self.next_transaction;
        self.next_transaction += 1;
        let mut left: BTreeSet<Marked> = commit
            .records()
            .map(|record| Marked::Partition(record.to))
            .collect();
        left.insert(Marked::Positions);
        let positions = commit.positions();
        for record in commit.into_records() {
            let now = self.wall_ms;
            self.partition(record.to)?.put(record, now, Some(id));
        }
        let transaction = Transaction {
            writer: writer.to_owned(),
            began_ms: self.wall_ms,
            positions,
            left,
            decision: None,
        };
        self.transactions.insert(id, transaction);
        Ok(id)
    }

    /// Commits or aborts an open transaction; some of its marks may be late.
    pub(super) fn decide(&mut self, id: TransactionId, is_committed: bool) {
        let Some(transaction) = self.transactions.get_mut(&id) else {
            return;
        };
        transaction.decision = Some(is_committed);
        let (places, late) = (transaction.left.clone(), self.faults.mark_late);
        for place in places {
            if self.random.chance(late) {
                self.happened.late_marks += 1;
            } else {
                self.mark(id, place);
            }
        }
    }

    fn mark(&mut self, id: TransactionId, place: Marked) {
        let Some(transaction) = self.transactions.get_mut(&id) else {
            return;
        };
        let is_committed = transaction.decision == Some(true);
        transaction.left.remove(&place);
        match place {
            Marked::Partition(at) => self.partitions.entry(at).or_default().mark(id, is_committed),
            Marked::Positions if is_committed => self.positions.extend(transaction.positions.iter().copied()),
            Marked::Positions => {}
        }
        if transaction.left.is_empty() {
            self.transactions.remove(&id);
        }
    }

    /// Marks of decided transactions that are on their way.
    fn late(&self, which: impl Fn(&Transaction) -> bool) -> Vec<(TransactionId, Marked)> {
        let decided = self
            .transactions
            .iter()
            .filter(|(_, transaction)| transaction.decision.is_some() && which(transaction));
        decided
            .flat_map(|(id, transaction)| transaction.left.iter().map(|place| (*id, *place)))
            .collect()
    }

    /// Brings all marks of a writer's decided transactions: its next transaction waits for that.
    pub(super) fn complete(&mut self, writer: &str) {
        self.late(|transaction| transaction.writer == writer)
            .into_iter()
            .for_each(|(id, place)| self.mark(id, place));
    }

    /// Brings all marks that are late.
    pub(super) fn bring_marks(&mut self) {
        self.late(|_| true)
            .into_iter()
            .for_each(|(id, place)| self.mark(id, place));
    }

    /// Fences a writer: its handles so far are of no use any more, and the transactions that it left open are aborted. The
    /// number of its next handle.
    pub(super) fn fence(&mut self, writer: &str) -> u64 {
        let epoch = self.epochs.entry(writer.to_owned()).or_default();
        *epoch += 1;
        let epoch = *epoch;
        let open = |transaction: &Transaction| transaction.writer == writer && transaction.decision.is_none();
        let ids: Vec<TransactionId> = self
            .transactions
            .iter()
            .filter(|(_, one)| open(one))
            .map(|(id, _)| *id)
            .collect();
        ids.into_iter().for_each(|id| self.decide(id, false));
        epoch
    }

    /// Lets some time pass: late marks arrive, and transactions that are open for too long are aborted.
    pub(super) fn pass(&mut self) {
        let now = self.wall_ms;
        let is_overdue = |transaction: &&Transaction| {
            transaction.decision.is_none() && now - transaction.began_ms > TIMEOUT_MS
        };
        let overdue: BTreeSet<String> = self
            .transactions
            .values()
            .filter(is_overdue)
            .map(|one| one.writer.clone())
            .collect();
        for writer in overdue {
            self.fence(&writer);
        }
        for (id, place) in self.late(|_| true) {
            if self.random.chance(ARRIVES) {
                self.mark(id, place);
            }
        }
    }

    /// Makes a partition readable up to its end, as a reader that waits: late marks arrive, dead writers are fenced.
    pub(super) fn wait_for_partition(&mut self, at: TopicPartition) -> Result<(), LogError> {
        let held_up_by = self.partition(at)?.unmarked();
        self.wait_for(held_up_by, Marked::Partition(at));
        Ok(())
    }

    /// Makes the group's positions of these partitions stable, as a reader that waits: late marks arrive, dead writers are
    /// fenced.
    pub(super) fn wait_for_positions(&mut self, at: &[TopicPartition]) {
        let includes = |transaction: &Transaction| {
            transaction
                .positions
                .iter()
                .any(|(included, _)| at.contains(included))
        };
        let unstable = self
            .transactions
            .iter()
            .filter(|(_, one)| one.left.contains(&Marked::Positions) && includes(one));
        let unstable: Vec<TransactionId> = unstable.map(|(id, _)| *id).collect();
        self.wait_for(unstable, Marked::Positions);
    }

    fn wait_for(&mut self, transactions: Vec<TransactionId>, place: Marked) {
        for id in transactions {
            let open = self
                .transactions
                .get(&id)
                .filter(|transaction| transaction.decision.is_none());
            if let Some(writer) = open.map(|transaction| transaction.writer.clone()) {
                self.happened.fenced += 1;
                self.fence(&writer);
            }
            if self
                .transactions
                .get(&id)
                .is_some_and(|transaction| transaction.left.contains(&place))
            {
                self.happened.waits += 1;
                self.mark(id, place);
            }
        }
    }
}
