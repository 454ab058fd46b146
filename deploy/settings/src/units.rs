//! Values of settings and how they are written: durations, sizes, addresses, secrets.

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

/// The text that is shown in place of a secret.
pub const HIDDEN: &str = "***";

/// Whether the value of a setting of that name is not to be shown.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [
        "password",
        "secret",
        "pem",
        "jaas",
        "token",
        "hash_key",
        "sasl.oauthbearer.config",
    ]
    .iter()
    .any(|part| name.contains(part))
}

/// Names, with commas between.
pub(crate) fn listed(names: &[&str]) -> String {
    names.join(", ")
}

/// A duration, written as a whole number with its unit: `250ms`, `15s`, `5m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Units of a [`Span`], in ms.
const SPAN_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

/// The error of a text that is no value of its kind; whoever asked for one says what is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a value of this form")]
pub struct NotAValue;

impl FromStr for Span {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        scaled(text, &SPAN_UNITS).map(|ms| Self(Duration::from_millis(ms)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let (unit, scale) = SPAN_UNITS
            .iter()
            .rev()
            .find(|(_, scale)| ms >= *scale && ms.is_multiple_of(*scale))
            .unwrap_or(&SPAN_UNITS[0]);
        write!(f, "{}{unit}", ms / scale)
    }
}

/// A number of bytes, written as such or with a unit: `1048576`, `16MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Units of a [`Size`], in bytes.
const SIZE_UNITS: [(&str, u64); 4] = [("", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

impl FromStr for Size {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        scaled(text, &SIZE_UNITS).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) = SIZE_UNITS
            .iter()
            .rev()
            .find(|(_, scale)| self.0 >= *scale && self.0.is_multiple_of(*scale))
            .unwrap_or(&SIZE_UNITS[0]);
        write!(f, "{}{unit}", self.0 / scale)
    }
}

/// A whole number with one of these units, in the smallest of them.
fn scaled(text: &str, units: &[(&str, u64)]) -> Result<u64, NotAValue> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().map_err(|_| NotAValue)?;
    let unit = text[end..].trim();
    let (_, scale) = units.iter().find(|(name, _)| *name == unit).ok_or(NotAValue)?;
    number.checked_mul(*scale).ok_or(NotAValue)
}

/// Where a socket listens: an address and a port, `localhost` for 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

impl FromStr for Listen {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        let parsed = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}").parse(),
            None => text.parse(),
        };
        parsed.map(Self).map_err(|_| NotAValue)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A value that is read from a text by `FromStr`, and written by `Display`.
macro_rules! as_text {
    ($name:ident, $wanted:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Scalar::deserialize(deserializer)?.0;
                text.parse()
                    .map_err(|_: NotAValue| D::Error::invalid_value(Unexpected::Str(&text), &$wanted))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

as_text!(Span, "a duration such as 250ms, 15s, 5m or 1h");
as_text!(Size, "a size such as 1048576, 64KiB, 16MiB or 1GiB");
as_text!(Listen, "an address and port such as 127.0.0.1:4318");

/// A text, or a number or truth value as its text: a value with quotes in one layer need not have them in another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar(pub String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl Visitor<'_> for Any {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a number")
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar(value.to_owned()))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

/// A value that is never shown, neither by `Debug` nor by `--print-config`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The hidden text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Scalar::deserialize(deserializer).map(|text| Self(text.0))
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_and_written_with_units() {
        for (text, ms) in [
            ("250ms", 250),
            ("15s", 15_000),
            ("5 m", 300_000),
            ("1h", 3_600_000),
            ("0s", 0),
        ] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(ms))), "{text}");
        }
        for (ms, text) in [(0, "0ms"), (1500, "1500ms"), (90_000, "90s"), (120_000, "2m")] {
            assert_eq!(Span(Duration::from_millis(ms)).to_string(), text);
        }
        for (text, bytes) in [("17", 17), ("64KiB", 65_536), ("16 MiB", 16 << 20)] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        assert_eq!(Size(16 << 20).to_string(), "16MiB");
        assert_eq!(Size(1000).to_string(), "1000");
        for text in [
            "",
            "s",
            "15",
            "-1s",
            "1.5s",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert_eq!(text.parse::<Span>(), Err(NotAValue), "{text}");
        }
        assert_eq!("16MB".parse::<Size>(), Err(NotAValue));
    }

    #[test]
    fn addresses_may_say_localhost() {
        assert_eq!(
            "localhost:1".parse::<Listen>().unwrap().to_string(),
            "127.0.0.1:1"
        );
        assert_eq!("[::1]:1".parse::<Listen>().unwrap().to_string(), "[::1]:1");
        assert_eq!("nowhere".parse::<Listen>(), Err(NotAValue));
    }

    #[test]
    fn secrets_are_not_shown() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), HIDDEN);
        for name in [
            "sasl.password",
            "ssl.key.pem",
            "SASL.OAUTHBEARER.CLIENT.SECRET",
            "kafka.sasl.password_file",
        ] {
            assert!(is_secret(name), "{name}");
        }
        assert!(!is_secret("kafka.prefix"));
    }
}
