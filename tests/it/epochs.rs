//! New epochs by `tacho control apply` while a processor runs: settings of sessions, then prices.

use super::processes::{apply, text};
use crate::support::broker::Broker;
use crate::support::processes::{Process, ingest, processor, tacho};
use crate::support::tacho::read;
use crate::support::traffic::quick_seed;
use crate::support::{eventually, now_ms, otlp};
use schemas::settings::Seed;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Output;

const PREFIX: &str = "epochs.";

/// Processes under [`PREFIX`], and the file that `tacho control apply` reads.
struct World {
    bootstrap: String,
    dir: tempfile::TempDir,
    seed: Seed,
    worker: Process,
    door: Process,
}

impl World {
    /// Starts the processes on a log whose sessions have a gap that is longer than the test.
    fn start() -> Self {
        let bootstrap = Broker::shared().bootstrap();
        let dir = tempfile::tempdir().unwrap();
        let mut seed = quick_seed();
        seed.settings.session_gap_ms = 3_600_000;
        seed.settings.reopen_horizon_ms = 7_200_000;
        let seed_file = dir.path().join("seed.toml");
        std::fs::write(&seed_file, toml::to_string(&seed).unwrap()).unwrap();
        apply(&bootstrap, PREFIX, Some(&seed_file));
        let worker = processor(&bootstrap, PREFIX, "one").ready();
        let door = ingest(&bootstrap, PREFIX).ready();
        Self {
            bootstrap,
            dir,
            seed,
            worker,
            door,
        }
    }

    /// Sends a prompt of each conversation.
    fn prompts(&self, conversations: &[&str]) {
        let prompts = conversations
            .iter()
            .map(|conversation| otlp::prompt(conversation, now_ms()));
        self.door.logs(&otlp::encode(prompts.collect()));
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("settings.toml")
    }

    /// Runs `tacho control` with these arguments.
    fn control(&self, what: &[&str]) -> Output {
        let place = ["--kafka", &self.bootstrap, "--prefix", PREFIX];
        tacho().args(&["control"]).args(what).args(&place).run()
    }

    /// Runs `tacho control apply` with a file of that content.
    fn apply(&self, content: &str) -> Output {
        let file = self.file();
        std::fs::write(&file, content).unwrap();
        self.control(&["apply", file.to_str().unwrap()])
    }

    /// Checks that a file is refused, and that all of its faults are named.
    fn expect_refused(&self, content: &str, faults: &[&str]) {
        let refused = self.apply(content);
        assert_eq!(refused.status.code(), Some(64), "{}", text(&refused));
        for fault in faults {
            assert!(
                text(&refused).contains(fault),
                "{fault} is not in {}",
                text(&refused)
            );
        }
    }

    /// Checks that a file is applied, and that the output holds these texts.
    fn expect_applied(&self, content: &str, parts: &[&str]) {
        let applied = self.apply(content);
        assert!(applied.status.success(), "{}", text(&applied));
        for part in parts {
            assert!(
                text(&applied).contains(part),
                "{part} is not in {}",
                text(&applied)
            );
        }
    }

    /// The records of the control topic, as `tacho control show` prints them.
    fn shown(&self) -> Vec<serde_json::Value> {
        let shown = self.control(&["show"]);
        String::from_utf8_lossy(&shown.stdout)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The values of a topic.
    fn read(&self, topic: &str) -> Vec<serde_json::Value> {
        let place = ["--kafka", &self.bootstrap, "--prefix", PREFIX];
        read(topic, &place.map(OsStr::new))
    }

    /// Waits until every raw partition has a tick that starts epoch 1.
    fn wait_for_first_epoch(&self) {
        eventually("the epoch's start in every partition", || {
            let ticks = self.read("codex.raw.logs.v1");
            let begun = ticks
                .iter()
                .filter(|tick| tick["headers"]["epoch"] == "1")
                .count();
            if begun == 3 {
                Ok(())
            } else {
                Err(format!("in {begun}; {}", self.worker.said()))
            }
        });
    }

    /// Waits until two sessions have ended, which must be these.
    fn wait_for_ends(&self, conversations: [&str; 2]) {
        eventually("the end of both sessions", || {
            let rows = self.read("codex.sessions.v1");
            let ended: Vec<&str> = rows
                .iter()
                .filter(|row| row["value"]["state"] == "ended")
                .filter_map(|row| row["value"]["conversation_id"].as_str())
                .collect();
            let both = conversations
                .iter()
                .all(|conversation| ended.contains(conversation));
            if both && ended.len() == 2 {
                Ok(())
            } else {
                Err(format!("{ended:?}; {}", self.worker.said()))
            }
        });
    }
}

#[test]
fn a_new_epoch_changes_the_session_gap_while_it_runs() {
    let world = World::start();
    world.prompts(&["goes-on", "is-silent"]);
    world
        .worker
        .wait_for_count("tacho_sessions_started_total", &[], 2);
    world.worker.wait_for_count("tacho_sessions_active", &[], 2);
    world.expect_refused(
        "[settings]\nsemantics = 9\nsession_gap_ms = 0\nreopen_horizon_ms = 8000\nrow_interval_ms = 500\n",
        &["semantics", "session_gap_ms"],
    );
    world.expect_applied(
        "[settings]\nsemantics = 1\nsession_gap_ms = 2000\nreopen_horizon_ms = 8000\nrow_interval_ms = 500\n",
        &["epoch 1:"],
    );

    // The settings under which its last record was folded hold for a session. A session that gets another record ends
    // by the new gap, and so does a new session; a session that gets none stays open.
    world.wait_for_first_epoch();
    world.prompts(&["goes-on", "new"]);
    world.wait_for_ends(["goes-on", "new"]);
    world.worker.wait_for_count("tacho_sessions_active", &[], 1);

    let lines = world.shown();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(
        (&lines[0]["epoch"], &lines[0]["seed"]["raw_partitions"]),
        (&0.into(), &world.seed.raw_partitions.into())
    );
    assert_eq!(
        (&lines[1]["epoch"], &lines[1]["settings"]["session_gap_ms"]),
        (&1.into(), &2000.into())
    );
    assert_eq!(
        lines[0]["seed"]["prices"]["version"],
        world.seed.prices.version.as_str()
    );

    // New prices start an epoch too. All faults of a table are named before anything is written.
    world.expect_refused(
        "[prices]\nversion = \"\"\nrows = [{ book = \"b\", model = \"m\", input = -1, output = 1, source = \"s\" }]\n",
        &["prices.version", "book must", "input must", "source \"s\""],
    );
    world.expect_applied("[prices]\nversion = \"none\"\n", &["epoch 2:", "version none"]);
    let lines = world.shown();
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["epoch"], &last["prices"]["version"], last.get("settings")),
        (&2.into(), &"none".into(), None)
    );

    // A prefix without a seed has no log that an epoch could change.
    let file = world.file();
    let nowhere = tacho()
        .args(&["control", "apply", file.to_str().unwrap()])
        .args(&["--kafka", &world.bootstrap, "--prefix", "no."])
        .run();
    assert!(!nowhere.status.success(), "{}", text(&nowhere));
}
