//! `tacho prices check`: whether a price table is right, and what it would change.
//!
//! Nothing is applied. The raw records of the last days are folded twice: with the prices that were in force, epoch by
//! epoch, and with those of the file for all of them. Hence the numbers are those of a second derivation, duplicates left
//! out, and money that was counted before raw records were deleted is not in them.

mod replay;

use crate::commands::control::change_in;
use crate::commands::failed;
use crate::commands::read::source;
use crate::place::{Env, Place, PlaceArgs};
use processor::runner::RunError;
use processor::sink::prometheus::exact;
use processor_log::LogError;
use processor_log::control::CONTROL;
use processor_log::follow::Follower;
use replay::{Bill, Usage, usage};
use schemas::metric::Unit;
use schemas::price::PriceTable;
use schemas::time::AppendTime;
use serde_json::{Value, json};
use settings::process::Failure;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// The most days that can be looked at: raw records are kept for seven.
const DAYS_MAX: u32 = 7;
/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// The flags of `tacho prices`.
#[derive(Debug, clap::Args)]
pub struct PricesArgs {
    #[command(subcommand)]
    command: PricesCommand,
}

#[derive(Debug, clap::Subcommand)]
enum PricesCommand {
    /// Checks a price table, names all of its faults, and prints what it would change, model by model. Applies nothing.
    Check {
        /// A file with `[prices]` as in deploy/prices.toml.
        file: PathBuf,
        /// Prices what came in over so many days, 7 at most.
        #[arg(long, value_name = "DAYS", default_value_t = DAYS_MAX)]
        days: u32,
        /// Prints one JSON object a line.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: PlaceArgs,
    },
}

/// What to check.
#[derive(Debug, PartialEq, Eq)]
pub struct PricesOptions {
    table: PriceTable,
    days: u32,
    json: bool,
    place: Place,
}

impl PricesArgs {
    /// Everything that follows from the flags. What is wrong with them or with the file is added to `faults`.
    pub fn options(self, env: &Env, faults: &mut Vec<String>) -> Option<PricesOptions> {
        let PricesCommand::Check { file, days, json, at } = self.command;
        if !(1..=DAYS_MAX).contains(&days) {
            faults.push(format!(
                "--days {days} must be 1 to {DAYS_MAX}: raw records are kept no longer"
            ));
        }
        let change = change_in(&file, faults);
        let place = at.resolve(env, faults);
        let prices = change?.prices;
        if prices.is_none() {
            faults.push(format!("{}: there is no table [prices]", file.display()));
        }
        Some(PricesOptions {
            table: prices?,
            days,
            json,
            place: place?,
        })
    }
}

/// Why a price table was not checked.
#[derive(Debug, thiserror::Error)]
enum PricesError {
    /// The log can't be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The control topic does not hold what it should.
    #[error(transparent)]
    Rules(#[from] RunError),
}

/// Prints what the prices of the file would change.
///
/// # Errors
/// The log can't be opened or read, or its control topic holds no settings.
pub fn run(options: &PricesOptions) -> Result<(), Failure> {
    let compared = compare(options)?;
    if options.json {
        compared
            .iter()
            .for_each(|(model, [now, then])| println!("{}", line(model, now, then)));
    } else {
        print!("{}", table(options, &compared));
    }
    Ok(())
}

/// What was used of each model, under the prices in force and under those of the file.
type Compared = BTreeMap<String, [Bill; 2]>;

fn compare(options: &PricesOptions) -> Result<Compared, Failure> {
    let mut log = source::open(&options.place)?;
    let mut read = || -> Result<[Usage; 2], PricesError> {
        let control = Follower::new(CONTROL).collect(log.as_mut())?;
        let now_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        let since = AppendTime(now_ms.saturating_sub(i64::from(options.days) * DAY_MS));
        Ok(usage(log.as_mut(), &control, &options.table, since)?)
    };
    let [now, then] = read().map_err(failed)?;
    let models: BTreeSet<String> = now.keys().chain(then.keys()).cloned().collect();
    let of = |usage: &Usage, model: &str| usage.get(model).cloned().unwrap_or_default();
    Ok(models
        .into_iter()
        .map(|model| {
            let bills = [of(&now, &model), of(&then, &model)];
            (model, bills)
        })
        .collect())
}

/// An amount of nano-dollars or millionths of a credit as a decimal, for either sign.
fn amount(sub_units: i64, unit: Unit) -> String {
    let sign = if sub_units < 0 { "-" } else { "" };
    format!("{sign}{}", exact(sub_units.unsigned_abs(), unit.per()))
}

/// One model as JSON. Amounts are integers, as in rows.
fn line(model: &str, now: &Bill, then: &Bill) -> Value {
    let bill = |bill: &Bill| {
        json!({
            "cost_nano_usd": bill.nano_usd,
            "equivalent_nano_usd": bill.equivalent_nano_usd,
            "micro_credits": bill.micro_credits,
            "unpriced_tokens_api_usd": bill.unpriced_usd,
            "unpriced_tokens_chatgpt_credits": bill.unpriced_credits,
        })
    };
    json!({"model": model, "tokens": now.tokens, "in_force": bill(now), "file": bill(then)})
}

/// The comparison as a table for people.
fn table(options: &PricesOptions, compared: &Compared) -> String {
    let mut out = format!(
        "version {:?}, {} rows, no fault; what came in over the last {} days, at the prices in force and at these:\n\n",
        options.table.version,
        options.table.rows.len(),
        options.days
    );
    let mut rows = vec![["model", "what", "tokens", "in force", "these", "difference"].map(str::to_owned)];
    for (model, [now, then]) in compared {
        let mut row = |what: &str, now_units: i64, then_units: i64, unit: Unit| {
            if (now_units, then_units) != (0, 0) {
                rows.push([
                    model.clone(),
                    what.to_owned(),
                    now.tokens.to_string(),
                    amount(now_units, unit),
                    amount(then_units, unit),
                    amount(then_units.saturating_sub(now_units), unit),
                ]);
            }
        };
        row("USD", now.nano_usd, then.nano_usd, Unit::Usd);
        row(
            "USD of plans",
            now.equivalent_nano_usd,
            then.equivalent_nano_usd,
            Unit::Usd,
        );
        row("credits", now.micro_credits, then.micro_credits, Unit::Credits);
        row(
            "tokens without USD",
            now.unpriced_usd,
            then.unpriced_usd,
            Unit::Tokens,
        );
        row(
            "tokens without credits",
            now.unpriced_credits,
            then.unpriced_credits,
            Unit::Tokens,
        );
    }
    if rows.len() == 1 {
        out.push_str("no tokens were used\n");
        return out;
    }
    let widths: [usize; 6] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
    for row in &rows {
        let mut text = String::new();
        for (column, cell) in row.iter().enumerate() {
            // Names are on the left of their columns, numbers on the right.
            let _ = if column < 2 {
                write!(text, "{cell:<width$}  ", width = widths[column])
            } else {
                write!(text, "{cell:>width$}  ", width = widths[column])
            };
        }
        let _ = writeln!(out, "{}", text.trim_end());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> PricesOptions {
        PricesOptions {
            table: PriceTable::shipped(),
            days: 7,
            json: false,
            place: Place::Temporary,
        }
    }

    #[test]
    fn a_table_has_a_line_for_each_amount_and_says_the_difference() {
        let bill = |nano_usd| Bill {
            tokens: 3_000_000,
            nano_usd,
            unpriced_credits: 12,
            ..Bill::default()
        };
        let (now, then) = (bill(1_500_000_000), bill(1_250_000_001));
        let text = table(&options(), &Compared::from([("gpt-5.5".to_owned(), [now, then])]));
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "model    what                     tokens  in force        these    difference",
                "gpt-5.5  USD                     3000000       1.5  1.250000001  -0.249999999",
                "gpt-5.5  tokens without credits  3000000        12           12             0",
            ]
        );
        assert!(table(&options(), &Compared::new()).ends_with("no tokens were used\n"));
    }
}
