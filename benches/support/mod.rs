//! What the benches share: the recorded log requests.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Paths in a folder, in order.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .expect("the recorded runs are in tests/fixtures")
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    entries.sort();
    entries
}

/// All recorded log bodies in protobuf, in the order of runs and of arrival.
pub fn log_bodies() -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    for folder in entries(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures"))) {
        if !folder.is_dir() {
            continue;
        }
        for file in entries(&folder) {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let stored = fs::read(&file).expect("the file can be read");
            if name.ends_with("logs.pb.gz") {
                let mut body = Vec::new();
                flate2::read::GzDecoder::new(&stored[..]).read_to_end(&mut body).expect("the file is gzip");
                bodies.push(body);
            } else if name.ends_with("logs.pb") {
                bodies.push(stored);
            }
        }
    }
    bodies
}

/// The first floor of every bench: a pass that touches every byte.
pub fn touch(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}
