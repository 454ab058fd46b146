//! Support of the benches: the recorded log requests, and a clock of CPU time.

#![allow(dead_code, reason = "each bench uses its part")]

pub mod load;
pub mod process;
pub mod requests;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Measures CPU time of this thread, which other work of the machine hardly disturbs. All measured work is of
/// one thread.
pub struct CpuTime;

/// The CPU time of this thread so far; on systems other than Linux, the time that has passed.
pub fn cpu_time() -> Duration {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let said = fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = said.and_then(|text| text.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| BEGAN.get_or_init(Instant::now).elapsed(), Duration::from_nanos)
}

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        cpu_time()
    }

    fn end(&self, began: Duration) -> Duration {
        cpu_time() - began
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// The paths in a folder, sorted.
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
            let name = file
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            let stored = fs::read(&file).expect("the file can be read");
            if name.ends_with("logs.pb.gz") {
                let mut body = Vec::new();
                flate2::read::GzDecoder::new(&stored[..])
                    .read_to_end(&mut body)
                    .expect("the file is gzip");
                bodies.push(body);
            } else if name.ends_with("logs.pb") {
                bodies.push(stored);
            }
        }
    }
    bodies
}

/// The lowest floor: a pass that touches every byte.
pub fn touch(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}
