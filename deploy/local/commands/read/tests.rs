use super::*;
use bytes::Bytes;
use processor_log::Batch;
use schemas::time::AppendTime;

/// A topic with two partitions. Every third offset is no record, as with the marks of transactions.
#[derive(Default)]
struct Fake {
    records: [Vec<Record>; 2],
    start: [i64; 2],
    /// A read below this offset fails although the extent began lower, as when retention runs between the two calls.
    gone: i64,
}

impl Fake {
    fn add(&mut self, partition: usize, at_ms: i64, key: &'static str, value: Option<&'static str>) {
        let offset = self.records[partition].last().map_or(1, |record| {
            record.offset + if record.offset % 3 == 2 { 2 } else { 1 }
        });
        self.records[partition].push(Record {
            from: TopicPartition {
                topic: Topic::Sessions,
                partition: i32::try_from(partition).unwrap(),
            },
            offset,
            appended: AppendTime(at_ms),
            key: Some(Bytes::from_static(key.as_bytes())),
            value: value.map(|value| Bytes::from_static(value.as_bytes())),
            headers: vec![],
        });
    }
}

impl ReadLog for Fake {
    fn partitions(&mut self, _: Topic) -> Result<i32, LogError> {
        Ok(2)
    }

    fn extent(&mut self, at: TopicPartition) -> Result<Extent, LogError> {
        let partition = usize::try_from(at.partition).unwrap();
        let end = self.records[partition]
            .last()
            .map_or(0, |record| record.offset + 2);
        Ok(Extent {
            start: Position(self.start[partition]),
            end: Position(end),
        })
    }

    fn read(&mut self, at: TopicPartition, from: Position, max: usize) -> Result<Batch, LogError> {
        if from.0 < self.gone {
            return Err(LogError::OutOfRange {
                at,
                wanted: from.0,
                start: self.gone,
            });
        }
        let all = &self.records[usize::try_from(at.partition).unwrap()];
        let records: Vec<Record> = all
            .iter()
            .filter(|record| record.offset >= from.0)
            .take(max)
            .cloned()
            .collect();
        let next = records.last().map_or(from, Record::position);
        Ok(Batch { records, next })
    }
}

fn options(topic: Topic, from_start: bool, follow: bool) -> ReadOptions {
    ReadOptions {
        topic,
        from_start,
        follow,
        json: true,
        place: Place::Temporary,
    }
}

/// The values of the printed lines.
fn printed(fake: &mut Fake, options: &ReadOptions) -> Vec<String> {
    let mut out = Vec::new();
    Reader {
        source: fake,
        options,
        out: &mut out,
    }
    .print(|| ())
    .unwrap();
    let value = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["value"]
            .as_str()
            .unwrap_or("null")
            .to_owned()
    };
    String::from_utf8(out).unwrap().lines().map(value).collect()
}

fn three_rows() -> Fake {
    let mut fake = Fake::default();
    fake.add(0, 1, "a", Some("a1"));
    fake.add(0, 4, "b", Some("b1"));
    fake.add(1, 2, "c", Some("c1"));
    fake.add(0, 5, "a", Some("a2"));
    fake.add(0, 6, "gone", Some("g1"));
    fake.add(0, 7, "gone", None);
    fake
}

#[test]
fn compacted_topics_show_the_latest_row_of_each_key() {
    assert_eq!(
        printed(&mut three_rows(), &options(Topic::Sessions, false, false)),
        ["c1", "b1", "a2"]
    );
}

#[test]
fn from_start_shows_everything() {
    assert_eq!(
        printed(&mut three_rows(), &options(Topic::Sessions, true, false)),
        ["a1", "b1", "a2", "g1", "null", "c1"]
    );
}

#[test]
fn other_topics_show_the_last_thousand_in_order_of_time() {
    let mut fake = Fake::default();
    let values: Vec<&'static str> = (0..3000).map(|n: i32| &*n.to_string().leak()).collect();
    for (n, value) in values.iter().enumerate() {
        fake.add(n % 2, i64::try_from(n).unwrap(), "k", Some(value));
    }
    assert_eq!(
        printed(&mut fake, &options(Topic::Windows1m, false, false)),
        values[2000..]
    );
    let mut few = three_rows();
    few.start = [2, 0];
    assert_eq!(
        printed(&mut few, &options(Topic::Windows1m, false, false)),
        ["c1", "b1", "a2", "g1", "null"]
    );
}

#[test]
fn what_retention_took_meanwhile_is_skipped() {
    let mut fake = three_rows();
    fake.gone = 2;
    assert_eq!(
        printed(&mut fake, &options(Topic::Sessions, true, false)),
        ["b1", "a2", "g1", "null"]
    );
}

/// An output that is closed after some lines, like a pipe into `head`.
struct Head {
    taken: Vec<u8>,
    lines: usize,
}

impl Write for Head {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.taken.iter().filter(|byte| **byte == b'\n').count() >= self.lines {
            return Err(ErrorKind::BrokenPipe.into());
        }
        self.taken.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn follow_goes_on_with_what_comes_after_the_first_rows() {
    /// A topic that other code adds rows to while it is read.
    struct Growing(std::sync::Arc<std::sync::Mutex<Fake>>);
    impl ReadLog for Growing {
        fn partitions(&mut self, topic: Topic) -> Result<i32, LogError> {
            self.0.lock().unwrap().partitions(topic)
        }
        fn extent(&mut self, at: TopicPartition) -> Result<Extent, LogError> {
            self.0.lock().unwrap().extent(at)
        }
        fn read(&mut self, at: TopicPartition, from: Position, max: usize) -> Result<Batch, LogError> {
            self.0.lock().unwrap().read(at, from, max)
        }
    }
    let fake = std::sync::Arc::new(std::sync::Mutex::new(three_rows()));
    let mut out = Head {
        taken: Vec::new(),
        lines: 5,
    };
    let options = options(Topic::Sessions, false, true);
    let ended = Reader {
        source: &mut Growing(fake.clone()),
        options: &options,
        out: &mut out,
    }
    .print(|| fake.lock().unwrap().add(1, 9, "d", Some("d1")));
    assert!(matches!(ended, Err(ReadError::Closed)));
    let text = String::from_utf8(out.taken).unwrap();
    let values: Vec<&str> = text
        .lines()
        .map(|line| if line.contains("d1") { "d1" } else { "old" })
        .collect();
    assert_eq!(values, ["old", "old", "old", "d1", "d1"]);
}

#[test]
fn a_directory_without_data_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let fault = source::directory(dir.path(), "").err();
    assert!(matches!(fault, Some(Failure::Start(faults)) if faults[0].contains("holds no data")));
}
