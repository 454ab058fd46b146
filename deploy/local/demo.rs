//! The demo: recorded sessions, replayed to the process's own port in real time, in a loop, as if they happened now.

mod recordings;
mod rewrite;

use ingest::Policies;
use recordings::RECORDINGS;
use rewrite::Rewrite;
use schemas::settings::Seed;
use settings::process::chain;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How many sessions run at once.
const REPLAYS: u64 = 4;
/// How long after each other the replays start, so that they do not begin at one instant.
const STAGGER: Duration = Duration::from_millis(300);
/// How long a replay rests between two sessions.
const REST: Duration = Duration::from_secs(4);
/// How often a resting replay checks whether it is to end.
const NAP: Duration = Duration::from_millis(50);
/// Silence after which a session of the demo ends, ms: ended sessions show up within a minute.
const SESSION_GAP_MS: i64 = 20_000;
/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest decompressed body of a recording, bytes.
const BODY_BYTES_MAX: u64 = 16 << 20;
/// The file that marks a data directory as the demo's.
const MARKER: &str = "demo";

/// One recorded session.
#[derive(Clone, Copy, Debug)]
pub struct Recording {
    /// What happens in the session.
    pub name: &'static str,
    /// The request bodies, in the order in which they arrived.
    pub bodies: &'static [Body],
}

/// One recorded request body.
#[derive(Clone, Copy, Debug)]
pub struct Body {
    /// The path of the request, which names the signal.
    pub path: &'static str,
    /// When the request arrived, ms since the Unix epoch, rounded up.
    pub arrived_ms: i64,
    /// Whether `bytes` are gzipped (on disk only: Codex sends without compression).
    pub gzipped: bool,
    /// The body: OTLP in protobuf.
    pub bytes: &'static [u8],
}

/// Who a replayed session belongs to: values of resource attributes.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// `team.id`.
    pub team: &'static str,
    /// `project`.
    pub project: &'static str,
    /// `cost_centre`.
    pub cost_centre: &'static str,
    /// `department`.
    pub department: &'static str,
    /// `env`.
    pub env: &'static str,
}

const OWNERS: [Owner; 5] = [
    Owner {
        team: "payments",
        project: "checkout",
        cost_centre: "4711",
        department: "commerce",
        env: "dev",
    },
    Owner {
        team: "search",
        project: "ranking",
        cost_centre: "4720",
        department: "commerce",
        env: "dev",
    },
    Owner {
        team: "platform",
        project: "build-farm",
        cost_centre: "1200",
        department: "engineering",
        env: "ci",
    },
    Owner {
        team: "mobile",
        project: "ios-app",
        cost_centre: "3100",
        department: "engineering",
        env: "dev",
    },
    Owner {
        team: "payments",
        project: "ledger",
        cost_centre: "4712",
        department: "commerce",
        env: "ci",
    },
];

/// The settings of a demo: the shipped ones, but sessions end after 20 s of silence.
pub fn seed() -> Seed {
    let mut seed = Seed::shipped();
    seed.settings.session_gap_ms = SESSION_GAP_MS;
    seed
}

/// A directory for the demo holds other data: replayed sessions must not mix with real ones.
#[derive(Debug, thiserror::Error)]
#[error("--demo: {} holds data that is not a demo's: name a new directory, or leave out --data", .0.display())]
pub struct OtherData(PathBuf);

/// Refuses a directory that holds other data.
///
/// # Errors
/// The directory is neither empty nor a demo's.
pub fn check_directory(dir: &Path) -> Result<(), OtherData> {
    let empty = std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none());
    if empty || dir.join(MARKER).exists() {
        Ok(())
    } else {
        Err(OtherData(dir.to_owned()))
    }
}

/// Marks a directory as the demo's.
///
/// # Errors
/// The file can't be written.
pub fn mark_directory(dir: &Path) -> std::io::Result<()> {
    std::fs::write(dir.join(MARKER), "The sessions in this directory are made up.\n")
}

/// Starts the replays to `http`, on threads of their own. They wait until there is a privacy policy, since ingest takes
/// nothing before, and end soon after `stop` is set.
///
/// # Errors
/// There are no threads.
pub fn start(http: SocketAddr, policies: &Arc<Policies>, stop: &Arc<AtomicBool>) -> std::io::Result<()> {
    let turn = Arc::new(AtomicUsize::new(0));
    for number in 0..REPLAYS {
        let (stop, turn, policies) = (Arc::clone(stop), Arc::clone(&turn), Arc::clone(policies));
        let first = STAGGER * u32::try_from(number).unwrap_or(0);
        std::thread::Builder::new()
            .name(format!("demo-{number}"))
            .spawn(move || {
                while !policies.is_read() && sleep_until(Instant::now() + NAP, &stop) {}
                replay_all(http, &turn, first, &stop);
            })?;
    }
    Ok(())
}

fn replay_all(http: SocketAddr, turn: &AtomicUsize, first: Duration, stop: &AtomicBool) {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(REQUEST_TIMEOUT))
        .http_status_as_error(false)
        .proxy(None)
        .build();
    let agent: ureq::Agent = config.into();
    let mut rest = first;
    while sleep_until(Instant::now() + rest, stop) {
        let number = turn.fetch_add(1, Ordering::Relaxed);
        replay(
            &agent,
            http,
            &RECORDINGS[number % RECORDINGS.len()],
            OWNERS[number % OWNERS.len()],
            stop,
        );
        rest = REST;
    }
}

fn replay(agent: &ureq::Agent, http: SocketAddr, recording: &Recording, owner: Owner, stop: &AtomicBool) {
    let mut rewrite = Rewrite::new(owner);
    let begin = Instant::now();
    let first = recording.bodies.first().map_or(0, |body| body.arrived_ms);
    for body in recording.bodies {
        let offset = Duration::from_millis(u64::try_from(body.arrived_ms - first).unwrap_or(0));
        if !sleep_until(begin + offset, stop) {
            return;
        }
        if let Err(error) = send(agent, http, body, &mut rewrite)
            && !stop.load(Ordering::Relaxed)
        {
            tracing::warn!(
                recording = recording.name,
                path = body.path,
                error = chain(&error),
                "demo: a body was not taken"
            );
        }
    }
}

/// Why a recorded body was not taken.
#[derive(Debug, thiserror::Error)]
enum ReplayError {
    /// The recording can't be decompressed.
    #[error("the recording can't be unpacked")]
    Unpack(#[source] std::io::Error),
    /// The recording is not the message that its path says.
    #[error("the recording can't be decoded")]
    Decode(#[from] prost::DecodeError),
    /// The request failed.
    #[error(transparent)]
    Send(#[from] ureq::Error),
    /// Ingest refused the request.
    #[error("status {0}")]
    Status(ureq::http::StatusCode),
}

fn send(
    agent: &ureq::Agent,
    http: SocketAddr,
    body: &Body,
    rewrite: &mut Rewrite,
) -> Result<(), ReplayError> {
    let bytes = rewrite.body(body, now_ms())?;
    let request = agent
        .post(format!("http://{http}{}", body.path))
        .content_type("application/x-protobuf");
    let status = request.send(bytes)?.status();
    if status.is_success() {
        Ok(())
    } else {
        Err(ReplayError::Status(status))
    }
}

impl Body {
    /// The body as Codex sent it.
    fn plain(&self) -> Result<Vec<u8>, ReplayError> {
        if !self.gzipped {
            return Ok(self.bytes.to_vec());
        }
        let mut plain = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(self.bytes).take(BODY_BYTES_MAX);
        decoder.read_to_end(&mut plain).map_err(ReplayError::Unpack)?;
        Ok(plain)
    }
}

/// Sleeps until an instant and returns `true`; returns `false` as soon as `stop` is set.
fn sleep_until(until: Instant, stop: &AtomicBool) -> bool {
    loop {
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        match until.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => std::thread::sleep(left.min(NAP)),
            _ => return true,
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_other_data_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_directory(dir.path()).is_ok());
        std::fs::write(dir.path().join("data"), "").unwrap();
        assert!(
            check_directory(dir.path())
                .unwrap_err()
                .to_string()
                .contains("--demo")
        );
        mark_directory(dir.path()).unwrap();
        assert!(check_directory(dir.path()).is_ok());
    }

    #[test]
    fn a_stopped_sleep_ends_at_once() {
        assert!(!sleep_until(
            Instant::now() + Duration::from_secs(3600),
            &AtomicBool::new(true)
        ));
        assert!(sleep_until(Instant::now(), &AtomicBool::new(false)));
    }
}
