//! Speed of the scrubber over recorded arguments and outputs of tools, and over an output full of keywords,
//! compared with a pass that touches every byte; and of cleaning recorded requests under the shipped policy,
//! compared with policies that drop all texts and keep all texts.
//!
//! Times are CPU times of the thread.

mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ingest::Signal;
use ingest::prepare::privacy::apply;
use ingest::prepare::scrub::Scrubber;
use schemas::otlp::scan::{Value, scan};
use schemas::privacy::{Action, Actions};
use schemas::settings::Seed;
use std::hint::black_box;
use support::{CpuTime, log_bodies, touch};

/// The recorded texts that the shipped policy scrubs.
fn tool_texts() -> Vec<String> {
    let mut texts = Vec::new();
    for body in log_bodies() {
        let of_tools = |(key, value): (&str, Value<'_>)| match value {
            Value::Str(text) if ["arguments", "output", "error.message"].contains(&key) => {
                Some(text.to_owned())
            }
            _ => None,
        };
        scan(&body, |record| {
            texts.extend(record.attributes().filter_map(of_tools))
        })
        .expect("recorded requests are valid");
    }
    texts
}

/// A listing of settings, with a keyword in every line and without a secret.
fn keywords() -> Vec<String> {
    let line =
        "AUTH_TOKEN_FILE=/run/secrets/token api_version=v1 key_id=none access: public # set password later\n";
    vec![line.repeat(20); 50]
}

fn scrubbing(criterion: &mut Criterion<CpuTime>) {
    let scrubber = Scrubber::shared();
    let mut group = criterion.benchmark_group("scrub");
    group.sample_size(10);
    for (name, texts) in [("tool_texts", tool_texts()), ("keywords", keywords())] {
        let bytes: usize = texts.iter().map(String::len).sum();
        println!("{name}: {} texts, {bytes} bytes", texts.len());
        group.throughput(Throughput::Bytes(bytes as u64));
        let touched = || {
            texts
                .iter()
                .map(|text| touch(black_box(text.as_bytes())))
                .sum::<u64>()
        };
        group.bench_function(format!("{name}/touch_every_byte"), |bencher| {
            bencher.iter(touched)
        });
        let found = || {
            texts
                .iter()
                .filter_map(|text| scrubber.scrub(black_box(text)))
                .count()
        };
        group.bench_function(format!("{name}/scrub"), |bencher| bencher.iter(found));
    }
    let bodies: Vec<bytes::Bytes> = log_bodies().into_iter().map(bytes::Bytes::from).collect();
    group.throughput(Throughput::Bytes(
        bodies.iter().map(|body| body.len() as u64).sum(),
    ));
    let policies = [
        ("keep", Actions::all(Action::Keep)),
        ("drop", Actions::all(Action::Drop)),
        ("shipped", Seed::shipped().privacy.actions("default")),
    ];
    for (name, actions) in policies {
        let clean = || {
            for body in &bodies {
                black_box(
                    apply(Signal::Logs, body.clone(), actions, None).expect("recorded requests are valid"),
                );
            }
        };
        group.bench_function(format!("clean_logs/{name}"), |bencher| bencher.iter(clean));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = scrubbing
}
criterion_main!(benches);
