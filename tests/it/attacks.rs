//! Requests that are made to exhaust memory: decompression bombs, many small items that grow when decoded, deep nesting, huge
//! values; one by one, and four at once. `tacho-ingest` stays under 256 MiB through all of them, and answers a good request
//! after each. `tacho`, which holds the log and the processor too, stays under 512 MiB.

use crate::support::broker::Broker;
use crate::support::processes::{self, Process};
use crate::support::tacho::{JSON, PROTOBUF, Start, Tacho};
use crate::support::{now_ms, otlp};
use std::io::{Read, repeat};

/// The most memory of `tacho-ingest`, bytes.
const MEMORY_MAX: u64 = 256 << 20;
/// The most memory of `tacho`, bytes.
const WHOLE_MEMORY_MAX: u64 = 512 << 20;
const MIB: usize = 1 << 20;

struct Attack {
    what: &'static str,
    path: &'static str,
    content_type: &'static str,
    encoding: Option<&'static str>,
    body: Vec<u8>,
    /// The expected status over HTTP.
    status: u16,
}

fn varint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a length-delimited field.
fn field(number: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    varint(payload.len(), &mut out);
    out.extend_from_slice(payload);
    out
}

/// A request with one scope that has this content.
fn in_scope(content: &[u8]) -> Vec<u8> {
    field(1, &field(2, content))
}

fn in_record(content: &[u8]) -> Vec<u8> {
    in_scope(&field(2, content))
}

/// An attribute whose value is a string.
fn attribute(key: &[u8], text: &[u8]) -> Vec<u8> {
    field(6, &[field(1, key), field(2, &field(1, text))].concat())
}

/// A body that is nested `levels` deep: lists in lists, or maps in maps.
fn nested(levels: usize, is_map: bool) -> Vec<u8> {
    // The body is written backwards, since a length is known only after the content that follows it.
    let mut reversed: Vec<u8> = Vec::new();
    let wrap = |number: u8, reversed: &mut Vec<u8>| {
        let mut head = vec![number << 3 | 2];
        varint(reversed.len(), &mut head);
        reversed.extend(head.iter().rev());
    };
    for _ in 0..levels {
        if is_map {
            wrap(2, &mut reversed);
        }
        wrap(1, &mut reversed);
        wrap(if is_map { 6 } else { 5 }, &mut reversed);
    }
    wrap(5, &mut reversed);
    reversed.reverse();
    in_record(&reversed)
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(bytes, 3).unwrap()
}

/// Gzip of that many MiB of zeros, each MiB in a member of its own.
fn gzip_bomb(mebibytes: usize) -> Vec<u8> {
    otlp::gzip(&vec![0; MIB]).repeat(mebibytes)
}

fn zstd_bomb(window_log: u32) -> Vec<u8> {
    let mut encoder = ::zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(window_log).unwrap();
    std::io::copy(&mut repeat(0).take(256 << 20), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

fn json_records(content: &str) -> Vec<u8> {
    format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{content}]}}]}}]}}"#).into_bytes()
}

#[expect(clippy::too_many_lines, reason = "a table: one entry an attack")]
fn attacks() -> Vec<Attack> {
    let list =
        |item: &str, bytes: usize| format!("{}{item}", format!("{item},").repeat(bytes / (item.len() + 1)));
    let numbers = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"histogram":{{"dataPoints":[{{"bucketCounts":[{}]}}]}}}}]}}]}}]}}"#,
        list("0", 15 * MIB)
    );
    let many_conversations: Vec<u8> = (0..5_000)
        .flat_map(|at: u32| field(2, &attribute(b"conversation.id", format!("c-{at}").as_bytes())))
        .collect();
    let text = vec![b'x'; 60 * MIB];
    let of = |what, content_type, encoding, body, status| Attack {
        what,
        path: "/v1/logs",
        content_type,
        encoding,
        body,
        status,
    };
    let (gzip, plain) = (Some("gzip"), None);
    vec![
        // Decompression bombs.
        of("gzip of many members", PROTOBUF, gzip, gzip_bomb(256), 413),
        of(
            "gzip within gzip",
            PROTOBUF,
            gzip,
            otlp::gzip(&gzip_bomb(256)),
            400,
        ),
        of("zstd", PROTOBUF, Some("zstd"), zstd_bomb(20), 413),
        of(
            "zstd with a large window",
            PROTOBUF,
            Some("zstd"),
            zstd_bomb(27),
            400,
        ),
        of("gzip of JSON", JSON, gzip, gzip_bomb(256), 413),
        // Items that grow when they are decoded.
        of(
            "empty records",
            PROTOBUF,
            plain,
            in_scope(&[0x12, 0].repeat(2 * MIB)),
            413,
        ),
        of(
            "empty records, compressed",
            PROTOBUF,
            gzip,
            otlp::gzip(&in_scope(&[0x12, 0].repeat(30 * MIB))),
            413,
        ),
        of(
            "empty attributes",
            PROTOBUF,
            plain,
            in_record(&[0x32, 0].repeat(2 * MIB)),
            413,
        ),
        of("empty resources", PROTOBUF, plain, [0x0a, 0].repeat(7 * MIB), 413),
        of(
            "empty scopes",
            PROTOBUF,
            Some("zstd"),
            zstd(&field(1, &[0x12, 0].repeat(30 * MIB))),
            413,
        ),
        of(
            "unknown fields of the request",
            PROTOBUF,
            plain,
            [0x78, 0].repeat(7 * MIB),
            413,
        ),
        of(
            "records of as many conversations",
            PROTOBUF,
            plain,
            in_scope(&many_conversations),
            200,
        ),
        of(
            "empty records of JSON",
            JSON,
            plain,
            json_records(&list("{}", 15 * MIB)),
            413,
        ),
        of(
            "empty attributes of JSON",
            JSON,
            plain,
            json_records(&format!(r#"{{"attributes":[{}]}}"#, list("{}", 15 * MIB))),
            413,
        ),
        of(
            "unknown lists of JSON",
            JSON,
            plain,
            json_records(&format!(r#"{{"x":[{}]}}"#, list("[]", 15 * MIB))),
            200,
        ),
        Attack {
            path: "/v1/metrics",
            ..of("numbers of JSON", JSON, plain, numbers.into_bytes(), 413)
        },
        // Deep nesting.
        of("lists in lists", PROTOBUF, plain, nested(48, false), 400),
        of("more lists in lists", PROTOBUF, plain, nested(200, false), 400),
        of(
            "a great many lists in lists",
            PROTOBUF,
            plain,
            nested(200_000, false),
            400,
        ),
        of("maps in maps", PROTOBUF, plain, nested(200_000, true), 400),
        of(
            "lists in lists of JSON",
            JSON,
            plain,
            json_records(&format!(
                r#"{{"body":{}"#,
                r#"{"arrayValue":{"values":["#.repeat(200_000)
            )),
            400,
        ),
        of(
            "arrays in arrays of JSON",
            JSON,
            plain,
            json_records(&"[".repeat(8 * MIB)),
            400,
        ),
        // Huge values, which are cut if that is enough, and else refused.
        of(
            "a text of 60 MiB",
            PROTOBUF,
            gzip,
            otlp::gzip(&in_record(&attribute(b"note", &text))),
            200,
        ),
        of(
            "a text of 60 MiB by zstd",
            PROTOBUF,
            Some("zstd"),
            zstd(&in_record(&attribute(b"note", &text))),
            200,
        ),
        of(
            "a text of 15 MiB",
            PROTOBUF,
            plain,
            in_record(&attribute(b"note", &text[..15 * MIB])),
            200,
        ),
        of(
            "a key of 60 MiB",
            PROTOBUF,
            Some("zstd"),
            zstd(&in_record(&attribute(&text, b"v"))),
            413,
        ),
        of(
            "300,000 attributes",
            PROTOBUF,
            plain,
            in_record(&attribute(b"key", b"value").repeat(300_000)),
            413,
        ),
        of(
            "a text of 60 MiB of JSON",
            JSON,
            gzip,
            otlp::gzip(&json_records(&format!(
                r#"{{"eventName":"{}"}}"#,
                String::from_utf8(text).unwrap()
            ))),
            413,
        ),
    ]
}

/// The process that is attacked.
trait Target: Sync {
    fn post(&self, attack: &Attack) -> Result<u16, String>;
    fn good(&self);
    fn memory_peak(&self) -> u64;
}

impl Target for Tacho {
    fn post(&self, attack: &Attack) -> Result<u16, String> {
        self.post_encoded(attack.path, attack.content_type, attack.encoding, &attack.body)
    }

    fn good(&self) {
        self.logs(&otlp::encode(vec![otlp::prompt("good", now_ms())]));
    }

    fn memory_peak(&self) -> u64 {
        self.memory_peak()
    }
}

impl Target for Process {
    fn post(&self, attack: &Attack) -> Result<u16, String> {
        self.post_encoded(attack.path, attack.content_type, attack.encoding, &attack.body)
    }

    fn good(&self) {
        self.logs(&otlp::encode(vec![otlp::prompt("good", now_ms())]));
    }

    fn memory_peak(&self) -> u64 {
        self.memory_peak()
    }
}

/// Makes each attack alone, then four times at once, and checks answers and memory after each.
fn withstand(target: &impl Target, memory_max: u64) {
    let mut peaks = Vec::new();
    for attack in attacks() {
        assert_eq!(target.post(&attack), Ok(attack.status), "{}", attack.what);
        let answers: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(|| target.post(&attack))).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        for answer in answers {
            // A client that is refused for lack of room sends again later.
            assert!(
                matches!(answer, Ok(status) if status == attack.status || [429, 503].contains(&status)),
                "{}: {answer:?}",
                attack.what
            );
        }
        target.good();
        peaks.push((attack.what, target.memory_peak() / MIB as u64));
        println!("{:?} MiB", peaks[peaks.len() - 1]);
    }
    assert!(
        target.memory_peak() < memory_max,
        "MiB after each attack: {peaks:#?}"
    );
}

#[test]
fn tacho_withstands() {
    let dir = tempfile::tempdir().unwrap();
    withstand(&Start::data(dir.path()).ready(), WHOLE_MEMORY_MAX);
}

#[test]
fn ingest_withstands_over_both_protocols() {
    let bootstrap = Broker::shared().bootstrap();
    let topics = [
        "topics",
        "apply",
        "--allow-single-broker",
        "--kafka",
        &bootstrap,
        "--prefix",
        "attacks.",
        "--raw-partitions",
        "1",
    ];
    let made = processes::tacho().args(&topics).run();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let door = processes::ingest(&bootstrap, "attacks.").ready();
    withstand(&door, MEMORY_MAX);
    for attack in attacks().iter().filter(|attack| attack.content_type == PROTOBUF) {
        let expected = match attack.status {
            200 => "0",
            413 => "8",
            _ => "3",
        };
        let call = || {
            door.grpc_encoded(
                "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
                attack.encoding,
                &attack.body,
            )
        };
        assert_eq!(call(), expected, "{}", attack.what);
        let answers: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(call)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(
            answers
                .iter()
                .all(|answer| [expected, "8", "14"].contains(&answer.as_str())),
            "{}: {answers:?}",
            attack.what
        );
        Target::good(&door);
    }
    let peak = Target::memory_peak(&door);
    assert!(peak < MEMORY_MAX, "{} MiB", peak / MIB as u64);
}
