//! Test data that commit 6f5a53d wrote: logs with their results, and whole directories.
//!
//! `tests/data/old/README.md` says how the files were made, and describes the format, which the types here read.

use super::replay::Results;
use bytes::Bytes;
use prost::Message;
use schemas::delta::AmountBytes;
use schemas::id::TopicPartition;
use schemas::metric::Amount;
use schemas::record::Record;
use schemas::settings::Seed;
use schemas::time::AppendTime;
use schemas::topic::Topic;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A log, and the results that commit 6f5a53d derived from it.
pub struct OldLog {
    /// All records of the raw logs, control and labels topics, sorted by partition and offset.
    pub inputs: Vec<Record>,
    /// The record at offset 0 of the control topic.
    pub seed: Seed,
    /// The rows and totals that were derived.
    pub results: Results,
    /// The samples of results on `/metrics`, as [`samples`] gives them.
    pub metrics: String,
}

#[derive(Clone, PartialEq, Message)]
struct LogFile {
    #[prost(message, repeated, tag = "1")]
    inputs: Vec<InputRecord>,
    #[prost(message, repeated, tag = "2")]
    windows: Vec<Row>,
    #[prost(message, repeated, tag = "3")]
    sessions: Vec<Row>,
    #[prost(message, repeated, tag = "4")]
    totals: Vec<Total>,
    #[prost(string, tag = "5")]
    metrics: String,
}

#[derive(Clone, PartialEq, Message)]
struct InputRecord {
    #[prost(string, tag = "1")]
    topic: String,
    #[prost(int32, tag = "2")]
    partition: i32,
    /// How many offsets are missing between the record before this one in its partition (or offset 0) and this one.
    #[prost(int64, tag = "3")]
    skipped: i64,
    /// The append time, as the difference to that of the record before this one in its partition (or to 1970), ms.
    #[prost(sint64, tag = "4")]
    later_ms: i64,
    #[prost(bytes = "bytes", optional, tag = "5")]
    key: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "6")]
    value: Option<Bytes>,
    #[prost(message, repeated, tag = "7")]
    headers: Vec<Header>,
}

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Row {
    #[prost(string, tag = "1")]
    topic: String,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(bytes = "vec", tag = "3")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Total {
    #[prost(string, tag = "1")]
    series: String,
    #[prost(message, optional, tag = "2")]
    amount: Option<AmountBytes>,
}

#[derive(Clone, PartialEq, Message)]
struct Archive {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    /// Path below the directory that was archived.
    #[prost(string, tag = "1")]
    path: String,
    /// The permission bits.
    #[prost(uint32, tag = "2")]
    mode: u32,
    /// The content; absent for a folder.
    #[prost(bytes = "vec", optional, tag = "3")]
    content: Option<Vec<u8>>,
}

/// Reads `NAME.zst`.
pub fn log(name: &str) -> OldLog {
    let LogFile {
        inputs,
        windows,
        sessions,
        totals,
        metrics,
    } = LogFile::decode(unpacked(name).as_slice()).unwrap();
    let topic = |name: &str| Topic::by_name(name).unwrap_or_else(|| panic!("no topic {name}"));
    let mut last = BTreeMap::new();
    let inputs: Vec<Record> = inputs
        .into_iter()
        .map(|record| {
            let from = TopicPartition {
                topic: topic(&record.topic),
                partition: record.partition,
            };
            let (next, time) = last.get(&from).copied().unwrap_or((0, 0));
            let (offset, appended) = (next + record.skipped, time + record.later_ms);
            last.insert(from, (offset + 1, appended));
            Record {
                from,
                offset,
                appended: AppendTime(appended),
                key: record.key,
                value: record.value,
                headers: record
                    .headers
                    .into_iter()
                    .map(|header| (header.name, header.value))
                    .collect(),
            }
        })
        .collect();
    let is_seed = |record: &&Record| record.from.topic == Topic::Control && record.offset == 0;
    let seed = inputs.iter().find(is_seed).unwrap().value.clone().unwrap();
    let results = Results {
        windows: windows
            .into_iter()
            .map(|row| (topic(&row.topic).name(), row.key, row.value))
            .collect(),
        sessions: sessions.into_iter().map(|row| (row.key, row.value)).collect(),
        totals: totals
            .into_iter()
            .map(|total| (total.series, Amount::from(&total.amount.unwrap())))
            .collect(),
    };
    OldLog {
        seed: Seed::from_json(&seed).unwrap(),
        inputs,
        results,
        metrics,
    }
}

/// Writes the files of `NAME.zst` into `dir`, which is created.
pub fn unpack(name: &str, dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    for Entry { path, mode, content } in Archive::decode(unpacked(name).as_slice()).unwrap().entries {
        let path = dir.join(path);
        match content {
            Some(content) => std::fs::write(&path, content).unwrap(),
            None => std::fs::create_dir(&path).unwrap(),
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn unpacked(name: &str) -> Vec<u8> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/old");
    let file = std::fs::File::open(dir.join(format!("{name}.zst"))).unwrap();
    zstd::decode_all(file).unwrap()
}

/// The label that later versions add to every result: the name of the derivation.
const LOG_LABEL: &str = "log";
/// The metric that later versions add once for each derivation.
const LOG_INFO: &str = "tacho_log_info";

/// The samples of results in a text of `/metrics`, sorted, without timestamps and without what later versions add.
///
/// The process's own metrics are left out; they are those without timestamps.
pub fn samples(metrics: &str) -> String {
    let mut lines: Vec<String> = metrics.lines().filter_map(sample).collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn sample(line: &str) -> Option<String> {
    if line.starts_with('#') || line.starts_with(LOG_INFO) {
        return None;
    }
    let (series, values) = match line.rfind('}') {
        Some(end) => line.split_at(end + 1),
        None => line.split_at(line.find(' ')?),
    };
    let (value, _time) = values.trim_start().split_once(' ')?;
    Some(format!("{} {value}", without_label(series, LOG_LABEL)))
}

fn without_label(series: &str, label: &str) -> String {
    // Quotes within label values are escaped, so the text of the label is not found within a value.
    let Some(start) = [format!("{{{label}=\""), format!(",{label}=\"")]
        .iter()
        .find_map(|begin| series.find(begin.as_str()))
    else {
        return series.to_owned();
    };
    let value = start + 1 + label.len() + 2;
    let end = value + series[value..].find('"').unwrap() + 1;
    let (before, after) = (&series[..=start], &series[end..]);
    // One of the commas beside the label is removed with it, and so are braces that become empty.
    match (before.ends_with('{'), after.strip_prefix(',')) {
        (true, None) => before.trim_end_matches('{').to_owned(),
        (_, Some(rest)) => format!("{before}{rest}"),
        (false, None) => format!("{}{after}", before.trim_end_matches(',')),
    }
}

#[test]
fn samples_of_results_are_told_apart_and_lose_their_times_and_what_is_new() {
    let text = "# HELP a b\na{x=\"1\",log=\"main\"} 3 17\nown 5\nb{log=\"main\",y=\" log=\\\"}\"} 0.5 17\n\
                c{log=\"m\"} 1 17\nd 2 17\ne{x=\"1\",log=\"m\",z=\"2\"} 1 17\ntacho_log_info{log=\"m\"} 1 17\n";
    let expected = "a{x=\"1\"} 3\nb{y=\" log=\\\"}\"} 0.5\nc 1\nd 2\ne{x=\"1\",z=\"2\"} 1";
    assert_eq!(samples(text), expected);
}
