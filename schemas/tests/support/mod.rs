//! Support of the tests: the recorded runs, and encoders of unusual requests.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod wild;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// One recorded request body.
pub struct Body {
    /// The name in messages: `folder/file`.
    pub name: String,
    /// The body as Codex sent it.
    pub bytes: Vec<u8>,
}

/// The folders of the recorded runs, each with its manifest.
pub fn runs() -> Vec<(PathBuf, serde_json::Value)> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures"));
    let mut folders: Vec<PathBuf> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    assert!(
        folders.len() >= 40,
        "recorded runs are missing from {}",
        root.display()
    );
    folders
        .into_iter()
        .map(|folder| {
            let manifest = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
            (folder, manifest)
        })
        .collect()
}

/// The bodies of one run for a signal, in order of arrival, in the encoding `pb` or `json`.
pub fn bodies_of(folder: &Path, manifest: &serde_json::Value, signal: &str, encoding: &str) -> Vec<Body> {
    let mut bodies = Vec::new();
    for body in manifest["bodies"].as_array().unwrap() {
        let file = body["file"].as_str().unwrap();
        if body["signal"] != signal || !file.contains(&format!(".{encoding}")) {
            continue;
        }
        let stored = fs::read(folder.join(file)).unwrap();
        let mut bytes = Vec::new();
        if file.ends_with(".gz") {
            flate2::read::GzDecoder::new(&stored[..])
                .read_to_end(&mut bytes)
                .unwrap();
        } else {
            bytes = stored;
        }
        let name = format!("{}/{file}", folder.file_name().unwrap().to_string_lossy());
        assert_eq!(bytes.len() as u64, body["bytes"].as_u64().unwrap(), "{name}");
        bodies.push(Body { name, bytes });
    }
    bodies
}

/// The bodies of all runs for a signal, in the encoding `pb` or `json`.
pub fn bodies(signal: &str, encoding: &str) -> Vec<Body> {
    runs()
        .iter()
        .flat_map(|(folder, manifest)| bodies_of(folder, manifest, signal, encoding))
        .collect()
}
