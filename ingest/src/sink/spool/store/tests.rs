use super::super::disk::Directory;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The content of a file, and how many bytes of it a crash leaves for certain.
#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    durable: usize,
    /// Whether a sync failed: what was not durable then never will be, whatever a later sync says.
    is_given_up: bool,
}

/// A disk in memory that fails when it is told to, and loses in a crash what was not synced.
#[derive(Clone, Default)]
struct Model(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    files: BTreeMap<String, Content>,
    /// How many writes or syncs succeed before one fails; none: none fails.
    fail_in: Option<u32>,
}

impl Inner {
    /// Counts one write or sync; false when it is to fail.
    fn step(&mut self) -> bool {
        match &mut self.fail_in {
            Some(0) => {
                self.fail_in = None;
                false
            }
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }
}

fn failed() -> io::Error {
    io::Error::other("told to fail")
}

impl Model {
    /// Crashes: of what was not synced up to `left` bytes are there, with up to `garbage` bytes of garbage behind them.
    fn crash(&self, left: usize, garbage: usize) {
        for content in self.0.lock().unwrap().files.values_mut() {
            let kept = content.durable + left.min(content.bytes.len() - content.durable);
            let torn = content.bytes.len() - kept;
            content.bytes.truncate(kept);
            content
                .bytes
                .extend((0..garbage.min(torn)).map(|at| (at * 37) as u8));
            (content.durable, content.is_given_up) = (content.bytes.len(), false);
        }
    }

    fn edit(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.0.lock().unwrap();
        let content = inner.files.get_mut(name).unwrap();
        edit(&mut content.bytes);
        content.durable = content.bytes.len();
    }

    fn segments(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap()
            .files
            .keys()
            .filter(|name| name.ends_with(SUFFIX))
            .cloned()
            .collect()
    }
}

impl Disk for Model {
    type File = String;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().files.keys().cloned().collect())
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        if !inner.step() {
            return Err(failed());
        }
        inner.files.insert(
            name.to_owned(),
            Content {
                bytes: bytes.to_vec(),
                durable: bytes.len(),
                is_given_up: false,
            },
        );
        Ok(())
    }

    fn open(&self, name: &str) -> io::Result<String> {
        if self.0.lock().unwrap().step() {
            Ok(name.to_owned())
        } else {
            Err(failed())
        }
    }

    fn append(&self, file: &mut String, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        let is_whole = inner.step();
        let content = inner.files.get_mut(file.as_str()).unwrap();
        content.bytes.extend_from_slice(if is_whole {
            bytes
        } else {
            &bytes[..bytes.len() / 2]
        });
        if is_whole { Ok(()) } else { Err(failed()) }
    }

    fn sync(&self, file: &mut String) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        let is_done = inner.step();
        let content = inner.files.get_mut(file.as_str()).unwrap();
        content.is_given_up |= !is_done;
        if !content.is_given_up {
            content.durable = content.bytes.len();
        }
        if is_done { Ok(()) } else { Err(failed()) }
    }

    fn read(&self, name: &str, at: u64, length: usize) -> io::Result<Vec<u8>> {
        let inner = self.0.lock().unwrap();
        let bytes = &inner.files.get(name).ok_or(io::ErrorKind::NotFound)?.bytes;
        let at = usize::try_from(at).unwrap().min(bytes.len());
        Ok(bytes[at..bytes.len().min(at + length)].to_vec())
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        self.edit(name, |bytes| bytes.truncate(usize::try_from(length).unwrap()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().unwrap().files.remove(name);
        Ok(())
    }
}

/// A bound that is small enough for several segments, in bytes.
const BYTES_MAX: u64 = 4 << 10;

fn open(disk: &Model) -> Store<Model> {
    Store::open(disk.clone(), BYTES_MAX, "fresh".to_owned()).unwrap()
}

fn append<D: Disk>(store: &mut Store<D>, texts: &[&str]) -> io::Result<u64> {
    store.append(texts.iter().map(|text| text.as_bytes()))
}

fn texts(batch: &Batch) -> Vec<String> {
    batch
        .records
        .iter()
        .map(|(_, body)| String::from_utf8(body.clone()).unwrap())
        .collect()
}

/// Reads and drains everything: gives the texts, and how many records were lost.
fn drain<D: Disk>(store: &mut Store<D>) -> (Vec<String>, u64) {
    let (mut all, mut lost) = (Vec::new(), store.lost_at_start());
    while store.records() > 0 {
        let batch = store.read(100).unwrap();
        all.extend(texts(&batch));
        lost += batch.lost;
        store.drained(&batch).unwrap();
    }
    (all, lost)
}

#[test]
fn what_was_written_is_there_after_a_restart_and_gone_once_drained() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool");
    let reopen = |id: &str| Store::open(Directory::take(&path).unwrap(), 1 << 20, id.to_owned()).unwrap();
    let mut store = reopen("one");
    append(&mut store, &["a", "b"]).unwrap();
    append(&mut store, &["c"]).unwrap();
    assert!(Directory::take(&path).is_err(), "one process at a time");
    drop(store);
    let mut store = reopen("two");
    assert_eq!((store.id(), store.records()), ("one", 3));
    let first = store.read(1).unwrap();
    assert_eq!(texts(&first), ["a"]);
    store.drained(&first).unwrap();
    let d = append(&mut store, &["d"]).unwrap();
    assert!(d >= SKIP, "numbers are not used again");
    drop(store);
    let mut store = reopen("three");
    assert_eq!(
        drain(&mut store),
        (vec!["b".to_owned(), "c".to_owned(), "d".to_owned()], 0)
    );
    assert_eq!((store.bytes(), store.id()), (0, "one"));
    let names: Vec<_> = std::fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "state and lock: {names:?}");
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&path.join(STATE))), (0o700, 0o600));
}

#[test]
fn an_empty_segment_does_not_hide_what_comes_after_it() {
    let disk = Model::default();
    let mut store = open(&disk);
    // In the first round no segment can be begun; in the second one is begun and can't be opened.
    for (fail_in, text) in [(0, "a"), (1, "b")] {
        disk.0.lock().unwrap().fail_in = Some(fail_in);
        assert!(append(&mut store, &[text]).is_err());
    }
    drop(store);
    disk.crash(0, 0);
    let mut store = open(&disk);
    append(&mut store, &["c"]).unwrap();
    assert_eq!(drain(&mut store), (vec!["c".to_owned()], 0));
}

#[test]
fn without_its_state_all_is_drained_under_another_name() {
    let disk = Model::default();
    let mut store = open(&disk);
    append(&mut store, &["a", "b"]).unwrap();
    let batch = store.read(1).unwrap();
    store.drained(&batch).unwrap();
    disk.edit(STATE, |bytes| bytes[0] = b'x');
    let mut store = Store::open(disk, BYTES_MAX, "other".to_owned()).unwrap();
    assert_eq!(store.id(), "other");
    assert_eq!(drain(&mut store), (vec!["a".to_owned(), "b".to_owned()], 0));
}

#[test]
fn a_broken_record_is_counted_and_those_around_it_are_drained() {
    let disk = Model::default();
    let mut store = open(&disk);
    append(&mut store, &["aaaa", "bbbb", "cccc", "dddd"]).unwrap();
    let name = disk.segments()[0].clone();
    let at = |text: &'static str| {
        move |bytes: &mut Vec<u8>| {
            let found = bytes
                .windows(4)
                .position(|window| window == text.as_bytes())
                .unwrap();
            bytes[found] ^= 1;
        }
    };
    disk.edit(&name, at("bbbb"));
    disk.edit(&name, at("dddd"));
    assert_eq!(drain(&mut store), (vec!["aaaa".to_owned(), "cccc".to_owned()], 2));
}

#[test]
fn segments_that_are_broken_gone_or_cut_are_counted() {
    let fill = |disk: &Model| {
        let mut store = open(disk);
        for number in 0..30 {
            append(&mut store, &[&format!("{number:->100}")]).unwrap();
        }
        drop(store);
        disk.segments()
    };
    for harm in ["none", "cut", "gone", "head"] {
        let disk = Model::default();
        let names = fill(&disk);
        assert!(names.len() > 4, "{names:?}");
        match harm {
            "cut" => disk.edit(&names[1], |bytes| bytes.truncate(60)),
            "gone" => disk.remove(&names[1]).unwrap(),
            "head" => disk.edit(&names[1], |bytes| bytes[9] ^= 1),
            _ => {}
        }
        let (read, lost) = drain(&mut open(&disk));
        let at_least = u64::from(harm != "none");
        assert!(
            lost >= at_least && (lost > 0) == (harm != "none"),
            "{harm}: {lost}"
        );
        assert!(
            read.len() as u64 + lost <= 30 + 1,
            "{harm}: {} + {lost}",
            read.len()
        );
        assert!(read.is_sorted() && read.len() >= 20, "{harm}: {read:?}");
    }
}

#[test]
fn after_a_failed_fsync_nothing_of_it_is_read_and_the_next_goes_elsewhere() {
    let disk = Model::default();
    let mut store = open(&disk);
    append(&mut store, &["kept"]).unwrap();
    // The write succeeds, and the fsync fails.
    disk.0.lock().unwrap().fail_in = Some(1);
    assert!(append(&mut store, &["refused"]).is_err());
    append(&mut store, &["after"]).unwrap();
    assert_eq!(disk.segments().len(), 2);
    disk.crash(usize::MAX, 0);
    assert_eq!(texts(&store.read(1_000).unwrap()), ["kept", "after"]);
    assert_eq!(
        drain(&mut open(&disk)),
        (vec!["kept".to_owned(), "after".to_owned()], 0)
    );
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<u8>),
    Fail(u32),
    Drain(usize),
    Crash { left: usize, garbage: usize },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(0..200u8, 1..5).prop_map(Step::Append),
        2 => (0..8u32).prop_map(Step::Fail),
        3 => (1..2_000usize).prop_map(Step::Drain),
        2 => (0..300usize, 0..100usize).prop_map(|(left, garbage)| Step::Crash { left, garbage }),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever fails, tears or crashes, what was confirmed is read, in order. Only what was not drained durably is read twice. What
    /// was refused may be there, since it was under way at a crash, but it never disturbs the order.
    #[test]
    fn nothing_confirmed_is_lost_and_order_holds(steps in prop::collection::vec(step(), 1..60)) {
        let disk = Model::default();
        let mut store = open(&disk);
        let mut sent = 0_u64;
        let mut confirmed: Vec<u64> = Vec::new();
        let mut read: Vec<u64> = Vec::new();
        let mut numbers: Vec<u64> = Vec::new();
        let take = |store: &mut Store<Model>, bytes: usize, read: &mut Vec<u64>, numbers: &mut Vec<u64>| {
            let batch = store.read(bytes).unwrap();
            prop_assert_eq!(batch.lost, 0);
            for (number, body) in &batch.records {
                read.push(u64::from_le_bytes(body[..8].try_into().unwrap()));
                numbers.push(*number);
            }
            // This may fail; then what was read may come again after a restart.
            let _ = store.drained(&batch);
            Ok(())
        };
        for step in steps {
            match step {
                Step::Append(sizes) => {
                    let bodies: Vec<Vec<u8>> = sizes.iter().map(|&size| {
                        sent += 1;
                        let mut body = sent.to_le_bytes().to_vec();
                        body.extend(std::iter::repeat_n(7, usize::from(size)));
                        body
                    }).collect();
                    let first = sent - bodies.len() as u64 + 1;
                    if store.append(bodies.iter().map(Vec::as_slice)).is_ok() {
                        confirmed.extend(first..=sent);
                    }
                }
                Step::Fail(at) => disk.0.lock().unwrap().fail_in = Some(at),
                Step::Drain(bytes) => take(&mut store, bytes, &mut read, &mut numbers)?,
                Step::Crash { left, garbage } => {
                    disk.0.lock().unwrap().fail_in = None;
                    disk.crash(left, garbage);
                    store = open(&disk);
                }
                Step::Restart => {
                    disk.0.lock().unwrap().fail_in = None;
                    store = open(&disk);
                }
            }
            prop_assert_eq!(store.lost_at_start(), 0);
        }
        disk.0.lock().unwrap().fail_in = None;
        while store.bytes() > 0 {
            take(&mut store, 500, &mut read, &mut numbers)?;
        }
        prop_assert_eq!(store.bytes(), 0);
        // A record that comes again has the number that it had before, and first occurrences are in order.
        let mut first_seen: BTreeMap<u64, u64> = BTreeMap::new();
        let mut highest = 0;
        for (value, number) in read.iter().zip(&numbers) {
            let known = *first_seen.entry(*value).or_insert(*number);
            prop_assert_eq!(known, *number, "a number names one record");
            if *number > highest {
                highest = *number;
            }
        }
        let by_number: BTreeMap<u64, u64> = first_seen.iter().map(|(value, number)| (*number, *value)).collect();
        prop_assert_eq!(by_number.len(), first_seen.len());
        prop_assert!(by_number.values().is_sorted(), "numbers are in the order of sending");
        let lost: Vec<u64> = confirmed.iter().copied().filter(|value| !first_seen.contains_key(value)).collect();
        prop_assert!(lost.is_empty(), "confirmed and gone: {:?}", lost);
    }
}
