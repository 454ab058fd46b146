//! Avro's single-object encoding of rows: C3 01, the CRC-64-AVRO fingerprint of the schema, the datum.
//!
//! Source: Avro specification 1.12, "Single-object encoding".

use super::RowError;
use apache_avro::Schema;
use apache_avro::headers::{HeaderBuilder, RabinFingerprintHeader};
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::OnceLock;

const MAGIC: [u8; 2] = [0xc3, 0x01];
/// Length of the magic bytes and the fingerprint.
const HEADER_BYTES: usize = 10;

/// Writes and reads the rows of one schema.
pub(super) struct AvroCodec {
    avsc: &'static str,
    /// Earlier schemas of the rows, oldest first.
    past: &'static [&'static str],
    ready: OnceLock<Ready>,
}

/// What follows from a schema, made at its first use.
struct Ready {
    header: Vec<u8>,
    writer: GenericDatumWriter<'static>,
    reader: GenericDatumReader<'static>,
    /// Readers of rows that were written with an earlier schema, by header. A field that such a row lacks
    /// gets its default.
    past: Vec<(Vec<u8>, GenericDatumReader<'static>)>,
}

impl AvroCodec {
    pub const fn new(avsc: &'static str, past: &'static [&'static str]) -> Self {
        Self {
            avsc,
            past,
            ready: OnceLock::new(),
        }
    }

    fn ready(&self) -> &Ready {
        self.ready.get_or_init(|| Ready::new(self.avsc, self.past))
    }

    pub fn encode<T: Serialize>(&self, row: &T) -> Vec<u8> {
        let ready = self.ready();
        let mut bytes = ready.header.clone();
        ready
            .writer
            .write_ser(&mut bytes, row)
            .expect("rows have the fields of their schema: tests write every shape");
        bytes
    }

    pub fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, RowError> {
        let ready = self.ready();
        let (header, mut datum) = bytes.split_at_checked(HEADER_BYTES).ok_or(RowError::Header)?;
        if !header.starts_with(&MAGIC) {
            return Err(RowError::Header);
        }
        let Some(reader) = ready.reader_of(header) else {
            return Err(RowError::Schema(fingerprint(header)));
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

impl Ready {
    /// Parses the schemas. Writer and readers borrow them for the life of the program, so each is leaked,
    /// once.
    fn new(avsc: &str, past: &[&str]) -> Self {
        let parse = |avsc: &str| -> &'static Schema {
            Box::leak(Box::new(
                Schema::parse_str(avsc).expect("the embedded schema is valid: a test reads it"),
            ))
        };
        let schema = parse(avsc);
        Self {
            header: header(schema),
            writer: GenericDatumWriter::builder(schema)
                .human_readable(false)
                .build()
                .expect("the schema is whole: a test reads it"),
            reader: reader(schema),
            past: past
                .iter()
                .map(|avsc| parse(avsc))
                .map(|schema| (header(schema), reader(schema)))
                .collect(),
        }
    }

    fn reader_of(&self, header: &[u8]) -> Option<&GenericDatumReader<'static>> {
        if header == self.header {
            return Some(&self.reader);
        }
        let of_header = |(past, _): &&(Vec<u8>, _)| past.as_slice() == header;
        self.past.iter().find(of_header).map(|(_, reader)| reader)
    }
}

fn header(schema: &Schema) -> Vec<u8> {
    RabinFingerprintHeader::from_schema(schema).build_header()
}

fn reader(schema: &'static Schema) -> GenericDatumReader<'static> {
    GenericDatumReader::builder(schema)
        .human_readable(false)
        .build()
        .expect("the schema is whole: a test reads it")
}

/// The fingerprint in a header as hexadecimal digits, most significant first; the header holds its bytes in
/// the opposite order.
fn fingerprint(header: &[u8]) -> String {
    let bytes = header.get(MAGIC.len()..).unwrap_or_default();
    bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect()
}
