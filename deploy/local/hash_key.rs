//! The key of hashes of an embedded log: made once, in its directory, and gone with it.

use ingest::prepare::hash::HashKey;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The file's name.
pub const NAME: &str = "hash.key";

/// The key in a directory that this process holds; a new one, mode 0600, where there is none.
pub fn of_directory(dir: &Path) -> Result<HashKey, String> {
    let path = dir.join(NAME);
    let fault = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    if path.try_exists().map_err(|error| fault(&error))? {
        return HashKey::from_file(&path).map_err(|why| fault(&why));
    }
    let text = format!(
        "{}{}",
        uuid::Uuid::new_v4().simple(),
        uuid::Uuid::new_v4().simple()
    );
    // In one step: a file without all of a key would be one that nobody has.
    let next = dir.join(format!("{NAME}.new"));
    let write = || {
        let _ = std::fs::remove_file(&next);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&next)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&next, &path)?;
        std::fs::File::open(dir)?.sync_all()
    };
    write().map_err(|error: std::io::Error| fault(&error))?;
    HashKey::new(text.as_bytes()).map_err(|error| fault(&error))
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
            of_directory(dir.path()).unwrap_err().contains("has 4 bytes"),
            "a wrong key is not replaced"
        );
    }
}
