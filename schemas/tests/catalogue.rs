//! The generated documents in `deploy` are those that the tables give.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use schemas::catalogue::{metrics_markdown, topics_toml};
use std::fs;

fn is_the_tables(file: &str, wanted: &str) {
    let path = format!("{}/../deploy/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("TACHO_BLESS").is_some() {
        fs::write(&path, wanted).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "deploy/{file} is stale: run TACHO_BLESS=1 cargo test -p schemas --test catalogue"
    );
}

#[test]
fn the_document_of_metrics_is_the_tables() {
    is_the_tables("METRICS.md", &metrics_markdown());
}

#[test]
fn the_document_of_topics_is_the_tables() {
    let text = topics_toml();
    toml::from_str::<toml::Table>(&text).unwrap();
    is_the_tables("topics.toml", &text);
}
