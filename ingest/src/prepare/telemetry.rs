//! Counts in the process's metrics how large requests are, and what cleaning changed in them.

use crate::prepare::privacy::Counts;
use crate::telemetry::Series;
use metrics::{Counter, Histogram, Label};
use schemas::event::PRIVATE_KEYS;
use schemas::privacy::{Action, FIELD_COUNT, fields};
use schemas::signal::Signal;

/// The index of span events among the fields of a policy.
const SPAN_EVENTS_AT: usize = PRIVATE_KEYS.len() + 1;

/// The handles of preparation, registered once. It must be made after the metrics recorder is installed.
pub(crate) struct PrepareTelemetry {
    payloads: [Histogram; 3],
    dropped: [Counter; FIELD_COUNT],
    hashed: [Counter; FIELD_COUNT],
    unhashed: [Counter; FIELD_COUNT],
    stripped: Counter,
    span_events: Counter,
    truncated: Counter,
}

/// The counter of what one rule took out of one field. Both labels are of closed sets: the fields of a policy, and the ids
/// of the scrubber's rules.
fn redactions(field: &'static str, rule: &'static str, action: Action) -> Counter {
    Series::Redactions.counter([
        Label::new("field", field),
        Label::new("rule", rule),
        Label::new("action", action.name()),
    ])
}

impl PrepareTelemetry {
    pub fn new() -> Self {
        let fields: Vec<&'static str> = fields().collect();
        let of_fields = |rule, action| std::array::from_fn(|index| redactions(fields[index], rule, action));
        Self {
            payloads: Signal::ALL
                .map(|signal| Series::PayloadBytes.histogram([Label::new("signal", signal.name())])),
            dropped: of_fields("policy", Action::Drop),
            hashed: of_fields("policy", Action::Hash),
            unhashed: of_fields("no_hash_key", Action::Drop),
            stripped: redactions("tacho", "reserved", Action::Drop),
            span_events: Series::SpanEventsRemoved.counter([]),
            truncated: Series::TruncatedValues.counter([]),
        }
    }

    /// Records the size of a request's body after decompression.
    pub fn payload(&self, signal: Signal, bytes: usize) {
        // Bodies are far below 2^32 bytes.
        self.payloads[signal as usize].record(f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)));
    }

    /// Counts log records, spans or data points that were left out of a request.
    pub fn left_out(&self, signal: Signal, count: u64) {
        Series::RejectedRecords
            .counter([Label::new("signal", signal.name())])
            .increment(count);
    }

    /// Counts what cleaning a request changed.
    pub fn cleaned(&self, counts: &Counts) {
        let whole_values = [
            (&self.dropped, &counts.dropped),
            (&self.hashed, &counts.hashed),
            (&self.unhashed, &counts.unhashed),
        ];
        for (counter, &count) in whole_values
            .into_iter()
            .flat_map(|(counters, counts)| counters.iter().zip(counts))
        {
            if count > 0 {
                counter.increment(count);
            }
        }
        for (&(field, rule), &count) in &counts.scrubbed {
            redactions(fields().nth(field).unwrap_or("other"), rule, Action::Scrub).increment(count);
        }
        self.stripped.increment(counts.stripped);
        self.span_events
            .increment(counts.dropped[SPAN_EVENTS_AT] + counts.unhashed[SPAN_EVENTS_AT]);
        self.truncated.increment(counts.truncated);
    }
}
