//! Every event of the table has an example in `schemas/examples`, and every attribute that is read is in an
//! example.
//!
//! The tests fail after a new variant of `EventKind` until there is a folder `schemas/examples/<event.name>`
//! with `01-<what>.in`: an OTLP/JSON log request with exactly that event, as Codex sends it, with made-up
//! content.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use prost::Message;
use schemas::event::{Attr, COMMON, EventKind, OWN_PREFIX};
use schemas::otlp::scan::scan;
use schemas::otlp::{decode, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use strum::VariantArray;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    entries
}

/// Reads the examples of an event, and gives the attributes that are in them.
fn read_examples(kind: EventKind) -> BTreeSet<Attr> {
    let mut attrs = BTreeSet::new();
    let files = sorted(&Path::new(EXAMPLES).join(kind.def().name));
    assert!(!files.is_empty(), "{} has no example", kind.def().name);
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        assert!(
            name.as_bytes()[..2].iter().all(u8::is_ascii_digit) && name.ends_with(".in"),
            "{name}: the name of an example has the form 01-name.in"
        );
        let request = json::logs(&fs::read(&file).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut records = Vec::new();
        scan(&request.encode_to_vec(), |record| {
            records.push(decode::OwnedRecord::from(&record))
        })
        .unwrap();
        assert_eq!(records, decode::records(&request), "{}", file.display());
        assert_eq!(records.len(), 1, "{}: an example holds one event", file.display());
        assert_eq!(records[0].event, kind, "{}", file.display());
        assert!(records[0].observed_ns > 0, "{}", file.display());
        attrs.extend(records[0].attrs.keys());
    }
    attrs
}

#[test]
fn every_event_has_examples_with_all_that_is_read() {
    let mut seen = BTreeSet::new();
    for &kind in EventKind::VARIANTS {
        let attrs = read_examples(kind);
        for attr in kind.def().reads {
            let own = attr.key().starts_with(OWN_PREFIX);
            assert!(
                own || attrs.contains(attr),
                "no example of {} has {}",
                kind.def().name,
                attr.key()
            );
        }
        seen.extend(attrs);
    }
    for attr in COMMON {
        assert!(seen.contains(attr), "no example has {}", attr.key());
    }
}

#[test]
fn every_example_belongs_to_an_event() {
    let names: BTreeSet<_> = EventKind::VARIANTS
        .iter()
        .map(|kind| kind.def().name.to_owned())
        .collect();
    let folders: BTreeSet<_> = sorted(Path::new(EXAMPLES))
        .iter()
        .map(|folder| folder.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(folders, names);
}
