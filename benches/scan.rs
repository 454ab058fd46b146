//! The scan over recorded log requests, in bytes a second, beside two floors of the same run: a pass that touches every
//! byte, and a full decode by prost. Says also how many allocations each makes per record.
//!
//! The allocator counts, and so is a little slower than the usual one: of the three, only the full decode feels it.

use allocation_counter::measure;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use schemas::event::Attr;
use schemas::otlp::decode::decode;
use schemas::otlp::mark::mark;
use schemas::otlp::scan::scan;
use std::fs;
use std::hint::black_box;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Enough to be beyond the caches of the processor.
const REQUEST_BYTES: usize = 32 << 20;

/// Paths in a folder, in order.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .expect("the recorded runs are in tests/fixtures")
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    entries.sort();
    entries
}

/// All recorded log bodies one after another, again and again: requests in one piece are one request.
fn request() -> Vec<u8> {
    let mut once = Vec::new();
    for folder in entries(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures"))) {
        if !folder.is_dir() {
            continue;
        }
        for file in entries(&folder) {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let stored = fs::read(&file).expect("the file can be read");
            if name.ends_with("logs.pb.gz") {
                flate2::read::GzDecoder::new(&stored[..]).read_to_end(&mut once).expect("the file is gzip");
            } else if name.ends_with("logs.pb") {
                once.extend(stored);
            }
        }
    }
    once.repeat(REQUEST_BYTES.div_ceil(once.len()))
}

fn touch(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

/// Reads what derivation reads of a response, so that the scan can't be left out.
fn scan_tokens(bytes: &[u8]) -> u64 {
    let mut tokens = 0;
    let records = scan(bytes, |record| tokens += record.attrs.count(Attr::InputTokenCount).unwrap_or(0));
    tokens + records.expect("recorded requests are valid") as u64
}

fn scan_marks(bytes: &[u8]) -> u8 {
    let mut folded = 0;
    scan(bytes, |record| folded ^= mark(record, "default", record.attrs.text(Attr::ConversationId).unwrap_or(""))[0])
        .expect("recorded requests are valid");
    folded
}

fn scanning(criterion: &mut Criterion) {
    let request = request();
    let records = scan(&request, |_| {}).expect("recorded requests are valid") as u64;
    let per_record = |name: &str, count: u64| println!("{name}: {:.2} allocations per record", count as f64 / records as f64);
    println!("{} bytes, {records} records", request.len());
    let counted = |work: &dyn Fn()| measure(work).count_total;
    per_record("scan", counted(&|| _ = black_box(scan_tokens(&request))));
    per_record("scan_and_mark", counted(&|| _ = black_box(scan_marks(&request))));
    per_record("prost_decode", counted(&|| _ = black_box(decode(&request))));

    let mut group = criterion.benchmark_group("scan");
    group.throughput(Throughput::Bytes(request.len() as u64)).sample_size(10);
    group.bench_function("touch_every_byte", |bencher| bencher.iter(|| touch(black_box(&request))));
    group.bench_function("scan", |bencher| bencher.iter(|| scan_tokens(black_box(&request))));
    group.bench_function("scan_and_mark", |bencher| bencher.iter(|| scan_marks(black_box(&request))));
    group.bench_function("prost_decode", |bencher| bencher.iter(|| decode(black_box(&request))));
    group.finish();
}

criterion_group!(benches, scanning);
criterion_main!(benches);
