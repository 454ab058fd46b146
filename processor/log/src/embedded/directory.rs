//! The data directory: a marker file says that it is ours and in which format, and a lock on it keeps other processes out.

use crate::LogError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The name of the file that marks a directory as ours.
const MARKER: &str = "tachograph.format";
/// The first line of the marker file: the version of the directory's layout.
const FORMAT: &str = "tachograph data, format 1";

/// A data directory that this process holds.
#[derive(Debug)]
pub(super) struct Directory {
    /// Where the store lies.
    pub store: PathBuf,
    /// The name of whoever writes here, made with the directory and stable over restarts.
    pub writer: String,
    /// The marker file, which is locked as long as it is open.
    _lock: File,
}

impl Directory {
    /// Takes a directory for this process; makes it if it is not there or empty.
    ///
    /// # Errors
    /// Another process has it, it holds something else, or another version's data.
    pub fn take(dir: &Path) -> Result<Self, LogError> {
        let failed =
            |what: &str, error: std::io::Error| LogError::failed(format!("{}: {what}", dir.display()), error);
        std::fs::create_dir_all(dir).map_err(|error| failed("can't make the data directory", error))?;
        let marker = dir.join(MARKER);
        if !marker.exists() {
            check_empty(dir)?;
        }
        let mut lock = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&marker)
            .map_err(|error| failed("can't open its marker file", error))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => LogError::unavailable(format!(
                "{}: another process uses this data directory; stop it, or name another directory",
                dir.display()
            )),
            TryLockError::Error(error) => failed("can't lock the data directory", error),
        })?;
        let mut text = String::new();
        lock.read_to_string(&mut text)
            .map_err(|error| failed("can't read its marker file", error))?;
        let writer = if text.is_empty() {
            let writer = new_writer();
            mark(dir, &mut lock, &writer).map_err(|error| failed("can't write its marker file", error))?;
            writer
        } else {
            parse(&marker, &text)?
        };
        Ok(Self {
            store: dir.join("store"),
            writer,
            _lock: lock,
        })
    }
}

/// Refuses a directory without a marker that holds something else.
fn check_empty(dir: &Path) -> Result<(), LogError> {
    let looked = std::fs::read_dir(dir).and_then(|mut entries| entries.next().transpose());
    let found = looked.map_err(|error| {
        LogError::failed(
            format!("{}: can't look into the data directory", dir.display()),
            error,
        )
    })?;
    match found.map(|entry| entry.file_name()) {
        // Another process may have made the marker meanwhile.
        Some(name) if name != MARKER => {
            let reason = format!(
                "it has no {MARKER} but holds {}: not a data directory; name a new or empty one",
                name.display()
            );
            Err(LogError::corrupt(dir.display().to_string(), reason))
        }
        Some(_) | None => Ok(()),
    }
}

/// Writes the marker file, durably.
fn mark(dir: &Path, marker: &mut File, writer: &str) -> std::io::Result<()> {
    marker.write_all(format!("{FORMAT}\n{writer}\n").as_bytes())?;
    marker.sync_all()?;
    File::open(dir)?.sync_all()
}

/// The writer that a marker file names.
fn parse(marker: &Path, text: &str) -> Result<String, LogError> {
    let corrupt = |reason: String| LogError::corrupt(marker.display().to_string(), reason);
    let mut lines = text.lines();
    let format = lines.next().unwrap_or_default();
    if format != FORMAT {
        return Err(corrupt(format!(
            "it says {format:?}, and this build reads {FORMAT:?}; use the build that wrote it, or another directory"
        )));
    }
    lines
        .next()
        .filter(|writer| !writer.is_empty())
        .map(str::to_owned)
        .ok_or_else(|| corrupt("it names no writer".to_owned()))
}

/// A writer's name that no other directory has: it is made of the process id and the time in nanoseconds.
fn new_writer() -> String {
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    format!("embedded-{nanos:x}-{:x}", std::process::id())
}
