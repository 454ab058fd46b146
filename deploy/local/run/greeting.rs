//! What a newcomer has to paste and where to look.

use std::net::SocketAddr;

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

/// What is printed at start, beside the configuration.
pub fn where_to_look(admin: SocketAddr, about: &str, read: &str) -> String {
    let admin = reachable(admin);
    format!(
        "Running on {about}.\n\n  page      http://{admin}/\n  metrics   http://{admin}/metrics\n  sessions  {read}\n\nCtrl-C ends it."
    )
}

/// An address that a client on this machine can use: loopback where the socket takes any.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
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
