//! The scan over recorded log requests, in bytes a second, beside two floors of the same run: a pass that touches every
//! byte, and a full decode by prost. Says also how many allocations each makes per record.
//!
//! Times are those of the processor. The allocator counts, and so is a little slower than the usual one: of the three, only the full decode feels it.

mod support;

use allocation_counter::measure;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use schemas::event::Attr;
use schemas::otlp::decode::decode;
use schemas::otlp::mark::mark;
use schemas::otlp::scan::scan;
use std::hint::black_box;
use support::{CpuTime, log_bodies, touch};

/// Enough to be beyond the caches of the processor.
const REQUEST_BYTES: usize = 32 << 20;

/// All recorded log bodies one after another, again and again: requests in one piece are one request.
fn request() -> Vec<u8> {
    let once = log_bodies().concat();
    once.repeat(REQUEST_BYTES.div_ceil(once.len()))
}

/// Reads what derivation reads of a response, so that the scan can't be left out.
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
