//! The data directory: whose it is, which format it holds, and that one process has it.

use crate::LogError;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The file that says that a directory is ours.
const MARKER: &str = "tachograph.format";
/// The first line of the marker, with the version of the layout.
const FORMAT: &str = "tachograph data, format 1";

/// A data directory that this process holds.
#[derive(Debug)]
pub(super) struct Directory {
    /// Where the store lies.
    pub store: PathBuf,
    /// A stable name, made with the directory.
    pub writer: String,
    /// Locked as long as it is open.
    _lock: File,
}

impl Directory {
    /// Takes the directory; makes it if it is not there or empty.
    ///
    /// # Errors
    /// Another process has it, it holds something else, or another version's data.
    pub fn take(dir: &Path) -> Result<Self, LogError> {
        let failed = |what: &str, error: &std::io::Error| LogError::Unavailable {
            reason: format!("{}: {what}: {error}", dir.display()),
        };
        std::fs::create_dir_all(dir).map_err(|error| failed("can't make the data directory", &error))?;
        let marker = dir.join(MARKER);
        if !marker.exists() {
            let mut entries = std::fs::read_dir(dir)
                .map_err(|error| failed("can't look into the data directory", &error))?;
            if let Some(Ok(entry)) = entries.next()
                && entry.file_name() != MARKER
            {
                return Err(LogError::Corrupt {
                    at: dir.display().to_string(),
                    reason: format!(
                        "it has no {MARKER} but holds {}: not a data directory; name a new or empty one",
                        entry.file_name().display()
                    ),
                });
            }
        }
        let mut lock = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&marker)
            .map_err(|error| failed("can't open its marker file", &error))?;
        lock.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => LogError::Unavailable {
                reason: format!(
                    "{}: another process uses this data directory; stop it, or name another directory",
                    dir.display()
                ),
            },
            std::fs::TryLockError::Error(error) => failed("can't lock the data directory", &error),
        })?;
        let mut text = String::new();
        lock.read_to_string(&mut text)
            .map_err(|error| failed("can't read its marker file", &error))?;
        let writer = if text.is_empty() {
            let writer = new_writer();
            let line = format!("{FORMAT}\n{writer}\n");
            lock.write_all(line.as_bytes())
                .map_err(|error| failed("can't write its marker file", &error))?;
            lock.sync_all()
                .map_err(|error| failed("can't write its marker file", &error))?;
            File::open(dir)
                .and_then(|dir| dir.sync_all())
                .map_err(|error| failed("can't write the data directory", &error))?;
            writer
        } else {
            parse(&text).map_err(|reason| LogError::Corrupt {
                at: marker.display().to_string(),
                reason,
            })?
        };
        Ok(Self {
            store: dir.join("store"),
            writer,
            _lock: lock,
        })
    }
}

fn parse(text: &str) -> Result<String, String> {
    let mut lines = text.lines();
    let format = lines.next().unwrap_or_default();
    if format != FORMAT {
        return Err(format!(
            "it says {format:?}, and this build reads {FORMAT:?}; use the build that wrote it, or another directory"
        ));
    }
    lines
        .next()
        .filter(|writer| !writer.is_empty())
        .map(str::to_owned)
        .ok_or_else(|| "it names no writer".to_owned())
}

/// A name that no other directory has: process and nanosecond of its making.
fn new_writer() -> String {
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    format!("embedded-{nanos:x}-{:x}", std::process::id())
}
