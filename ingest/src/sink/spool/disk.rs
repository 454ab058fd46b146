//! The file system as a spool uses it, behind a small trait, so that tests can make it fail.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The name of a file that is not whole yet.
const PART: &str = "part";
/// The name of the file that the process locks as long as it uses the directory.
const LOCK: &str = "lock";

/// A directory of files that are written at their end.
pub(super) trait Disk: Send + 'static {
    /// A file that is open for appending.
    type File: Send;

    /// The names of all files in the directory.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Puts a file in the place of any with that name. On success it is durable; otherwise the old one is still there.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Opens a file for appending.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Writes bytes at the end of a file; they are durable after a [`Disk::sync`] that succeeded.
    fn append(&self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    /// Makes durable what was appended. After a failure nobody knows what of it is durable, and a second try would not tell.
    fn sync(&self, file: &mut Self::File) -> io::Result<()>;
    /// Reads `length` bytes from `at` on, or fewer at the end of the file.
    fn read(&self, name: &str, at: u64, length: usize) -> io::Result<Vec<u8>>;
    /// Cuts a file to a length, durably.
    fn truncate(&self, name: &str, length: u64) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A directory of the file system, locked for as long as this is there.
pub(super) struct Directory {
    path: PathBuf,
    /// The open directory, whose fsync makes names durable.
    handle: File,
    _lock: File,
}

impl Directory {
    /// Takes the directory for this process. It is made if it is not there, but its parents are not; only its owner can read it
    /// afterwards.
    ///
    /// # Errors
    /// The directory can't be made, or another process holds it.
    pub fn take(path: &Path) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // A volume may be mounted with a mode that lets a group read it. Where this process may not change that, the files in it
        // are still readable by their owner alone.
        let mut mode = std::fs::metadata(path)?.permissions();
        if mode.mode() & 0o077 != 0 {
            mode.set_mode(0o700);
            if let Err(error) = std::fs::set_permissions(path, mode) {
                tracing::warn!(%error, directory = %path.display(), "others can see the names in the spool's directory");
            }
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK))?;
        lock.try_lock().map_err(|error| {
            io::Error::new(
                ErrorKind::WouldBlock,
                format!("another process uses it ({error})"),
            )
        })?;
        Ok(Self {
            path: path.to_owned(),
            handle: File::open(path)?,
            _lock: lock,
        })
    }
}

impl Disk for Directory {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let names =
            std::fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let part = self.path.join(PART);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&part, self.path.join(name))?;
        self.handle.sync_all()
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().append(true).open(self.path.join(name))
    }

    fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, file: &mut File) -> io::Result<()> {
        file.sync_data()
    }

    fn read(&self, name: &str, at: u64, length: usize) -> io::Result<Vec<u8>> {
        let file = File::open(self.path.join(name))?;
        let left = file.metadata()?.len().saturating_sub(at);
        let mut bytes = vec![0; length.min(usize::try_from(left).unwrap_or(usize::MAX))];
        file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path.join(name))?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }
}
