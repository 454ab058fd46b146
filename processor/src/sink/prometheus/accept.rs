//! Which format a scraper gets: the text format 0.0.4, or `io.prometheus.client.MetricFamily`,
//! length-delimited, for a scraper that names it with a weight not below that of the text.

use super::{protobuf, text};

/// A format of `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The text format 0.0.4, which has no native histograms. It is also the answer to a scraper that accepts neither format.
    Text,
    /// `io.prometheus.client.MetricFamily`, length-delimited, with native histograms.
    Protobuf,
}

/// The weight `q=1`, in thousandths.
const WHOLE: u32 = 1000;

impl Format {
    /// The format for the values of all `Accept` headers of a request.
    ///
    /// It is protobuf only if that is named, with a weight above 0 that is not below that of the text: browsers send wildcards.
    /// No request is refused: one that accepts neither format gets the text.
    ///
    /// Source: RFC 9110, section 12.5.1. Prometheus sends its `scrape_protocols` as one such header.
    #[must_use]
    pub fn accepted<'h>(headers: impl IntoIterator<Item = &'h str>) -> Self {
        let (mut protobuf, mut text) = (0, None::<(u8, u32)>);
        for range in headers.into_iter().flat_map(|header| header.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or("").to_ascii_lowercase();
            let parameters: Vec<(String, &str)> = parts
                .filter_map(|part| part.split_once('='))
                .map(|(key, value)| (key.trim().to_ascii_lowercase(), unquoted(value)))
                .collect();
            let parameter = |wanted: &str| {
                parameters
                    .iter()
                    .find(|(key, _)| key == wanted)
                    .map(|(_, value)| *value)
            };
            let weight = parameter("q").map_or(WHOLE, weight);
            // Of the media ranges that fit the text format, the narrowest one decides about its weight.
            let fits_text = match name.as_str() {
                "text/plain" if parameter("version").is_none_or(|version| version == "0.0.4") => 3,
                "text/*" => 2,
                "*/*" => 1,
                _ => 0,
            };
            if fits_text > 0 && text.is_none_or(|(narrow, old)| (narrow, old) < (fits_text, weight)) {
                text = Some((fits_text, weight));
            }
            let is_delimited = parameter("proto") == Some("io.prometheus.client.MetricFamily")
                && parameter("encoding") == Some("delimited");
            if name == "application/vnd.google.protobuf" && is_delimited {
                protobuf = protobuf.max(weight);
            }
        }
        let text = text.map_or(0, |(_, weight)| weight);
        if protobuf > 0 && protobuf >= text {
            Self::Protobuf
        } else {
            Self::Text
        }
    }

    /// The value of `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => text::CONTENT_TYPE,
            Self::Protobuf => protobuf::CONTENT_TYPE,
        }
    }
}

fn unquoted(value: &str) -> &str {
    let value = value.trim();
    value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
        .unwrap_or(value)
}

/// A weight in thousandths; 0 for a text that is no number between 0 and 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and 1000"
)]
fn weight(text: &str) -> u32 {
    match text.parse::<f64>() {
        Ok(weight) if (0.0..=1.0).contains(&weight) => (weight * f64::from(WHOLE)).round() as u32,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTO: &str =
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

    #[test]
    fn the_header_decides() {
        use Format::{Protobuf, Text};
        let table = [
            ("", Text),
            ("*/*", Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Text),
            ("text/plain", Text),
            ("application/json", Text),
            (PROTO, Protobuf),
            (protobuf::CONTENT_TYPE, Protobuf),
            (
                "APPLICATION/VND.GOOGLE.PROTOBUF; Proto=\"io.prometheus.client.MetricFamily\" ; encoding=delimited",
                Protobuf,
            ),
            // Prometheus 3 sends the first header if protobuf is configured first, and the second one by default.
            (
                "{PROTO};q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                Protobuf,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                Text,
            ),
            ("{PROTO};q=0.2,text/plain;version=0.0.4;q=0.6", Text),
            ("text/plain;version=0.0.4;q=0.6,{PROTO};q=0.601", Protobuf),
            ("text/plain,{PROTO}", Protobuf),
            ("{PROTO};q=0", Text),
            ("{PROTO};q=0.000,application/json", Text),
            ("{PROTO};q=many", Text),
            ("{PROTO};q=-1", Text),
            // The narrowest range decides that text weighs 0.1, and not 0.9.
            ("*/*;q=0.9,text/plain;q=0.1,{PROTO};q=0.5", Protobuf),
            ("*/*;q=0.9,{PROTO};q=0.5", Text),
            // Another encoding, another message or another version of the text does not count.
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
                Text,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily",
                Text,
            ),
            (
                "application/vnd.google.protobuf;proto=other;encoding=delimited",
                Text,
            ),
            ("application/*", Text),
            ("text/plain;version=1.0.0;q=0.9,{PROTO};q=0.5", Protobuf),
            (";;,=,q=;", Text),
        ];
        for (header, format) in table {
            let header = header.replace("{PROTO}", PROTO);
            assert_eq!(Format::accepted([header.as_str()]), format, "{header}");
        }
        assert_eq!(
            Format::accepted([]),
            Text,
            "a request without the header gets no text"
        );
        assert_eq!(
            Format::accepted(["text/plain;q=0.5", PROTO]),
            Protobuf,
            "two headers do not count as one list"
        );
    }
}
