//! Tests of the table of the process's own metrics, and of what the exporter shows of them.

use super::*;
use schemas::metric::Metric;

#[test]
fn names_are_disjoint_from_derived_ones() {
    for own in SelfMetric::VARIANTS {
        let own = own.def();
        assert!(
            own.name.starts_with("tacho_") && own.help.ends_with('.'),
            "{}",
            own.name
        );
        assert_eq!(
            own.name.ends_with("_total"),
            own.kind == SelfKind::Counter,
            "{}",
            own.name
        );
        for derived in Metric::VARIANTS {
            assert!(!own.name.starts_with(derived.def().name), "{}", own.name);
        }
    }
}

fn record_each() {
    describe();
    transaction("committed");
    state_keys("sessions", 2, 7);
    restored(Duration::from_millis(1500));
    consumer_lag("codex.raw.logs.v1", 1, -3);
    clock_lag(1, 2500);
    clock_held(0, 3);
    end_to_end(300);
    tick();
    delta_duplicate();
    label_overflow("team", 1);
    lost("codex.raw.logs.v1", 0, 12);
    processor_log::telemetry::writer_fenced();
    price_table("2026-11-23", 4);
    log_info("lab.", "0123456789abcdef");
}

#[test]
fn a_second_install_changes_nothing() {
    install().unwrap();
    install().unwrap();
}

#[test]
fn what_is_recorded_is_rendered_with_the_labels_of_the_table() {
    // The test has a recorder of its own, since other tests of this process record too.
    let recorder = builder(GAUGE_IDLE).unwrap().build_recorder();
    metrics::with_local_recorder(&recorder, record_each);
    recorder.handle().run_upkeep();
    let text = recorder.handle().render();
    for line in [
        "tacho_transactions_total{outcome=\"committed\"} 1",
        "tacho_state_keys{stage=\"sessions\",partition=\"2\"} 7",
        "tacho_state_restore_seconds 1.5",
        "tacho_consumer_lag_records{topic=\"codex.raw.logs.v1\",partition=\"1\"} 0",
        "tacho_partition_clock_lag_seconds{partition=\"1\"} 2.5",
        "tacho_end_to_end_latency_seconds_bucket{le=\"0.5\"} 1",
        "tacho_clock_held_total{partition=\"0\"} 3",
        "tacho_ticks_total 1",
        "tacho_writers_fenced_total 1",
        "tacho_delta_duplicates_total 1",
        "tacho_label_overflow_total{label=\"team\"} 1",
        "tacho_log_info{log=\"lab.\",id=\"0123456789abcdef\"} 1",
        "tacho_price_table_info{version=\"2026-11-23\",epoch=\"4\"} 1",
        "tacho_lost_records_total{topic=\"codex.raw.logs.v1\",partition=\"0\"} 12",
    ] {
        assert!(
            text.lines().any(|shown| shown == line),
            "{line} is not in:\n{text}"
        );
    }
    for metric in SelfMetric::VARIANTS {
        let def = metric.def();
        assert!(
            text.contains(&format!("# HELP {} {}", def.name, def.help)),
            "{}",
            def.name
        );
        for label in def.labels {
            assert!(
                text.lines()
                    .any(|line| line.starts_with(def.name) && line.contains(&format!("{label}=\""))),
                "{} {label}",
                def.name
            );
        }
    }
}

/// Whether the text holds a sample of that metric, whatever its labels.
fn shows(text: &str, metric: SelfMetric) -> bool {
    text.lines().any(|line| line.starts_with(metric.def().name))
}

#[test]
fn gauges_of_partitions_that_went_away_disappear_and_nothing_else() {
    let recorder = builder(Duration::from_nanos(1)).unwrap().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, record_each);
    let first = handle.render();
    assert!(
        shows(&first, SelfMetric::ConsumerLag) && shows(&first, SelfMetric::ClockLag),
        "{first}"
    );
    // The gauges fall idle once the recorder's clock has moved by 2 ns, so the test renders until it has.
    let mut later = handle.render();
    let gauges = [
        SelfMetric::ConsumerLag,
        SelfMetric::ClockLag,
        SelfMetric::StateKeys,
        SelfMetric::PriceTable,
        SelfMetric::LogInfo,
    ];
    while gauges.iter().any(|gauge| shows(&later, *gauge)) {
        later = handle.render();
    }
    for metric in SelfMetric::VARIANTS {
        assert_eq!(
            shows(&later, *metric),
            metric.def().kind != SelfKind::Gauge,
            "{}",
            metric.def().name
        );
    }
    metrics::with_local_recorder(&recorder, || {
        consumer_lag("codex.raw.logs.v1", 1, 8);
        upkeep();
    });
    let back = handle.render();
    assert!(
        back.contains("tacho_consumer_lag_records{topic=\"codex.raw.logs.v1\",partition=\"1\"} 8"),
        "{back}"
    );
    assert!(
        back.contains("tacho_state_restore_seconds 1.5"),
        "upkeep did not set the gauge of the last restore again: {back}"
    );
}
