//! The scan and the dedup mark allocate nothing on the heap, whatever a request holds.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use allocation_counter::measure;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;
use schemas::event::Attr;
use schemas::otlp::mark::mark;
use schemas::otlp::scan::scan;

#[test]
fn scan_and_mark_do_not_allocate() {
    let bodies = support::bodies("logs", "pb");
    let mut records = 0;
    let mut tokens = 0;
    let used = measure(|| {
        for body in &bodies {
            records += scan(&body.bytes, |record| {
                tokens += record.attrs.count(Attr::InputTokenCount).unwrap_or(0);
                tokens += u64::from(
                    mark(
                        &record,
                        "default",
                        record.attrs.text(Attr::ConversationId).unwrap_or(""),
                    ) == [0; 16],
                );
            })
            .unwrap();
        }
    });
    assert!(records > 5_000 && tokens > 0);
    assert_eq!(used.count_total, 0, "allocations over {records} records");
    // The counter works: a full decode is seen to allocate for every record.
    let decode = measure(|| {
        for body in &bodies {
            ExportLogsServiceRequest::decode(&body.bytes[..]).unwrap();
        }
    });
    assert!(decode.count_total > records as u64);
}
