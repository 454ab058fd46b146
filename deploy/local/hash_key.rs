//! The key of hashes of an embedded log: made once, in its data directory, and gone with it.

use ingest::prepare::hash::{HashKey, KeyError};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The name of the file.
pub const NAME: &str = "hash.key";

/// Why a directory gives no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file can't be read or made.
    #[error("{}", path.display())]
    File {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file holds no key. A new key in its place would change every hash, so somebody has to decide.
    #[error("{}: {fault}", path.display())]
    NoKey {
        /// The key file.
        path: PathBuf,
        /// What is wrong with its content.
        fault: KeyError,
    },
}

/// The key in a directory that this process holds; a new one, with mode 0600, where there is none.
///
/// # Errors
/// The file can't be read or made, or holds no key.
pub fn of_directory(dir: &Path) -> Result<HashKey, KeyFileError> {
    let path = dir.join(NAME);
    let file = |source| KeyFileError::File {
        path: path.clone(),
        source,
    };
    let no_key = |fault| KeyFileError::NoKey {
        path: path.clone(),
        fault,
    };
    if path.try_exists().map_err(file)? {
        return HashKey::from_file(&path).map_err(no_key);
    }
    let text = format!(
        "{}{}",
        uuid::Uuid::new_v4().simple(),
        uuid::Uuid::new_v4().simple()
    );
    write(dir, &path, &text).map_err(file)?;
    HashKey::new(text.as_bytes()).map_err(no_key)
}

/// Writes the key in one step: a crash must not leave a file with a part of it, which would be a key that nobody has.
fn write(dir: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    let next = dir.join(format!("{NAME}.new"));
    let _ = std::fs::remove_file(&next);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&next)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&next, path)?;
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_has_one_key_for_ever_and_nobody_else_reads_it() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let key = of_directory(dir.path()).unwrap();
        assert_eq!(of_directory(dir.path()).unwrap(), key);
        assert_ne!(of_directory(other.path()).unwrap(), key);
        let mode = std::fs::metadata(dir.path().join(NAME))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(dir.path().join(NAME), "half").unwrap();
        assert!(
            of_directory(dir.path())
                .unwrap_err()
                .to_string()
                .contains("has 4 bytes"),
            "a wrong key is not replaced"
        );
    }
}
