//! Walks through a request by the tables of its messages, and rewrites what the policy changes.

use super::extract::Seen;
use super::table::{self, Holds, Message};
use super::texts::{holds_text, is_trace_safe, text_bytes};
use super::{Counts, DEPTH_MAX, PrivacyError, trim};
use crate::prepare::conversation::Conversations;
use crate::prepare::hash::HashKey;
use crate::prepare::scrub::Scrubber;
use crate::prepare::wire::{
    Edit, Field, Fields, Pair, Patch, Wire, WireError, any_text, int_attribute, key_and_value, put_len,
    text_attribute,
};
use schemas::event::{Attr, OWN_PREFIX, PRIVATE_KEYS, is_public};
use schemas::privacy::{Action, Actions};
use schemas::signal::Signal;

const LOG_ATTRIBUTES: u32 = 6;
const LOG_BODY: u32 = 5;
const SPAN_ATTRIBUTES: u32 = 9;
const BODY_FIELD: usize = PRIVATE_KEYS.len();
const EVENTS_FIELD: usize = PRIVATE_KEYS.len() + 1;
const SPANS_FIELD: usize = PRIVATE_KEYS.len() + 2;

/// Attributes of spans whose short values are no texts: names of Codex' own code, threads and models, which its tracing puts
/// on each span, and ids.
const SPAN_NAMES: [&[u8]; 14] = [
    b"target",
    b"thread.name",
    b"thread.id",
    b"code.file.path",
    b"code.module.name",
    b"code.filepath",
    b"code.namespace",
    b"conversation.id",
    b"turn.id",
    b"turn_id",
    b"call_id",
    b"model",
    b"otel.kind",
    b"codex.turn.phase",
];
/// Longest value of such an attribute, in bytes; a longer one counts as a text.
const SPAN_NAME_BYTES_MAX: usize = 128;

/// The state of one pass over one request.
pub(super) struct Walker<'k> {
    actions: Actions,
    key: Option<&'k HashKey>,
    pub counts: Counts,
    /// The conversations of the log records so far.
    pub conversations: Conversations,
    /// Whether only the form is checked, because what is walked will not be written.
    checking: bool,
    /// The field of the policy whose texts are being scrubbed.
    scrubbing: Option<usize>,
    /// The size of the body that was removed from the log record that is being walked, in bytes.
    body_bytes: Option<u64>,
}

impl<'k> Walker<'k> {
    pub fn new(actions: Actions, key: Option<&'k HashKey>) -> Self {
        Self {
            actions,
            key,
            counts: Counts::default(),
            conversations: Conversations::default(),
            checking: false,
            scrubbing: None,
            body_bytes: None,
        }
    }

    /// The rewritten request; none where nothing changed.
    pub fn request(&mut self, signal: Signal, request: &[u8]) -> Result<Option<Vec<u8>>, PrivacyError> {
        self.message(table::request(signal), request, 1)
    }

    fn message(
        &mut self,
        table: &'static Message,
        input: &[u8],
        depth: usize,
    ) -> Result<Option<Vec<u8>>, PrivacyError> {
        if depth > DEPTH_MAX {
            return Err(WireError::TooDeep.into());
        }
        let (mut patch, mut fields) = (Patch::new(input), Fields::new(input));
        while let Some(field) = fields.good() {
            match table.holds(field.number) {
                Some(holds) => patch.edit(&field, self.field(holds, &field, depth + 1)?),
                None => patch.keep(&field),
            }
        }
        fields.end()?;
        Ok(patch.finish())
    }

    fn field(&mut self, holds: Holds, field: &Field<'_>, depth: usize) -> Result<Edit, PrivacyError> {
        match holds {
            Holds::Varint => is(field, Wire::Varint),
            Holds::Fixed64 => is(field, Wire::Fixed64),
            Holds::Fixed32 => is(field, Wire::Fixed32),
            Holds::Bytes => {
                is(field, Wire::Len)?;
                let scrubbed = self
                    .scrubbing
                    .and_then(|_| Scrubber::shared().scrub_bytes(field.payload));
                Ok(self.scrubbed(scrubbed))
            }
            Holds::ManyFixed64 => many_fixed64(field),
            Holds::ManyVarint => many_varint(field),
            Holds::Text => {
                let text = utf8(field)?;
                let scrubbed = self.scrubbing.and_then(|_| Scrubber::shared().scrub(text));
                Ok(self.scrubbed(scrubbed.map(|(text, rules)| (text.into_bytes(), rules))))
            }
            Holds::Message(table) => Ok(self.message(table, field.len_payload()?, depth)?.into()),
            Holds::Attribute => self.attribute(&Pair::of(field.len_payload()?)?, depth),
            Holds::SpanAttribute => self.span_attribute(field.len_payload()?, depth),
            Holds::SpanText => self.span_text(field),
            Holds::LogRecord => Ok(self.log_record(field.len_payload()?, depth)?.into()),
            Holds::Body => self.body(field.len_payload()?, depth),
            Holds::Span => self.span(field.len_payload()?, depth),
            Holds::SpanEvent => self.span_event(field.len_payload()?, depth),
        }
    }

    /// Checks the form of a message that will not be written, without counting what is in it.
    fn check(&mut self, table: &'static Message, input: &[u8], depth: usize) -> Result<(), PrivacyError> {
        let before = (std::mem::replace(&mut self.checking, true), self.scrubbing.take());
        let checked = self.message(table, input, depth);
        (self.checking, self.scrubbing) = before;
        checked.map(drop)
    }

    /// Walks a message with all texts in it scrubbed, as part of that field of the policy.
    fn scrub(
        &mut self,
        field: usize,
        table: &'static Message,
        input: &[u8],
        depth: usize,
    ) -> Result<Option<Vec<u8>>, PrivacyError> {
        let before = self.scrubbing.replace(field);
        let walked = self.message(table, input, depth);
        self.scrubbing = before;
        walked
    }

    /// Counts what the scrubber found, and gives the edit that puts its result in place.
    fn scrubbed(&mut self, scrubbed: Option<(Vec<u8>, Vec<&'static str>)>) -> Edit {
        let (Some((payload, rules)), Some(field)) = (scrubbed, self.scrubbing) else {
            return Edit::Keep;
        };
        for rule in rules {
            *self.counts.scrubbed.entry((field, rule)).or_default() += 1;
        }
        Edit::Replace(payload)
    }

    /// The action of a field of the policy: a hash without a key is a drop. Counts the value where the action takes all of it.
    fn action(&mut self, field: usize) -> Action {
        let action = self.actions.at(field);
        let (action, counter) = match (action, self.key) {
            (Action::Drop, _) => (Action::Drop, &mut self.counts.dropped),
            (Action::Hash, None) => (Action::Drop, &mut self.counts.unhashed),
            (Action::Hash, Some(_)) => (Action::Hash, &mut self.counts.hashed),
            (action, _) => return action,
        };
        counter[field] += 1;
        action
    }

    fn hash_key(&self) -> &'k HashKey {
        self.key.expect("an action is a hash only where there is a key")
    }

    /// An encoded `AnyValue` with the hash of another one: of the bytes of a text, or of the encoding of anything else.
    fn hash(&self, any: &[u8]) -> Result<Vec<u8>, WireError> {
        let hash = self.hash_key().hash(any_text(any)?.map_or(any, str::as_bytes));
        let mut out = Vec::with_capacity(hash.len() + 2);
        put_len(&mut out, 1, hash.as_bytes());
        Ok(out)
    }

    /// An attribute with that key, and the hash of a value in its place.
    fn hashed(&self, key: &[u8], value: &[u8]) -> Result<Vec<u8>, WireError> {
        let (any, mut out) = (self.hash(value)?, Vec::new());
        put_len(&mut out, 1, key);
        put_len(&mut out, 2, &any);
        Ok(out)
    }

    fn attribute(&mut self, pair: &Pair<'_>, depth: usize) -> Result<Edit, PrivacyError> {
        if self.checking {
            return self.kept(pair, depth);
        }
        if pair.key.starts_with(OWN_PREFIX.as_bytes()) {
            self.check(&table::KEY_VALUE, pair.raw, depth)?;
            self.counts.stripped += 1;
            return Ok(Edit::Remove);
        }
        let Some(field) = PRIVATE_KEYS
            .iter()
            .position(|private| private.as_bytes() == pair.key)
        else {
            return self.kept(pair, depth);
        };
        match (self.action(field), pair.value) {
            (Action::Drop, value) => {
                self.check(&table::KEY_VALUE, pair.raw, depth)?;
                let bytes = value.map_or(Ok(0), text_bytes)?;
                Ok(Edit::Replace(int_attribute(
                    &format!("{OWN_PREFIX}{}.bytes", PRIVATE_KEYS[field]),
                    bytes,
                )))
            }
            (Action::Hash, Some(value)) => {
                self.check(&table::KEY_VALUE, pair.raw, depth)?;
                Ok(Edit::Replace(self.hashed(pair.key, value)?))
            }
            (Action::Scrub, _) => Ok(self.scrub(field, &table::KEY_VALUE, pair.raw, depth)?.into()),
            (Action::Keep | Action::Hash, _) => self.kept(pair, depth),
        }
    }

    /// Walks an attribute that stays, for what is within it.
    #[inline]
    fn kept(&mut self, pair: &Pair<'_>, depth: usize) -> Result<Edit, PrivacyError> {
        // Most attributes are plain and stay as they are, unless their texts are being scrubbed as part of something else.
        if self.scrubbing.is_none() && depth < DEPTH_MAX && pair.is_plain() {
            return Ok(Edit::Keep);
        }
        Ok(self.message(&table::KEY_VALUE, pair.raw, depth)?.into())
    }

    /// Applies the policy to an attribute of a span: one with a private key is like any other such attribute, and the texts of
    /// all others are field `span_attributes`.
    fn span_attribute(&mut self, key_value: &[u8], depth: usize) -> Result<Edit, PrivacyError> {
        let pair = Pair::of(key_value)?;
        let Pair { key, value, .. } = pair;
        if key.starts_with(OWN_PREFIX.as_bytes())
            || PRIVATE_KEYS.iter().any(|private| private.as_bytes() == key)
        {
            return self.attribute(&pair, depth);
        }
        let is_name = |value: &[u8]| value.len() <= SPAN_NAME_BYTES_MAX && SPAN_NAMES.contains(&key);
        let Some(value) = value.filter(|value| {
            !self.checking && !is_name(value) && self.actions.span_attributes() != Action::Keep
        }) else {
            return Ok(self.message(&table::KEY_VALUE, key_value, depth)?.into());
        };
        if !holds_text(value, depth)? {
            return Ok(self.message(&table::KEY_VALUE, key_value, depth)?.into());
        }
        match self.action(SPANS_FIELD) {
            Action::Drop => {
                self.check(&table::KEY_VALUE, key_value, depth)?;
                Ok(Edit::Remove)
            }
            Action::Hash => {
                self.check(&table::KEY_VALUE, key_value, depth)?;
                Ok(Edit::Replace(self.hashed(key, value)?))
            }
            Action::Scrub | Action::Keep => Ok(self
                .scrub(SPANS_FIELD, &table::KEY_VALUE, key_value, depth)?
                .into()),
        }
    }

    fn span_text(&mut self, field: &Field<'_>) -> Result<Edit, PrivacyError> {
        let text = utf8(field)?;
        if self.checking || text.is_empty() {
            return Ok(Edit::Keep);
        }
        match self.action(SPANS_FIELD) {
            Action::Drop => Ok(Edit::Remove),
            Action::Hash => Ok(Edit::Replace(self.hash_key().hash(text.as_bytes()).into_bytes())),
            Action::Keep => Ok(Edit::Keep),
            Action::Scrub => {
                let before = self.scrubbing.replace(SPANS_FIELD);
                let edit = self.field(Holds::Text, field, 0);
                self.scrubbing = before;
                edit
            }
        }
    }

    fn log_record(&mut self, record: &[u8], depth: usize) -> Result<Option<Vec<u8>>, PrivacyError> {
        self.body_bytes = None;
        let mut seen = Seen::default();
        let rewritten = self.log_fields(record, depth, &mut seen)?;
        let facts = seen.facts();
        let mut added = Vec::new();
        if let Some(bytes) = self.body_bytes.take() {
            added.push(int_attribute("tacho.body.bytes", bytes));
        }
        if let Some(code) = facts.exit_code {
            added.push(int_attribute(Attr::TachoExitCode.key(), code.cast_unsigned()));
        }
        let texts = [
            (Attr::TachoSpawnedAgent, facts.spawned_agent.as_deref()),
            (Attr::TachoCommandShape, facts.command_shape.as_deref()),
            (Attr::TachoError, facts.error),
        ];
        added.extend(
            texts
                .into_iter()
                .filter_map(|(attr, text)| Some(text_attribute(attr.key(), text?))),
        );
        let extended = if added.is_empty() {
            rewritten
        } else {
            let mut out = rewritten.unwrap_or_else(|| record.to_vec());
            for attribute in &added {
                put_len(&mut out, LOG_ATTRIBUTES, attribute);
            }
            Some(out)
        };
        let cut = self.counts.truncated;
        let fitted = self.fit(record, extended, LOG_ATTRIBUTES, Some(LOG_BODY))?;
        // Where a text was cut, it may be the id, and routing must go by the id that is written.
        self.conversations
            .push(seen.conversation().filter(|_| self.counts.truncated == cut));
        Ok(fitted)
    }

    /// Walks a log record as [`Walker::message`] does, and notes its attributes in `seen`.
    fn log_fields<'r>(
        &mut self,
        record: &'r [u8],
        depth: usize,
        seen: &mut Seen<'r>,
    ) -> Result<Option<Vec<u8>>, PrivacyError> {
        let (mut patch, mut fields) = (Patch::new(record), Fields::new(record));
        while let Some(field) = fields.good() {
            if field.number != LOG_ATTRIBUTES {
                let edit = table::LOG_RECORD
                    .holds(field.number)
                    .map_or(Ok(Edit::Keep), |holds| self.field(holds, &field, depth + 1))?;
                patch.edit(&field, edit);
                continue;
            }
            let payload = field.len_payload()?;
            let pair = Pair::of(payload)?;
            seen.see(&pair)?;
            if is_public(pair.key) && pair.is_plain() {
                patch.keep(&field);
            } else {
                patch.edit(&field, self.attribute(&pair, depth + 1)?);
            }
        }
        fields.end()?;
        Ok(patch.finish())
    }

    fn span(&mut self, span: &[u8], depth: usize) -> Result<Edit, PrivacyError> {
        let rewritten = self.message(&table::SPAN, span, depth)?;
        Ok(self.fit(span, rewritten, SPAN_ATTRIBUTES, None)?.into())
    }

    /// Cuts the longest texts of a record that is over the limit.
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
        if !holds_text(any, depth)? {
            return Ok(self.message(&table::ANY_VALUE, any, depth)?.into());
        }
        match self.action(BODY_FIELD) {
            Action::Drop => {
                self.check(&table::ANY_VALUE, any, depth)?;
                self.body_bytes = Some(self.body_bytes.unwrap_or(0) + text_bytes(any)?);
                Ok(Edit::Remove)
            }
            Action::Hash => {
                self.check(&table::ANY_VALUE, any, depth)?;
                Ok(Edit::Replace(self.hash(any)?))
            }
            Action::Scrub => Ok(self.scrub(BODY_FIELD, &table::ANY_VALUE, any, depth)?.into()),
            Action::Keep => Ok(self.message(&table::ANY_VALUE, any, depth)?.into()),
        }
    }

    fn span_event(&mut self, event: &[u8], depth: usize) -> Result<Edit, PrivacyError> {
        if self.checking || is_trace_safe(event)? {
            return Ok(self.message(&table::SPAN_EVENT, event, depth)?.into());
        }
        match self.action(EVENTS_FIELD) {
            Action::Drop => {
                self.check(&table::SPAN_EVENT, event, depth)?;
                Ok(Edit::Remove)
            }
            Action::Hash => {
                self.check(&table::SPAN_EVENT, event, depth)?;
                Ok(self.hashed_event(event)?.into())
            }
            Action::Scrub => Ok(self.scrub(EVENTS_FIELD, &table::SPAN_EVENT, event, depth)?.into()),
            Action::Keep => Ok(self.message(&table::SPAN_EVENT, event, depth)?.into()),
        }
    }

    /// A span event with hashes in the place of its name and of the values of its attributes.
    fn hashed_event(&self, event: &[u8]) -> Result<Option<Vec<u8>>, PrivacyError> {
        let key = self.hash_key();
        let mut patch = Patch::new(event);
        for field in Fields::new(event) {
            let field = field?;
            match field.number {
                2 => patch.replace(&field, key.hash(field.len_payload()?).as_bytes()),
                3 => match key_and_value(field.len_payload()?)? {
                    (name, _) if name.starts_with(OWN_PREFIX.as_bytes()) => patch.remove(&field),
                    (name, Some(value)) => patch.replace(&field, &self.hashed(name, value)?),
                    (_, None) => patch.keep(&field),
                },
                _ => patch.keep(&field),
            }
        }
        Ok(patch.finish())
    }
}

fn utf8<'a>(field: &Field<'a>) -> Result<&'a str, PrivacyError> {
    Ok(std::str::from_utf8(field.len_payload()?).map_err(|_| WireError::Utf8)?)
}

fn is(field: &Field<'_>, wire: Wire) -> Result<Edit, PrivacyError> {
    if field.wire == wire {
        Ok(Edit::Keep)
    } else {
        Err(WireError::WireType.into())
    }
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
                rest = &rest[crate::prepare::wire::varint(rest)?.1..];
            }
            Ok(Edit::Keep)
        }
        _ => Err(WireError::WireType.into()),
    }
}
