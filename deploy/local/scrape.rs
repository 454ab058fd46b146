//! The shipped scrape configurations against the tables of names.

use processor::telemetry::SelfMetric;
use schemas::metric::Metric;
use std::path::Path;
use strum::VariantArray;

const FILES: [&str; 2] = ["prometheus.yml", "kubernetes.yml"];

fn shipped(file: &str) -> String {
    std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("deploy/prometheus")
            .join(file),
    )
    .unwrap()
}

/// From `metric_relabel_configs` on.
fn relabeling(config: &str) -> &str {
    &config[config.find("    metric_relabel_configs:").unwrap()..]
}

/// The names in the rule that tells a process's own metrics from results.
fn own_names(config: &str) -> Vec<&str> {
    let regex = relabeling(config)
        .lines()
        .find_map(|line| line.trim().strip_prefix("regex: (?:"))
        .unwrap();
    let (names, suffixes) = regex.split_once(')').unwrap();
    assert_eq!(
        suffixes, "(?:_bucket|_sum|_count)?",
        "the regex names the suffixes of histogram series too"
    );
    names.split('|').collect()
}

#[test]
fn own_metrics_keep_their_process_and_results_do_not() {
    let processor = SelfMetric::VARIANTS.iter().map(|metric| metric.def().name);
    let ingest = ingest::telemetry::Series::ALL
        .iter()
        .map(|series| series.def().name);
    let own: Vec<&str> = processor.chain(ingest).collect();
    for file in FILES {
        let config = shipped(file);
        assert_eq!(
            own_names(&config),
            own,
            "{file}: these are the process's own names now"
        );
        for metric in Metric::VARIANTS {
            let result = metric.def().name;
            assert!(!own.contains(&result) && result.starts_with("tacho_"), "{result}");
        }
    }
}

#[test]
fn both_files_scrape_in_the_same_way() {
    let [fixed, kubernetes] = FILES.map(shipped);
    assert_eq!(relabeling(&fixed), relabeling(&kubernetes));
    for config in [&fixed, &kubernetes] {
        for line in [
            "honor_timestamps: true",
            "scrape_protocols: [PrometheusProto, PrometheusText0.0.4]",
            "scrape_native_histograms: true",
            "always_scrape_classic_histograms: true",
        ] {
            assert!(config.lines().any(|found| found.trim() == line), "{line}");
        }
        for label in ["instance", "pod"] {
            assert!(
                relabeling(config).contains(&format!(
                    "regex: tacho_.+;\n        target_label: {label}\n        replacement: \"\"\n"
                )),
                "{label}"
            );
        }
    }
}
