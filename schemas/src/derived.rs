//! Derived rows: what other teams read from the derived topics, as structs and as Avro.
//!
//! A value is in Avro's single-object encoding: C3 01, the schema's CRC-64-AVRO fingerprint, the datum. The schemas
//! are in `schemas/avro`, field by field.

mod session;
mod window;

pub use session::{DecisionCount, SessionRow, SessionState, Tokens, ToolCount};
pub use window::{Bucket, LabelValue, WindowRow, WindowValue};

use crate::topic::Topic;
use apache_avro::Schema;
use apache_avro::headers::{HeaderBuilder, RabinFingerprintHeader};
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::OnceLock;

/// The Avro schema of `codex.sessions.v1`.
pub const SESSIONS_AVSC: &str = include_str!("../avro/codex.sessions.v1.avsc");
/// The schemas that rows of `codex.sessions.v1` were written with before, oldest first; each has fewer fields at its end.
pub const SESSIONS_AVSC_PAST: [&str; 1] = [include_str!("../avro/past/codex.sessions.v1-1.avsc")];
/// The Avro schema of the three windows topics.
pub const WINDOWS_AVSC: &str = include_str!("../avro/codex.windows.v1.avsc");

const MAGIC: [u8; 2] = [0xc3, 0x01];
/// Magic and fingerprint.
const HEADER_BYTES: usize = 10;

/// Why bytes are not a derived row.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// The topic holds something else.
    #[error("{} holds no derived rows", .0.name())]
    NotDerived(Topic),
    /// Not the single-object encoding.
    #[error("not Avro's single-object encoding: it begins with C3 01 and a schema's fingerprint")]
    Header,
    /// Written with a schema that this build does not have.
    #[error(
        "written with the schema of fingerprint {0}, which this build does not know: use the build that wrote it"
    )]
    Schema(String),
    /// The datum is not of the schema. (The reader's own error quotes the whole schema, and helps nobody.)
    #[error("the {0} bytes after the fingerprint are not a row of its schema")]
    Datum(usize),
    /// There are bytes after the row.
    #[error("{0} bytes follow the row")]
    Trailing(usize),
}

/// Reads a row of a derived topic as a plain JSON object, for people.
///
/// # Errors
/// The topic holds no derived rows, or the bytes are not one.
pub fn decode(topic: Topic, bytes: &[u8]) -> Result<serde_json::Value, RowError> {
    match topic {
        Topic::Sessions => {
            let row = SessionRow::decode(bytes)?;
            Ok(serde_json::to_value(row).expect("a row is plain data with string keys"))
        }
        Topic::Windows1m | Topic::Windows5m | Topic::Windows1h => Ok(WindowRow::decode(bytes)?.to_json()),
        other => Err(RowError::NotDerived(other)),
    }
}

/// A schema, made ready once.
struct Codec {
    header: Vec<u8>,
    writer: GenericDatumWriter<'static>,
    reader: GenericDatumReader<'static>,
    /// By header: how rows are read that were written with an earlier schema. What they lack is the default.
    past: Vec<(Vec<u8>, GenericDatumReader<'static>)>,
}

impl Codec {
    fn sessions() -> &'static Self {
        static SCHEMA: OnceLock<Schema> = OnceLock::new();
        static PAST: OnceLock<[Schema; SESSIONS_AVSC_PAST.len()]> = OnceLock::new();
        static CODEC: OnceLock<Codec> = OnceLock::new();
        let past = || PAST.get_or_init(|| SESSIONS_AVSC_PAST.map(parse));
        CODEC.get_or_init(|| Self::new(SCHEMA.get_or_init(|| parse(SESSIONS_AVSC)), past()))
    }

    fn windows() -> &'static Self {
        static SCHEMA: OnceLock<Schema> = OnceLock::new();
        static CODEC: OnceLock<Codec> = OnceLock::new();
        CODEC.get_or_init(|| Self::new(SCHEMA.get_or_init(|| parse(WINDOWS_AVSC)), &[]))
    }

    fn new(schema: &'static Schema, past: &'static [Schema]) -> Self {
        let header = |schema| RabinFingerprintHeader::from_schema(schema).build_header();
        let reader = |schema| {
            GenericDatumReader::builder(schema)
                .human_readable(false)
                .build()
                .expect("the schema is whole: a test reads it")
        };
        Self {
            header: header(schema),
            writer: GenericDatumWriter::builder(schema)
                .human_readable(false)
                .build()
                .expect("the schema is whole: a test reads it"),
            reader: reader(schema),
            past: past
                .iter()
                .map(|schema| (header(schema), reader(schema)))
                .collect(),
        }
    }

    fn encode<T: Serialize>(&self, row: &T) -> Vec<u8> {
        let mut bytes = self.header.clone();
        self.writer
            .write_ser(&mut bytes, row)
            .expect("rows have the fields of their schema: tests write every shape");
        bytes
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, RowError> {
        let (header, mut datum) = bytes.split_at_checked(HEADER_BYTES).ok_or(RowError::Header)?;
        if !header.starts_with(&MAGIC) {
            return Err(RowError::Header);
        }
        let past = || {
            self.past
                .iter()
                .find(|(past, _)| header == past.as_slice())
                .map(|(_, reader)| reader)
        };
        let reader = if header == self.header {
            Some(&self.reader)
        } else {
            past()
        };
        let Some(reader) = reader else {
            return Err(RowError::Schema(
                header[MAGIC.len()..]
                    .iter()
                    .rev()
                    .map(|byte| format!("{byte:02x}"))
                    .collect(),
            ));
        };
        let row = reader
            .read_deser(&mut datum)
            .map_err(|_| RowError::Datum(bytes.len() - HEADER_BYTES))?;
        if datum.is_empty() {
            Ok(row)
        } else {
            Err(RowError::Trailing(datum.len()))
        }
    }
}

fn parse(avsc: &str) -> Schema {
    Schema::parse_str(avsc).expect("the embedded schema is valid: a test reads it")
}
