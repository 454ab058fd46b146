//! Recognizes clients by their user agent, to know whether they send a refused request again.

use axum::http::{HeaderMap, HeaderValue, header};

/// The minor versions of the Rust exporter 0.x that have a label of their own.
const RUST_MINORS: std::ops::RangeInclusive<u16> = 20..=40;
/// The first minor version of the Rust exporter that sends a refused batch again. Earlier ones send each batch once,
/// whatever the answer.
const RUST_RETRIES_SINCE: u16 = 33;
const RUST: &str = "OTel-OTLP-Exporter-Rust/";
const COLLECTOR: &str = "OpenTelemetry Collector";

/// A kind of client. The set is closed, so that whatever clients send there are few label values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    /// The Rust exporter, which Codex uses, with its minor version where that is a known one.
    Rust(Option<u16>),
    /// An OpenTelemetry Collector.
    Collector,
    /// Any other client.
    Other,
}

impl Agent {
    /// The client that sends a request with these headers.
    #[must_use]
    pub fn in_headers(headers: &HeaderMap) -> Self {
        Self::of(headers.get(header::USER_AGENT).map(HeaderValue::as_bytes))
    }

    /// The client with that user agent.
    #[must_use]
    pub fn of(user_agent: Option<&[u8]>) -> Self {
        let text = user_agent
            .and_then(|agent| std::str::from_utf8(agent).ok())
            .unwrap_or_default();
        match text.strip_prefix(RUST) {
            Some(version) => {
                let minor = version
                    .strip_prefix("0.")
                    .and_then(|rest| rest.split('.').next()?.parse().ok());
                Self::Rust(minor.filter(|minor| RUST_MINORS.contains(minor)))
            }
            None if text.starts_with(COLLECTOR) => Self::Collector,
            None => Self::Other,
        }
    }

    /// The label value: `rust-0.31`, `rust`, `collector` or `other`.
    #[must_use]
    pub fn label(self) -> String {
        match self {
            Self::Rust(Some(minor)) => format!("rust-0.{minor}"),
            Self::Rust(None) => "rust".to_owned(),
            Self::Collector => "collector".to_owned(),
            Self::Other => "other".to_owned(),
        }
    }

    /// Whether the client is known to send a request again when it is told to.
    #[must_use]
    pub const fn sends_again(self) -> bool {
        match self {
            Self::Rust(Some(minor)) => minor >= RUST_RETRIES_SINCE,
            Self::Collector => true,
            Self::Rust(None) | Self::Other => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_few() {
        let known = [
            ("OTel-OTLP-Exporter-Rust/0.31.0", "rust-0.31", false),
            ("OTel-OTLP-Exporter-Rust/0.31.0 tonic/0.14.3", "rust-0.31", false),
            ("OTel-OTLP-Exporter-Rust/0.33.1", "rust-0.33", true),
            ("OTel-OTLP-Exporter-Rust/0.31337.1", "rust", false),
            ("OTel-OTLP-Exporter-Rust/1.2.3", "rust", false),
            (
                "OpenTelemetry Collector Contrib/0.161.0 (linux/amd64)",
                "collector",
                true,
            ),
            ("curl/8", "other", false),
            ("", "other", false),
        ];
        for (text, label, sends_again) in known {
            let agent = Agent::of(Some(text.as_bytes()));
            assert_eq!(
                (agent.label().as_str(), agent.sends_again()),
                (label, sends_again),
                "{text}"
            );
        }
        assert_eq!(Agent::of(None), Agent::Other);
    }
}
