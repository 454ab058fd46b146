//! Every recorded OTLP/JSON body is read, and holds the events that its manifest counts.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use prost::Message;
use schemas::event::{Attr, EventKind};
use schemas::otlp::{decode, json, scan};
use std::collections::BTreeMap;

/// Counts log records by `event.name`, under the names that manifests use.
fn count(bytes: &[u8], events: &mut BTreeMap<String, u64>) {
    scan::scan(bytes, |record| {
        let name = record.attrs.text(Attr::EventName).unwrap_or("None");
        *events.entry(name.to_owned()).or_default() += 1;
        if record.event == EventKind::SseEvent && record.attrs.get(Attr::InputTokenCount).is_some() {
            *events.entry("completed+tokens".to_owned()).or_default() += 1;
        }
    })
    .unwrap();
}

#[test]
fn recorded_runs_hold_the_events_of_their_manifests() {
    let (mut json_runs, mut compared) = (0, 0);
    for (folder, manifest) in support::runs() {
        let mut events = BTreeMap::new();
        for body in support::bodies_of(&folder, &manifest, "logs", "pb") {
            count(&body.bytes, &mut events);
        }
        for body in support::bodies_of(&folder, &manifest, "logs", "json") {
            json_runs += 1;
            let request = json::logs(&body.bytes).unwrap_or_else(|error| panic!("{}: {error}", body.name));
            let bytes = request.encode_to_vec();
            count(&bytes, &mut events);
            let mut records = Vec::new();
            scan::scan(&bytes, |record| records.push(decode::OwnedRecord::from(&record))).unwrap();
            assert_eq!(records, decode::records(&request), "{}", body.name);
            assert!(
                records.iter().all(|record| record.observed_ns > 0),
                "{}",
                body.name
            );
            assert!(
                records.iter().any(|record| record.trace_id.len() == 16),
                "{}",
                body.name
            );
        }
        // The manifest of a run of which too little arrived has no counts.
        if let Some(observed) = manifest["observed"].get("log_events") {
            compared += 1;
            assert_eq!(
                events,
                serde_json::from_value(observed.clone()).unwrap(),
                "{}",
                folder.display()
            );
        }
    }
    assert!(json_runs >= 3, "only {json_runs} JSON log bodies");
    assert!(compared >= 30, "only {compared} runs have counts");
}

#[test]
fn recorded_traces_and_metrics_are_read() {
    for body in support::bodies("traces", "json") {
        let request = json::traces(&body.bytes).unwrap_or_else(|error| panic!("{}: {error}", body.name));
        let spans: usize = request
            .resource_spans
            .iter()
            .flat_map(|spans| &spans.scope_spans)
            .map(|scope| scope.spans.len())
            .sum();
        assert!(spans > 0, "{}", body.name);
    }
    for body in support::bodies("metrics", "json") {
        let request = json::metrics(&body.bytes).unwrap_or_else(|error| panic!("{}: {error}", body.name));
        let metrics: Vec<_> = request
            .resource_metrics
            .iter()
            .flat_map(|metrics| &metrics.scope_metrics)
            .flat_map(|scope| &scope.metrics)
            .collect();
        assert!(
            !metrics.is_empty() && metrics.iter().all(|metric| metric.data.is_some()),
            "{}",
            body.name
        );
    }
}
