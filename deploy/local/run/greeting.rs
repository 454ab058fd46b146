//! What `tacho` prints at start: what a newcomer has to paste into Codex' configuration, and where to look.

use super::options::RunOptions;
use crate::address::reachable;
use crate::place::Place;
use std::net::SocketAddr;
use std::path::Path;

/// Prints the configuration and the addresses, and a warning if texts are kept.
///
/// `temporary` is the directory of a temporary log.
pub fn greet(options: &RunOptions, setup: &str, admin: SocketAddr, about: &str, temporary: Option<&Path>) {
    let place = match (&options.place, temporary) {
        (Place::Kafka(cluster), _) => format!(" --kafka {}{}", cluster.bootstrap, cluster.prefix_flags()),
        (Place::Directory { .. } | Place::Temporary, Some(dir)) => format!(" --data {}", dir.display()),
        (Place::Directory { dir, .. }, None) => format!(" --data {}", dir.display()),
        (Place::Temporary, None) => String::new(),
    };
    if options.keep_text {
        eprintln!(
            "\n  ** --keep-text: prompts, commands and outputs are kept in the clear. They hold secrets. **\n  \
             ** Whoever reads the topics or the data directory reads them.                            **\n"
        );
    }
    println!("Codex sends to tacho with this:\n\n{setup}");
    println!(
        "{}",
        where_to_look(admin, about, &format!("tacho read codex.sessions.v1{place}"))
    );
}

/// The `[otel]` table for `~/.codex/config.toml` that sends everything to `http`.
pub fn codex_config(http: SocketAddr) -> String {
    let http = reachable(http);
    format!(
        "# ~/.codex/config.toml\n\
         [otel]\n\
         environment = \"dev\"\n\
         log_user_prompt = false\n\
         exporter = {{ otlp-http = {{ endpoint = \"http://{http}/v1/logs\", protocol = \"binary\" }} }}\n\
         trace_exporter = {{ otlp-http = {{ endpoint = \"http://{http}/v1/traces\", protocol = \"binary\" }} }}\n\
         metrics_exporter = {{ otlp-http = {{ endpoint = \"http://{http}/v1/metrics\", protocol = \"binary\" }} }}\n\
         \n\
         # Optional, in the shell that starts Codex: who the numbers belong to.\n\
         # export OTEL_RESOURCE_ATTRIBUTES=\"team.id=payments,project=checkout,cost_centre=4711\"\n"
    )
}

/// The addresses to look at; `read` is the command that prints sessions.
fn where_to_look(admin: SocketAddr, about: &str, read: &str) -> String {
    let admin = reachable(admin);
    format!(
        "Running on {about}.\n\n  page      http://{admin}/\n  metrics   http://{admin}/metrics\n  sessions  {read}\n\nCtrl-C ends it."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_names_one_exporter_a_signal_with_its_full_path() {
        let text = codex_config("0.0.0.0:4318".parse().unwrap());
        for (key, signal) in [
            ("exporter", "logs"),
            ("trace_exporter", "traces"),
            ("metrics_exporter", "metrics"),
        ] {
            let line = format!(
                "{key} = {{ otlp-http = {{ endpoint = \"http://127.0.0.1:4318/v1/{signal}\", protocol = \"binary\" }} }}"
            );
            assert!(text.lines().any(|shown| shown == line), "{text}");
        }
    }
}
