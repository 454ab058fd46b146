//! The walker: goes through a request by its tables and rewrites what a rule changes.

use super::table::{self, Holds, Message};
use super::{Counts, DEPTH_MAX, PrivacyError, TRACE_SAFE, extract, trim};
use crate::signal::Signal;
use crate::wire::{Field, Fields, Patch, Wire, WireError, any_text, int_attribute, key_and_value, text_attribute};
use schemas::event::{Attr, OWN_PREFIX, PRIVATE_KEYS};
use schemas::privacy::Kept;

const LOG_ATTRIBUTES: u32 = 6;
const LOG_BODY: u32 = 5;
const SPAN_ATTRIBUTES: u32 = 9;
const SPAN_EVENT_ATTRIBUTES: u32 = 3;

/// What a field becomes.
enum Edit {
    Keep,
    Remove,
    Replace(Vec<u8>),
}

impl From<Option<Vec<u8>>> for Edit {
    fn from(rewritten: Option<Vec<u8>>) -> Self {
        rewritten.map_or(Self::Keep, Self::Replace)
    }
}

/// The state of one pass over one request.
pub(super) struct Walker {
    kept: Kept,
    pub counts: Counts,
    /// Size of the removed body of the log record that is being walked.
    body_bytes: Option<u64>,
}

impl Walker {
    pub fn new(kept: Kept) -> Self {
        Self { kept, counts: Counts::default(), body_bytes: None }
    }

    /// The rewritten request, or nothing where nothing changed.
    pub fn request(&mut self, signal: Signal, request: &[u8]) -> Result<Option<Vec<u8>>, PrivacyError> {
        self.message(table::request(signal), request, 1)
    }

    fn message(&mut self, table: &'static Message, input: &[u8], depth: usize) -> Result<Option<Vec<u8>>, PrivacyError> {
        if depth > DEPTH_MAX {
            return Err(WireError::TooDeep.into());
        }
        let mut patch = Patch::new(input);
        for field in Fields::new(input) {
            let field = field?;
            let edit = match table.holds(field.number) {
                Some(holds) => self.field(holds, &field, depth + 1)?,
                None => Edit::Keep,
            };
            match edit {
                Edit::Keep => patch.keep(&field),
                Edit::Remove => patch.remove(&field),
                Edit::Replace(payload) => patch.replace(&field, &payload),
            }
        }
        Ok(patch.finish())
    }

    fn field(&mut self, holds: Holds, field: &Field<'_>, depth: usize) -> Result<Edit, PrivacyError> {
        match holds {
            Holds::Varint => is(field, Wire::Varint),
            Holds::Fixed64 => is(field, Wire::Fixed64),
            Holds::Fixed32 => is(field, Wire::Fixed32),
            Holds::Bytes => is(field, Wire::Len),
            Holds::ManyFixed64 => many_fixed64(field),
            Holds::ManyVarint => many_varint(field),
            Holds::Text => {
                std::str::from_utf8(field.len_payload()?).map_err(|_| WireError::Utf8)?;
                Ok(Edit::Keep)
            }
            Holds::Message(table) => Ok(self.message(table, field.len_payload()?, depth)?.into()),
            Holds::Attribute => self.attribute(field.len_payload()?, depth),
            Holds::LogRecord => Ok(self.log_record(field.len_payload()?, depth)?.into()),
            Holds::Body => self.body(field.len_payload()?, depth),
            Holds::Span => self.span(field.len_payload()?, depth),
            Holds::SpanEvent => self.span_event(field.len_payload()?, depth),
        }
    }

    /// Checks the form of what will not be written, without counting what is in it.
    fn check(&mut self, table: &'static Message, input: &[u8], depth: usize) -> Result<(), PrivacyError> {
        let counts = self.counts;
        self.message(table, input, depth)?;
        self.counts = counts;
        Ok(())
    }

    fn attribute(&mut self, key_value: &[u8], depth: usize) -> Result<Edit, PrivacyError> {
        let (key, value) = key_and_value(key_value)?;
        if key.starts_with(OWN_PREFIX.as_bytes()) {
            self.check(&table::KEY_VALUE, key_value, depth)?;
            self.counts.stripped += 1;
            return Ok(Edit::Remove);
        }
        let private = PRIVATE_KEYS.iter().position(|private| private.as_bytes() == key);
        if let Some(index) = private.filter(|index| !self.kept.key(*index)) {
            self.check(&table::KEY_VALUE, key_value, depth)?;
            self.counts.removed[index] += 1;
            let bytes = value.map_or(Ok(0), text_bytes)?;
            return Ok(Edit::Replace(int_attribute(&format!("{OWN_PREFIX}{}.bytes", PRIVATE_KEYS[index]), bytes)));
        }
        Ok(self.message(&table::KEY_VALUE, key_value, depth)?.into())
    }

    fn log_record(&mut self, record: &[u8], depth: usize) -> Result<Option<Vec<u8>>, PrivacyError> {
        self.body_bytes = None;
        let rewritten = self.message(&table::LOG_RECORD, record, depth)?;
        let facts = extract::facts(record)?;
        let mut added = Vec::new();
        if let Some(bytes) = self.body_bytes.take() {
            added.push(int_attribute("tacho.body.bytes", bytes));
        }
        if let Some(code) = facts.exit_code {
            added.push(int_attribute(Attr::TachoExitCode.key(), code.cast_unsigned()));
        }
        if let Some(agent) = &facts.spawned_agent {
            added.push(text_attribute(Attr::TachoSpawnedAgent.key(), agent));
        }
        if let Some(shape) = &facts.command_shape {
            added.push(text_attribute(Attr::TachoCommandShape.key(), shape));
        }
        let extended = if added.is_empty() {
            rewritten
        } else {
            let mut out = rewritten.unwrap_or_else(|| record.to_vec());
            for attribute in &added {
                crate::wire::put_len(&mut out, LOG_ATTRIBUTES, attribute);
            }
            Some(out)
        };
        self.fit(record, extended, LOG_ATTRIBUTES, Some(LOG_BODY))
    }

    fn span(&mut self, span: &[u8], depth: usize) -> Result<Edit, PrivacyError> {
        let rewritten = self.message(&table::SPAN, span, depth)?;
        Ok(self.fit(span, rewritten, SPAN_ATTRIBUTES, None)?.into())
    }

    /// Cuts long texts where the record is over the limit.
    fn fit(
        &mut self,
        original: &[u8],
        rewritten: Option<Vec<u8>>,
        attributes: u32,
        body: Option<u32>,
    ) -> Result<Option<Vec<u8>>, PrivacyError> {
        let (cut, count) = match trim::fit(rewritten.as_deref().unwrap_or(original), attributes, body)? {
            None => return Ok(rewritten),
            Some(cut) => cut,
        };
        self.counts.truncated += count;
        Ok(Some(cut))
    }

    fn body(&mut self, any: &[u8], depth: usize) -> Result<Edit, PrivacyError> {
        if self.kept.body() || !holds_text(any, depth)? {
            return Ok(self.message(&table::ANY_VALUE, any, depth)?.into());
        }
        self.check(&table::ANY_VALUE, any, depth)?;
        self.counts.bodies += 1;
        self.body_bytes = Some(self.body_bytes.unwrap_or(0) + text_bytes(any)?);
        Ok(Edit::Remove)
    }

    fn span_event(&mut self, event: &[u8], depth: usize) -> Result<Edit, PrivacyError> {
        if self.kept.span_events() || is_trace_safe(event)? {
            return Ok(self.message(&table::SPAN_EVENT, event, depth)?.into());
        }
        self.check(&table::SPAN_EVENT, event, depth)?;
        self.counts.span_events += 1;
        Ok(Edit::Remove)
    }
}

fn is(field: &Field<'_>, wire: Wire) -> Result<Edit, PrivacyError> {
    if field.wire == wire { Ok(Edit::Keep) } else { Err(WireError::WireType.into()) }
}

fn many_fixed64(field: &Field<'_>) -> Result<Edit, PrivacyError> {
    match field.wire {
        Wire::Fixed64 => Ok(Edit::Keep),
        Wire::Len if field.payload.len().is_multiple_of(8) => Ok(Edit::Keep),
        Wire::Len => Err(WireError::Truncated.into()),
        _ => Err(WireError::WireType.into()),
    }
}

fn many_varint(field: &Field<'_>) -> Result<Edit, PrivacyError> {
    match field.wire {
        Wire::Varint => Ok(Edit::Keep),
        Wire::Len => {
            let mut rest = field.payload;
            while !rest.is_empty() {
                rest = &rest[crate::wire::varint(rest)?.1..];
            }
            Ok(Edit::Keep)
        }
        _ => Err(WireError::WireType.into()),
    }
}

/// The length of a text; of anything else, its size as encoded.
fn text_bytes(any: &[u8]) -> Result<u64, WireError> {
    Ok(any_text(any)?.map_or(any.len(), str::len) as u64)
}

/// Whether a value holds a string or bytes at any depth, keys of lists left aside.
fn holds_text(any: &[u8], depth: usize) -> Result<bool, WireError> {
    if depth > DEPTH_MAX {
        return Err(WireError::TooDeep);
    }
    for field in Fields::new(any) {
        let field = field?;
        let found = match field.number {
            1 | 7 => true,
            5 => list_holds_text(field.len_payload()?, depth + 1)?,
            6 => pairs_hold_text(field.len_payload()?, depth + 1)?,
            _ => false,
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

fn list_holds_text(list: &[u8], depth: usize) -> Result<bool, WireError> {
    for value in Fields::new(list) {
        let value = value?;
        if value.number == 1 && holds_text(value.len_payload()?, depth + 1)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn pairs_hold_text(list: &[u8], depth: usize) -> Result<bool, WireError> {
    for pair in Fields::new(list) {
        let pair = pair?;
        if pair.number != 1 {
            continue;
        }
        for field in Fields::new(pair.len_payload()?) {
            let field = field?;
            if field.number == 2 && holds_text(field.len_payload()?, depth + 2)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether a span event names a safe target, and no other one beside it.
fn is_trace_safe(event: &[u8]) -> Result<bool, WireError> {
    let mut safe = false;
    for field in Fields::new(event) {
        let field = field?;
        if field.number != SPAN_EVENT_ATTRIBUTES {
            continue;
        }
        let (key, value) = key_and_value(field.len_payload()?)?;
        if key == b"target" {
            safe = match value.map(any_text).transpose()?.flatten().and_then(|target| target.strip_prefix(TRACE_SAFE)) {
                Some(rest) => rest.is_empty() || rest.starts_with(['.', ':']),
                None => false,
            };
            if !safe {
                return Ok(false);
            }
        }
    }
    Ok(safe)
}
