//! Speed of the scan over recorded log requests, in bytes a second. The same run measures two floors: a pass
//! that touches every byte, and a full decode by prost. It also counts the allocations of each for a record.
//!
//! Times are CPU times of the thread. The allocator counts allocations, which slows the full decode a little.

mod support;

use allocation_counter::measure;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use schemas::event::Attr;
use schemas::otlp::decode::decode;
use schemas::otlp::mark::mark;
use schemas::otlp::scan::scan;
use std::hint::black_box;
use support::{CpuTime, log_bodies, touch};

/// The least number of bytes that are scanned, more than the caches of the processor hold.
const REQUEST_BYTES: usize = 32 << 20;

/// All recorded log bodies one after another, repeated. Concatenated requests are one request.
fn request() -> Vec<u8> {
    let once = log_bodies().concat();
    once.repeat(REQUEST_BYTES.div_ceil(once.len()))
}

/// Reads what derivation reads of a response, so that the compiler can't remove the scan.
fn scan_tokens(bytes: &[u8]) -> u64 {
    let mut tokens = 0;
    let records = scan(bytes, |record| {
        tokens += record.attrs.count(Attr::InputTokenCount).unwrap_or(0)
    });
    tokens + records.expect("recorded requests are valid") as u64
}

fn scan_marks(bytes: &[u8]) -> u8 {
    let mut folded = 0;
    scan(bytes, |record| {
        folded ^= mark(
            &record,
            "default",
            record.attrs.text(Attr::ConversationId).unwrap_or(""),
        )[0]
    })
    .expect("recorded requests are valid");
    folded
}

fn scanning(criterion: &mut Criterion<CpuTime>) {
    let request = request();
    let records = scan(&request, |_| {}).expect("recorded requests are valid") as u64;
    let per_record = |name: &str, count: u64| {
        println!(
            "{name}: {:.2} allocations per record",
            count as f64 / records as f64
        )
    };
    println!("{} bytes, {records} records", request.len());
    let counted = |work: &dyn Fn()| measure(work).count_total;
    per_record("scan", counted(&|| _ = black_box(scan_tokens(&request))));
    per_record("scan_and_mark", counted(&|| _ = black_box(scan_marks(&request))));
    per_record("prost_decode", counted(&|| _ = black_box(decode(&request))));

    let mut group = criterion.benchmark_group("scan");
    group
        .throughput(Throughput::Bytes(request.len() as u64))
        .sample_size(10);
    group.bench_function("touch_every_byte", |bencher| {
        bencher.iter(|| touch(black_box(&request)))
    });
    group.bench_function("scan", |bencher| {
        bencher.iter(|| scan_tokens(black_box(&request)))
    });
    group.bench_function("scan_and_mark", |bencher| {
        bencher.iter(|| scan_marks(black_box(&request)))
    });
    group.bench_function("prost_decode", |bencher| {
        bencher.iter(|| decode(black_box(&request)))
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = scanning
}
criterion_main!(benches);
