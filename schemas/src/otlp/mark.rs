//! The dedup mark: 128 bits that two log records share if they are the same record, and hardly ever
//! otherwise.

use super::scan::{LogRecord, Value, key_value};
use super::wire::{Fields, Payload};
use crate::event::{Attr, is_public};
use xxhash_rust::xxh3::Xxh3;

/// The attributes that the mark covers one by one, beside the sum over all attributes.
const NAMED: [Attr; 5] = [
    Attr::EventName,
    Attr::CallId,
    Attr::CommunicationId,
    Attr::State,
    Attr::ToolResultSeq,
];

/// The mark of a record of `conversation` of `tenant`.
///
/// It does not depend on the order of fields or attributes, on what a privacy policy removed or changed, or
/// on what ingest added: attributes whose keys are not [public](is_public) are left out at any depth.
#[must_use]
pub fn mark(record: &LogRecord<'_, '_>, tenant: &str, conversation: &str) -> [u8; 16] {
    let mut hash = Xxh3::new();
    text(&mut hash, tenant);
    text(&mut hash, conversation);
    hash.update(&record.observed_ns.to_le_bytes());
    for attr in NAMED {
        match record.attrs.get(attr) {
            None => hash.update(&[0]),
            Some(typed) => {
                hash.update(&[1]);
                value(&mut hash, typed);
            }
        }
    }
    let mut sum = 0u128;
    let mut one = Xxh3::new();
    for (key, typed) in record.attributes().filter(|(key, _)| is_public(key.as_bytes())) {
        one.reset();
        text(&mut one, key);
        value(&mut one, typed);
        sum = sum.wrapping_add(one.digest128());
    }
    hash.update(&sum.to_le_bytes());
    hash.digest128().to_le_bytes()
}

/// Hashes a text with its length before it, so that no two sequences of texts give the same bytes.
fn text(hash: &mut Xxh3, text: &str) {
    bytes(hash, text.as_bytes());
}

fn bytes(hash: &mut Xxh3, bytes: &[u8]) {
    hash.update(&(bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn value(hash: &mut Xxh3, value: Value<'_>) {
    match value {
        Value::Str(string) => {
            hash.update(&[1]);
            text(hash, string);
        }
        Value::Bool(flag) => hash.update(&[2, u8::from(flag)]),
        Value::Int(int) => {
            hash.update(&[3]);
            hash.update(&int.to_le_bytes());
        }
        Value::Double(double) => {
            hash.update(&[4]);
            hash.update(&double.to_bits().to_le_bytes());
        }
        Value::Other(encoded) => nested(hash, &AnyValue::Within(Fields::new(encoded))),
    }
}

/// Where the fields of an `AnyValue` are.
enum AnyValue<'a> {
    /// The fields of one `AnyValue` message.
    Plain(Fields<'a>),
    /// The fields of a `KeyValue` message, which holds the value in one part or several.
    Within(Fields<'a>),
}

impl<'a> AnyValue<'a> {
    /// Calls `show` with every member that is set, in order. The scan has checked the bytes.
    fn members(&self, mut show: impl FnMut(u32, Payload<'a>, &Fields<'a>)) {
        let mut each = |mut fields: Fields<'a>| {
            while let Some((number, payload)) = fields.good() {
                if (1..=8).contains(&number) {
                    show(number, payload, &fields);
                }
            }
        };
        match self {
            Self::Plain(fields) => each(*fields),
            Self::Within(fields) => {
                let mut fields = *fields;
                while let Some((number, payload)) = fields.good() {
                    if number == 2
                        && let Ok(inner) = fields.enter(payload)
                    {
                        each(inner);
                    }
                }
            }
        }
    }
}

/// Hashes an `AnyValue`. The member that is set last counts, and lists that follow one another directly are
/// one list, as protobuf merges them.
fn nested(hash: &mut Xxh3, any: &AnyValue<'_>) {
    let (mut last, mut start, mut count) = (0, 0, 0usize);
    any.members(|number, _, _| {
        if number != last || !(5..=6).contains(&number) {
            (last, start) = (number, count);
        }
        count += 1;
    });
    let mut index = 0;
    hash.update(&[16 + last as u8]);
    any.members(|number, payload, fields| {
        if index >= start {
            member(hash, number, payload, fields);
        }
        index += 1;
    });
    hash.update(&[0]);
}

fn member<'a>(hash: &mut Xxh3, number: u32, payload: Payload<'a>, fields: &Fields<'a>) {
    match (number, payload) {
        (1 | 7, Payload::Bytes(content)) => bytes(hash, content),
        (2, Payload::Varint(flag)) => hash.update(&[u8::from(flag != 0)]),
        (3, Payload::Varint(number)) | (4, Payload::Fixed64(number)) => hash.update(&number.to_le_bytes()),
        // The member is an int32, of which prost keeps the low half.
        (8, Payload::Varint(number)) => hash.update(&(number as u32).to_le_bytes()),
        (5 | 6, _) => {
            let Ok(mut list) = fields.enter(payload) else {
                return;
            };
            while let Some((field, item)) = list.good() {
                if field == 1 {
                    list_item(hash, number, item, &list);
                }
            }
        }
        _ => {}
    }
}

/// Hashes an item of a list. Each begins with a 1, which tells it from the 0 at the end of a value.
fn list_item<'a>(hash: &mut Xxh3, kind: u32, item: Payload<'a>, list: &Fields<'a>) {
    let Ok(inner) = list.enter(item) else { return };
    if kind == 5 {
        hash.update(&[1]);
        nested(hash, &AnyValue::Plain(inner));
    } else if let Ok((key, _)) = key_value(list, item)
        && is_public(key.as_bytes())
    {
        hash.update(&[1]);
        text(hash, key);
        nested(hash, &AnyValue::Within(inner));
    }
}
