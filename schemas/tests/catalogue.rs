//! `deploy/METRICS.md` says what the metric table says.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use schemas::catalogue::metrics_markdown;
use std::fs;

#[test]
fn the_document_is_the_tables() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/METRICS.md");
    let wanted = metrics_markdown();
    if std::env::var_os("TACHO_BLESS").is_some() {
        fs::write(path, &wanted).unwrap();
    }
    let found = fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == wanted,
        "deploy/METRICS.md is stale: run TACHO_BLESS=1 cargo test -p schemas --test catalogue"
    );
}
