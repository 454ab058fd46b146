//! `tacho prices check` says what other prices would change, to the billionth of a dollar, and changes nothing.

use crate::support::broker::Broker;
use crate::support::tacho::{Start, Tacho, run};
use crate::support::traffic::prices;
use crate::support::{now_ms, otlp};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use schemas::control::EpochChange;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Output;

/// A response of 1,000 input and 100 output tokens.
fn response(conversation: &str, model: &str) -> LogRecord {
    let mut response = otlp::tokens(conversation, now_ms(), 1_000, 100);
    response.attributes.retain(|attribute| attribute.key != "model");
    response
        .attributes
        .push(otlp::attribute("model", otlp::text(model)));
    response
}

/// Sends one response by the API, twice, one on a ChatGPT plan, and one of another model.
fn send(tacho: &Tacho) {
    let api = otlp::encode(vec![response("api", "gpt-5.5")]);
    let mut plan = response("plan", "gpt-5.5");
    plan.attributes
        .push(otlp::attribute("auth_mode", otlp::text("Chatgpt")));
    for body in [
        api.clone(),
        api,
        otlp::encode(vec![plan]),
        otlp::encode(vec![response("other", "gpt-5.4")]),
    ] {
        tacho.logs(&body);
    }
    tacho.wait_for_count("tacho_tokens_total", &[], 3 * 1_100);
    tacho.wait_for_count("tacho_log_records_total", &[("outcome", "duplicate")], 1);
}

/// A file with prices for gpt-5.5 alone: 2 dollars a million input tokens, 12 a million output tokens, and a tenth of that
/// in credits.
fn file(dir: &std::path::Path) -> PathBuf {
    let path = dir.join("prices.toml");
    let change = EpochChange::from(prices(2_000_000));
    std::fs::write(&path, toml::to_string(&change).unwrap()).unwrap();
    path
}

fn check(file: &std::path::Path, more: &[&OsStr]) -> Output {
    let args = ["prices".as_ref(), "check".as_ref(), file.as_os_str()];
    run(&[&args, more].concat())
}

/// Compares the output with amounts that were worked out by hand.
fn expect(file: &std::path::Path, place: &[&OsStr]) {
    let output = check(file, &[&["--json".as_ref()], place].concat());
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let mut lines = said
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let [other, main] = [lines.next().unwrap(), lines.next().unwrap()];
    assert_eq!(lines.next(), None, "{said}");
    // GPT-5.4 costs 2.50 and 15 dollars a million tokens: 1,000 × 2.5 + 100 × 15 millionths of a dollar.
    assert_eq!(
        (
            &other["model"],
            &other["tokens"],
            &other["in_force"]["cost_nano_usd"]
        ),
        (&json!("gpt-5.4"), &json!(1_100), &json!(4_000_000))
    );
    assert_eq!(
        other["file"],
        json!({
            "cost_nano_usd": 0, "equivalent_nano_usd": 0, "micro_credits": 0,
            "unpriced_tokens_api_usd": 1_100, "unpriced_tokens_chatgpt_credits": 0,
        })
    );
    // GPT-5.5 costs 5 and 30 dollars; by the file 2 and 12 dollars, 0.2 and 1.2 credits.
    assert_eq!(
        (&main["model"], &main["tokens"]),
        (&json!("gpt-5.5"), &json!(2_200))
    );
    assert_eq!(main["in_force"]["cost_nano_usd"], json!(8_000_000));
    assert_eq!(main["in_force"]["equivalent_nano_usd"], json!(8_000_000));
    assert_eq!(
        main["file"],
        json!({
            "cost_nano_usd": 3_200_000, "equivalent_nano_usd": 3_200_000, "micro_credits": 320,
            "unpriced_tokens_api_usd": 0, "unpriced_tokens_chatgpt_credits": 0,
        })
    );

    let shown = run(&[&["control".as_ref(), "show".as_ref()], place].concat());
    let epochs = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(epochs.lines().count(), 1, "prices were applied: {epochs}");
}

#[test]
fn a_check_of_prices_on_the_embedded_log_beside_a_process_and_without() {
    let dir = tempfile::tempdir().unwrap();
    let files = tempfile::tempdir().unwrap();
    let (file, place) = (file(files.path()), ["--data".as_ref(), dir.path().as_os_str()]);
    let tacho = Start::data(dir.path()).ready();
    send(&tacho);
    expect(&file, &place);
    tacho.end();
    expect(&file, &place);

    let output = check(&file, &place);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("0.0032") && said.contains("-0.0048") && said.contains("tokens without USD"),
        "{said}"
    );
}

#[test]
fn a_check_of_prices_on_kafka() {
    let bootstrap = Broker::shared().bootstrap();
    let files = tempfile::tempdir().unwrap();
    let tacho = Start::kafka(&bootstrap, "check.").ready();
    send(&tacho);
    expect(
        &file(files.path()),
        &["--kafka", &bootstrap, "--prefix", "check."].map(OsStr::new),
    );
}

#[test]
fn every_fault_of_a_price_table_is_named_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prices.toml");
    let row = r#"{ book = "api_usd", model = "m", input = -1, output = 2, source = "nowhere" }"#;
    std::fs::write(&path, format!("[prices]\nversion = \"x\"\nrows = [{row}]\n")).unwrap();
    let output = check(
        &path,
        &["--days", "8", "--data"]
            .map(OsStr::new)
            .into_iter()
            .chain([dir.path().as_os_str()])
            .collect::<Vec<_>>(),
    );
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{said}");
    for fault in ["--days 8", "input", "nowhere"] {
        assert!(said.contains(fault), "{fault} is not in: {said}");
    }
}
