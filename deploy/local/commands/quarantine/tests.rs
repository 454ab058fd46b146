use super::options::{Chosen, LISTED_MAX};
use super::*;
use crate::cli::{Invocation, NothingToDo, parse};
use crate::place::Env;
use bytes::Bytes;
use processor_log::{Batch, Extent};
use schemas::record::{
    HEADER_CUT_FROM, HEADER_ORIGIN, HEADER_REASON, HEADER_RETRIED, HEADER_RETRIED_TO, HEADER_RETRY_OF,
    HEADER_TENANT,
};
use schemas::time::AppendTime;
use serde_json::Value;
use std::ffi::OsString;

/// A quarantine that lost its first records to retention.
struct Fake(Vec<Record>);

const START: i64 = 2;

impl Fake {
    fn add(&mut self, value: &[u8], headers: &[(&str, &str)]) {
        let offset = START + i64::try_from(self.0.len()).unwrap();
        self.0.push(Record {
            from: QUARANTINE,
            offset,
            appended: AppendTime(offset * 1_000),
            key: Some(Bytes::from_static(b"protobuf")),
            value: Some(Bytes::copy_from_slice(value)),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Bytes::copy_from_slice(value.as_bytes())))
                .collect(),
        });
    }
}

impl ReadLog for Fake {
    fn partitions(&mut self, _: Topic) -> Result<i32, LogError> {
        Ok(1)
    }

    fn extent(&mut self, _: TopicPartition) -> Result<Extent, LogError> {
        // The extent begins one record too low, as when retention runs before the read.
        Ok(Extent {
            start: Position(START - 1),
            end: Position(START + i64::try_from(self.0.len()).unwrap()),
        })
    }

    fn read(&mut self, at: TopicPartition, from: Position, _: usize) -> Result<Batch, LogError> {
        if from.0 < START {
            return Err(LogError::OutOfRange {
                at,
                wanted: from.0,
                start: START,
            });
        }
        let record = self.0.get(usize::try_from(from.0 - START).unwrap()).cloned();
        let next = record.as_ref().map_or(from, Record::position);
        Ok(Batch {
            records: record.into_iter().collect(),
            next,
        })
    }
}

fn quarantine() -> Fake {
    let mut fake = Fake(Vec::new());
    let origin = |place: &'static str, reason: &'static str| {
        [
            (HEADER_REASON, reason),
            (HEADER_ORIGIN, place),
            (HEADER_TENANT, "default"),
        ]
    };
    fake.add(
        b"\xff\x00 no\x1b[31m request",
        &origin("codex.inbox.logs.v1/3@17", "protobuf"),
    );
    fake.add(b"", &origin("codex.raw.logs.v1/1@9", "misrouted"));
    fake.add(
        b"",
        &[
            (HEADER_RETRIED, "2"),
            (HEADER_RETRIED_TO, "codex.inbox.logs.v1/2@40"),
        ],
    );
    let mut cut = origin("codex.inbox.traces.v1/0@5", "body_size").to_vec();
    cut.extend([
        (HEADER_CUT_FROM, "99999999"),
        (HEADER_RETRY_OF, "1 codex.inbox.traces.v1/0@4"),
    ]);
    fake.add("half a \u{202e}text\nand more".as_bytes(), &cut);
    // Two records of another writer: without headers, and with headers that a terminal would obey.
    fake.add(b"?", &[]);
    fake.add(
        b"?",
        &[
            (HEADER_REASON, "\x1b[2J"),
            (HEADER_ORIGIN, "codex.sessions.v1/0@1\u{9b}31m"),
        ],
    );
    fake
}

fn printed(work: impl FnOnce(&mut Fake, &mut Vec<u8>) -> Result<(), QuarantineError>) -> String {
    let mut out = Vec::new();
    work(&mut quarantine(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn offsets(filter: &Filter, limit: usize) -> Vec<i64> {
    let lines = printed(|fake, out| list(fake, filter, limit, true, out));
    lines
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["offset"]
                .as_i64()
                .unwrap()
        })
        .collect()
}

#[test]
fn a_list_says_what_where_why_and_what_became_of_it() {
    let lines = printed(|fake, out| list(fake, &Filter::default(), LISTED_MAX, false, out));
    let expected = [
        "2 1970-01-01T00:00:02.000Z default logs protobuf codex.inbox.logs.v1/3@17 18 bytes, sent again to codex.inbox.logs.v1/2@40",
        "3 1970-01-01T00:00:03.000Z default logs misrouted codex.raw.logs.v1/1@9 0 bytes",
        "5 1970-01-01T00:00:05.000Z default traces body_size codex.inbox.traces.v1/0@5 23 bytes, cut from 99999999, a retry of 1",
        "6 1970-01-01T00:00:06.000Z - - protobuf  1 bytes",
        "7 1970-01-01T00:00:07.000Z - - \\u{1b}[2J codex.sessions.v1/0@1\\u{9b}31m 1 bytes",
    ];
    assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
    let json = printed(|fake, out| list(fake, &Filter::default(), LISTED_MAX, true, out));
    let first: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["retried_to"], &first["signal"]),
        (&Value::from("codex.inbox.logs.v1/2@40"), &Value::from("logs"))
    );
}

#[test]
fn filters_and_the_limit() {
    assert_eq!(offsets(&Filter::default(), LISTED_MAX), [2, 3, 5, 6, 7]);
    assert_eq!(offsets(&Filter::default(), 2), [6, 7], "the latest");
    assert_eq!(
        offsets(
            &Filter {
                reason: Some("misrouted".to_owned()),
                since_ms: None
            },
            LISTED_MAX
        ),
        [3]
    );
    assert_eq!(
        offsets(
            &Filter {
                reason: None,
                since_ms: Some(5_000)
            },
            LISTED_MAX
        ),
        [5, 6, 7]
    );
}

#[test]
fn bytes_are_shown_as_what_they_are() {
    let dump = printed(|fake, out| show(fake, 2, ShownAs::Text, out));
    assert!(
        dump.contains("tacho-origin: codex.inbox.logs.v1/3@17\n"),
        "{dump}"
    );
    assert!(
        dump.contains(
            "00000000  ff 00 20 6e 6f 1b 5b 33 31 6d 20 72 65 71 75 65  .. no.[31m reque\n00000010  73 74"
        ),
        "{dump}"
    );
    let text = printed(|fake, out| show(fake, 5, ShownAs::Text, out));
    assert!(text.ends_with("half a \\u{202e}text\nand more\n"), "{text}");
    assert_eq!(
        printed(|fake, out| show(fake, 5, ShownAs::Bytes, out)),
        "half a \u{202e}text\nand more"
    );
    let json: Value = serde_json::from_str(&printed(|fake, out| show(fake, 2, ShownAs::Json, out))).unwrap();
    assert_eq!(
        json["value"],
        serde_json::json!({"base64": "/wAgbm8bWzMxbSByZXF1ZXN0"})
    );
    assert_eq!(json["retried_to"], "codex.inbox.logs.v1/2@40");
}

#[test]
fn what_is_no_record_of_the_quarantine_is_not_shown() {
    for offset in [-1, 0, 4, 8] {
        let shown = show(&mut quarantine(), offset, ShownAs::Text, &mut Vec::new());
        assert!(shown.is_err(), "{offset}");
    }
}

fn asked(args: &str) -> Result<QuarantineOptions, String> {
    let env = Env {
        home: Some("/home/me".into()),
        ..Env::default()
    };
    match parse(
        ["tacho", "quarantine"]
            .into_iter()
            .chain(args.split_whitespace())
            .map(OsString::from),
        &env,
    ) {
        Ok(Invocation::Quarantine(options)) => Ok(options),
        Err(NothingToDo::Faults(faults)) => Err(faults.join("; ")),
        other => panic!("{args}: {other:?}"),
    }
}

#[test]
fn the_command_line_is_checked_as_a_whole() {
    let listed = asked("list --since 1970-01-01T00:00:01Z --reason protobuf --limit 5").unwrap();
    let filter = Filter {
        reason: Some("protobuf".to_owned()),
        since_ms: Some(1_000),
    };
    assert_eq!(
        listed.what,
        QuarantineTask::List {
            filter,
            limit: 5,
            json: false
        }
    );
    assert!(matches!(
        asked("list --since 2h").unwrap().what,
        QuarantineTask::List {
            filter: Filter {
                since_ms: Some(1..),
                ..
            },
            ..
        }
    ));
    let text = asked("list --since yesterday --limit 0 --prefix x.").unwrap_err();
    for part in ["--since \"yesterday\"", "--limit", "--prefix"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let sent = asked("retry 4 5 --again --kafka h:1").unwrap();
    assert_eq!(
        sent.what,
        QuarantineTask::Retry {
            chosen: Chosen::Offsets(vec![4, 5]),
            again: true
        }
    );
    assert_eq!(
        asked("retry --all --kafka h:1").unwrap().what,
        QuarantineTask::Retry {
            chosen: Chosen::All,
            again: false
        }
    );
    for wrong in [
        "retry --kafka h:1",
        "retry 4 --all --kafka h:1",
        "retry --reason r --all --kafka h:1",
        "show",
    ] {
        assert!(asked(wrong).is_err(), "{wrong}");
    }
    assert!(
        asked("retry 4").unwrap_err().contains("--raw"),
        "the embedded log has no inbox"
    );
}
