//! Encoders of OTLP log requests that use what protobuf allows and usual encoders never do.

use prost::encoding::{WireType, decode_varint, encode_key, encode_varint};

/// A message type of an OTLP log request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    ResourceLogs,
    Resource,
    EntityRef,
    ScopeLogs,
    Scope,
    LogRecord,
    KeyValue,
    AnyValue,
    Array,
    KeyValues,
}

/// The content of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    Varint,
    Fixed64,
    Fixed32,
    Text,
    Bytes,
    Message(Kind),
}

use Holds::{Bytes, Fixed32, Fixed64, Message, Text, Varint};

/// The fields of a message type, by number.
pub const fn fields(kind: Kind) -> &'static [(u32, Holds)] {
    match kind {
        Kind::Request => &[(1, Message(Kind::ResourceLogs))],
        Kind::ResourceLogs => &[
            (1, Message(Kind::Resource)),
            (2, Message(Kind::ScopeLogs)),
            (3, Text),
        ],
        Kind::Resource => &[
            (1, Message(Kind::KeyValue)),
            (2, Varint),
            (3, Message(Kind::EntityRef)),
        ],
        Kind::EntityRef => &[(1, Text), (2, Text), (3, Text), (4, Text)],
        Kind::ScopeLogs => &[
            (1, Message(Kind::Scope)),
            (2, Message(Kind::LogRecord)),
            (3, Text),
        ],
        Kind::Scope => &[(1, Text), (2, Text), (3, Message(Kind::KeyValue)), (4, Varint)],
        Kind::LogRecord => &[
            (1, Fixed64),
            (2, Varint),
            (3, Text),
            (5, Message(Kind::AnyValue)),
            (6, Message(Kind::KeyValue)),
            (7, Varint),
            (8, Fixed32),
            (9, Bytes),
            (10, Bytes),
            (11, Fixed64),
            (12, Text),
        ],
        Kind::KeyValue => &[(1, Text), (2, Message(Kind::AnyValue)), (3, Varint)],
        Kind::AnyValue => &[
            (1, Text),
            (2, Varint),
            (3, Varint),
            (4, Fixed64),
            (5, Message(Kind::Array)),
            (6, Message(Kind::KeyValues)),
            (7, Bytes),
            (8, Varint),
        ],
        Kind::Array => &[(1, Message(Kind::AnyValue))],
        Kind::KeyValues => &[(1, Message(Kind::KeyValue))],
    }
}

/// Encodes a valid message again with the highest field numbers first, as the OpenTelemetry Collector does.
/// Repeated fields stay in order.
pub fn reversed(kind: Kind, mut message: &[u8]) -> Vec<u8> {
    let mut parts: Vec<(u32, Vec<u8>)> = Vec::new();
    while !message.is_empty() {
        let key = u32::try_from(decode_varint(&mut message).unwrap()).unwrap();
        let mut part = Vec::new();
        encode_varint(u64::from(key), &mut part);
        match key & 7 {
            0 => encode_varint(decode_varint(&mut message).unwrap(), &mut part),
            1 => part.extend(message.split_off(..8).unwrap()),
            5 => part.extend(message.split_off(..4).unwrap()),
            2 => {
                let length = usize::try_from(decode_varint(&mut message).unwrap()).unwrap();
                let content = message.split_off(..length).unwrap();
                let inner = match fields(kind).iter().find(|(number, _)| *number == key >> 3) {
                    Some((_, Message(inner))) => reversed(*inner, content),
                    _ => content.to_vec(),
                };
                encode_varint(inner.len() as u64, &mut part);
                part.extend(inner);
            }
            other => panic!("wire type {other} in a usual encoding"),
        }
        parts.push((key >> 3, part));
    }
    parts.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    parts.into_iter().flat_map(|(_, part)| part).collect()
}

/// A source of choices: bytes that proptest makes and shrinks, then zeros.
pub struct Dice<'b>(pub &'b [u8]);

impl Dice<'_> {
    fn roll(&mut self, sides: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        usize::from(*first) % sides
    }
}

const TEXTS: [&[u8]; 10] = [
    b"",
    b"event.name",
    b"codex.tool_result",
    b"model",
    b"env",
    b"prompt",
    b"tacho.exit_code",
    b"call_id",
    "caf\u{e9} \u{1f600}".as_bytes(),
    b"\xff\xfe",
];

/// A message whose fields come in any order, any number of times and in parts, with unknown fields and groups
/// between them, and sometimes with a fault.
pub fn wild(kind: Kind, dice: &mut Dice<'_>, depth: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let known = fields(kind);
    for _ in 0..dice.roll(6) {
        match dice.roll(40) {
            0 => unknown(dice, &mut out, 0),
            1 => {
                // A field of any wire type under a known number is mostly a fault.
                let (number, _) = known[dice.roll(known.len())];
                field(
                    number,
                    [Varint, Fixed64, Fixed32, Text, Bytes][dice.roll(5)],
                    dice,
                    &mut out,
                    depth,
                );
            }
            choice => {
                let (number, holds) = known[(choice + dice.roll(256)) % known.len()];
                field(number, holds, dice, &mut out, depth);
            }
        }
    }
    out
}

fn field(number: u32, holds: Holds, dice: &mut Dice<'_>, out: &mut Vec<u8>, depth: usize) {
    match holds {
        Varint => {
            encode_key(number, WireType::Varint, out);
            encode_varint([0, 1, 7, 300, 1 << 31, u64::MAX][dice.roll(6)], out);
        }
        Fixed64 => {
            encode_key(number, WireType::SixtyFourBit, out);
            out.extend([0u64, 1, u64::MAX, 1.5f64.to_bits()][dice.roll(4)].to_le_bytes());
        }
        Fixed32 => {
            encode_key(number, WireType::ThirtyTwoBit, out);
            out.extend(7u32.to_le_bytes());
        }
        Text | Bytes => {
            // The last text is not UTF-8. It is rare in string fields, so that most messages stay valid.
            let any = holds == Bytes || dice.roll(50) == 1;
            let choice = dice.roll(if any { TEXTS.len() } else { TEXTS.len() - 1 });
            content(number, TEXTS[choice], out);
        }
        Message(inner) => {
            let inner = if depth == 0 {
                Vec::new()
            } else {
                wild(inner, dice, depth - 1)
            };
            content(number, &inner, out);
        }
    }
}

/// Writes a length-delimited field.
pub fn content(number: u32, content: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(content.len() as u64, out);
    out.extend(content);
}

fn unknown(dice: &mut Dice<'_>, out: &mut Vec<u8>, depth: usize) {
    let number = 20 + u32::try_from(dice.roll(3)).unwrap();
    match dice.roll(5) {
        4 if depth < 3 => {
            encode_key(number, WireType::StartGroup, out);
            for _ in 0..dice.roll(3) {
                unknown(dice, out, depth + 1);
            }
            let end = if dice.roll(20) == 1 { number + 1 } else { number };
            encode_key(end, WireType::EndGroup, out);
        }
        choice => field(
            number,
            [Varint, Fixed64, Fixed32, Text, Bytes][choice],
            dice,
            out,
            0,
        ),
    }
}
