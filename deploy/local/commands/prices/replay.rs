//! Folds raw records with two sets of prices, and adds up what each model cost under both.

use crate::commands::cursor::Cursor;
use processor::runner::{RunError, rules_of};
use processor_core::{Input, Rules, SessionTask, Task};
use processor_log::ReadLog;
use schemas::control::EpochChange;
use schemas::delta::Series;
use schemas::fact::BillingBasis;
use schemas::id::{Epoch, TopicPartition};
use schemas::metric::{Amount, Label, Metric};
use schemas::price::{Book, PriceTable};
use schemas::record::Record;
use schemas::time::AppendTime;
use schemas::topic::Topic;
use std::collections::BTreeMap;

/// The most raw records that one read asks for.
const READ_MAX: usize = 500;

/// What was used of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    /// All tokens of completed responses.
    pub tokens: i64,
    /// The cost of tokens of the API, nano-dollars.
    pub nano_usd: i64,
    /// What tokens of ChatGPT plans would cost as tokens of the API, nano-dollars.
    pub equivalent_nano_usd: i64,
    /// The cost of tokens of ChatGPT plans, millionths of a credit.
    pub micro_credits: i64,
    /// Tokens without a price in dollars.
    pub unpriced_usd: i64,
    /// Tokens without a price in credits.
    pub unpriced_credits: i64,
}

/// What was used, by model.
pub type Usage = BTreeMap<String, Bill>;

/// What the raw log records taken in from `since` on used: under the prices that the control topic put in force, and under
/// those of `table`. Records before `since` are folded too, since later ones may repeat them, and are not counted.
pub fn usage(
    log: &mut dyn ReadLog,
    control: &[Record],
    table: &PriceTable,
    since: AppendTime,
) -> Result<[Usage; 2], RunError> {
    let in_force = rules_of(control)?;
    let as_if = priced_by(&in_force, control, table);
    let mut usage = [Usage::new(), Usage::new()];
    for partition in 0..log.partitions(Topic::RawLogs)? {
        let at = TopicPartition {
            topic: Topic::RawLogs,
            partition,
        };
        fold(log, at, [&in_force, &as_if], since, &mut usage)?;
    }
    Ok(usage)
}

/// The rules of a log with one price table in all epochs.
fn priced_by(in_force: &Rules, control: &[Record], table: &PriceTable) -> Rules {
    let mut seed = in_force.seed.clone();
    seed.prices = table.clone();
    let mut rules = Rules::new(seed);
    for record in control.iter().skip(1) {
        let epoch = Epoch(record.offset);
        if in_force.knows(epoch) {
            let settings = Some(in_force.settings(epoch).clone());
            rules.add(
                epoch,
                EpochChange {
                    settings,
                    ..EpochChange::default()
                },
            );
        }
    }
    rules
}

fn fold(
    log: &mut dyn ReadLog,
    at: TopicPartition,
    rules: [&Rules; 2],
    since: AppendTime,
    usage: &mut [Usage; 2],
) -> Result<(), RunError> {
    let mut cursor = Cursor::at_start(log, at)?;
    let mut tasks = rules.map(|rules| SessionTask::new(at, rules, cursor.next));
    let mut counts = false;
    loop {
        let records = cursor.step(log, READ_MAX)?;
        if records.is_empty() {
            return Ok(());
        }
        for record in &records {
            if !counts && record.appended >= since {
                counts = true;
                for (task, rules) in tasks.iter_mut().zip(rules) {
                    drop(task.take(rules));
                }
            }
            for (task, rules) in tasks.iter_mut().zip(rules) {
                record
                    .offer(|offered| task.apply(Input::of(&offered), rules))
                    .map_err(|source| RunError::Halt {
                        at,
                        offset: record.offset,
                        source,
                    })?;
            }
        }
        for ((task, rules), usage) in tasks.iter_mut().zip(rules).zip(usage.iter_mut()) {
            let effects = task.take(rules);
            if counts {
                for (key, slots) in effects.deltas.map() {
                    slots.values().for_each(|amount| add(usage, key, amount));
                }
            }
        }
    }
}

/// Adds what a series gained to the bill of its model, if the series is about tokens or money.
fn add(usage: &mut Usage, key: &str, amount: &Amount) {
    let (Some(series), Amount::Count(amount)) = (Series::parse(key), amount) else {
        return;
    };
    let value = |wanted: Label| {
        let mut labels = series.labels();
        labels
            .find(|(label, _)| *label == wanted)
            .map_or("", |(_, value)| value)
    };
    let sum: fn(&mut Bill) -> &mut i64 = match series.metric {
        Metric::Tokens => |bill| &mut bill.tokens,
        Metric::Cost if value(Label::BillingBasis) == BillingBasis::ApiList.name() => {
            |bill| &mut bill.nano_usd
        }
        Metric::Cost => |bill| &mut bill.equivalent_nano_usd,
        Metric::Credits => |bill| &mut bill.micro_credits,
        Metric::UnpricedTokens if value(Label::Book) == Book::ApiUsd.name() => |bill| &mut bill.unpriced_usd,
        Metric::UnpricedTokens => |bill| &mut bill.unpriced_credits,
        _ => return,
    };
    let sum = sum(usage.entry(value(Label::Model).to_owned()).or_default());
    *sum = sum.saturating_add(*amount);
}
