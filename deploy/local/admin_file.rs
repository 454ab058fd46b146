//! The file `admin.json` in the data directory: how `tacho read` finds the process that holds the directory.

use serde::{Deserialize, Serialize};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The name of the file.
pub const NAME: &str = "admin.json";
/// A larger file was not written by this program, and is ignored.
const BYTES_MAX: u64 = 4096;

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminFile {
    /// The address of the process's admin port, as clients on this machine reach it.
    pub addr: SocketAddr,
    /// The token that the admin port asks for in `Authorization: Bearer …`.
    pub token: String,
    /// The process id, for people.
    pub pid: u32,
    /// The prefix of the derivation that the process goes on with.
    #[serde(default)]
    pub derived_prefix: String,
}

/// The written file. It is removed when this is dropped, at the end of the process.
#[derive(Debug)]
pub struct Written(PathBuf);

impl AdminFile {
    /// The content for this process, which goes on with the derivation of that prefix, with a new token.
    pub fn new(addr: SocketAddr, derived_prefix: &str) -> Self {
        let token = format!(
            "{}{}",
            uuid::Uuid::new_v4().simple(),
            uuid::Uuid::new_v4().simple()
        );
        Self {
            addr: crate::address::reachable(addr),
            token,
            pid: std::process::id(),
            derived_prefix: derived_prefix.to_owned(),
        }
    }

    /// Writes the file with mode 0600 and in one step, so that nobody sees half of it or reads the token.
    ///
    /// # Errors
    /// The directory can't be made or written to.
    pub fn write(&self, dir: &Path) -> std::io::Result<Written> {
        std::fs::create_dir_all(dir)?;
        let (path, next) = (dir.join(NAME), dir.join(format!("{NAME}.{}", self.pid)));
        let _ = std::fs::remove_file(&next);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&next)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        std::fs::rename(&next, &path)?;
        Ok(Written(path))
    }

    /// Reads the file of a directory; `None` where there is none, or where it holds something else.
    pub fn read(dir: &Path) -> Option<Self> {
        let path = dir.join(NAME);
        if std::fs::metadata(&path).ok()?.len() > BYTES_MAX {
            return None;
        }
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        // A file that is gone already is as good as removed, and one that stays names a process that does not answer.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn is_private_while_it_is_there_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let file = AdminFile::new("0.0.0.0:9464".parse().unwrap(), "again.");
        assert_eq!(file.token.len(), 64);
        let written = file.write(dir.path()).unwrap();
        assert_eq!(AdminFile::read(dir.path()), Some(file.clone()));
        assert_eq!(file.addr, "127.0.0.1:9464".parse().unwrap());
        let mode = std::fs::metadata(dir.path().join(NAME))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(written);
        assert_eq!(AdminFile::read(dir.path()), None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
