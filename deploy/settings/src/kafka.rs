//! The table `[kafka]`: how to reach the cluster, the same in all processes.
//!
//! The table is here and not in `processor-log`, since its form (layers, secrets, units) belongs to the settings of a
//! process, while the [`Cluster`] that it becomes belongs to the log. Hence this crate depends on the log, and the log on no
//! settings.

use crate::units::{HIDDEN, Scalar, Secret, is_secret};
use processor_log::cluster::Cluster;
use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Most bytes that a file with a password may have.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// The table `[kafka]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSection {
    /// `HOST:PORT`, several with commas between. There is no default.
    pub bootstrap_servers: String,
    /// Put before the names of all topics, and of the group.
    pub prefix: String,
    /// Put before the names of what is derived, and of the group, in place of the prefix: a second derivation of the same raw
    /// topics, beside the first. Left empty, it is the prefix.
    pub derived_prefix: String,
    /// TLS towards the brokers.
    pub tls: Tls,
    /// The name and password that the cluster asks for, if it asks.
    pub sasl: Option<Sasl>,
    /// librdkafka properties, passed through.
    pub options: ClientProperties,
}

/// TLS towards the brokers; on where any file is named, unless `enabled` says no.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Whether to use TLS.
    pub enabled: Option<bool>,
    /// File with the certificates to trust, PEM; the system's certificates, if left out.
    pub ca_file: Option<PathBuf>,
    /// File with our own certificate, PEM, for brokers that ask for one.
    pub cert_file: Option<PathBuf>,
    /// File with the key of our own certificate, PEM.
    pub key_file: Option<PathBuf>,
}

/// A name and a password for the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sasl {
    /// How the password is proved.
    pub mechanism: Mechanism,
    /// The name.
    pub username: String,
    /// The password itself; left out where there is a file with it.
    pub password: Option<Secret>,
    /// File that holds the password; white space around it is left out.
    pub password_file: Option<PathBuf>,
}

/// How a password is proved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Mechanism {
    /// The password is sent as it is: use TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// A challenge is answered, with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    Scram256,
    /// A challenge is answered, with SHA-512.
    #[default]
    #[serde(rename = "SCRAM-SHA-512")]
    Scram512,
}

impl Mechanism {
    /// librdkafka's name for the mechanism.
    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram256 => "SCRAM-SHA-256",
            Self::Scram512 => "SCRAM-SHA-512",
        }
    }
}

/// librdkafka properties by name. Values that may be secrets are not shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ClientProperties(pub BTreeMap<String, Scalar>);

impl ClientProperties {
    fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| {
            (
                name.as_str(),
                if is_secret(name) { HIDDEN } else { value.0.as_str() },
            )
        })
    }
}

impl std::fmt::Debug for ClientProperties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.shown()).finish()
    }
}

impl Serialize for ClientProperties {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.shown())
    }
}

impl KafkaSection {
    /// The cluster, with librdkafka's properties; every fault is added to `faults`.
    pub fn cluster(&self, faults: &mut Vec<String>) -> Cluster {
        let mut found = Vec::new();
        let mut options: BTreeMap<String, String> = self
            .options
            .0
            .iter()
            .map(|(name, value)| (name.clone(), value.0.clone()))
            .collect();
        found.extend(options.iter().filter_map(|(name, value)| unknown(name, value)));
        let tls = self.tls.options(&mut found);
        let sasl = self.sasl.as_ref().map(|sasl| sasl.options(&mut found));
        let mut own: Vec<(&str, String)> = Vec::new();
        let protocol = match (tls.is_some(), sasl.is_some()) {
            (false, false) => None,
            (true, false) => Some("SSL"),
            (false, true) => Some("SASL_PLAINTEXT"),
            (true, true) => Some("SASL_SSL"),
        };
        own.extend(protocol.map(|protocol| ("security.protocol", protocol.to_owned())));
        own.extend(tls.into_iter().flatten());
        own.extend(sasl.into_iter().flatten());
        for (name, value) in own {
            if options.insert(name.to_owned(), value).is_some() {
                found.push(format!(
                    "options: {name} has a setting of its own, under tls or sasl: leave out one of them"
                ));
            }
        }
        let cluster = Cluster {
            bootstrap: self.bootstrap_servers.clone(),
            prefix: self.prefix.clone(),
            derived_prefix: if self.derived_prefix.is_empty() {
                self.prefix.clone()
            } else {
                self.derived_prefix.clone()
            },
            options,
        };
        if self.bootstrap_servers.is_empty() {
            found.push("bootstrap_servers: is not set; give HOST:PORT".to_owned());
        }
        let mut checked = cluster.clone();
        if checked.bootstrap.is_empty() {
            // The fault of an address that is not set is there already: it is not told twice.
            checked.bootstrap = "set:1".to_owned();
        }
        faults.extend(found.into_iter().map(|fault| format!("kafka.{fault}")));
        faults.extend(
            checked
                .faults()
                .into_iter()
                .map(|fault| format!("kafka: {fault}")),
        );
        cluster
    }

    /// Whether a password would be sent in the clear.
    #[must_use]
    pub fn is_password_in_the_clear(&self) -> bool {
        self.sasl
            .as_ref()
            .is_some_and(|sasl| sasl.mechanism == Mechanism::Plain)
            && !self.tls.is_on()
    }
}

/// The fault of a property that librdkafka refuses; `None` if it takes the property.
fn unknown(name: &str, value: &str) -> Option<String> {
    let error = ClientConfig::new()
        .set(name, value)
        .create_native_config()
        .err()?;
    // librdkafka's error shows the value, so that of a secret is left out.
    Some(if is_secret(name) {
        format!("options: {name} is not taken")
    } else {
        format!("options: {name} is not taken: {error}")
    })
}

impl Tls {
    /// The files with the names of their settings and of librdkafka's properties.
    fn files(&self) -> [(&'static str, &'static str, Option<&Path>); 3] {
        [
            ("ca_file", "ssl.ca.location", self.ca_file.as_deref()),
            ("cert_file", "ssl.certificate.location", self.cert_file.as_deref()),
            ("key_file", "ssl.key.location", self.key_file.as_deref()),
        ]
    }

    fn is_on(&self) -> bool {
        self.enabled
            .unwrap_or_else(|| self.files().iter().any(|(_, _, file)| file.is_some()))
    }

    /// librdkafka's properties for TLS; `None` where it is off. Faults are added to `faults`.
    fn options(&self, faults: &mut Vec<String>) -> Option<Vec<(&'static str, String)>> {
        let mut options = Vec::new();
        for (setting, name, file) in self.files() {
            let Some(file) = file else { continue };
            match (std::fs::File::open(file), file.to_str()) {
                (Err(error), _) => faults.push(format!("tls.{setting}: {}: {error}", file.display())),
                (Ok(_), None) => {
                    faults.push(format!("tls.{setting}: {}: the name is no UTF-8", file.display()))
                }
                (Ok(_), Some(text)) => options.push((name, text.to_owned())),
            }
        }
        if self.cert_file.is_some() != self.key_file.is_some() {
            faults.push("tls: cert_file and key_file belong together: give both or none".to_owned());
        }
        if self.enabled == Some(false) && self.files().iter().any(|(_, _, file)| file.is_some()) {
            faults.push("tls.enabled: is false, but files are named: leave out one or the other".to_owned());
        }
        self.is_on().then_some(options)
    }
}

impl Sasl {
    /// librdkafka's properties for SASL. Faults are added to `faults`.
    fn options(&self, faults: &mut Vec<String>) -> Vec<(&'static str, String)> {
        if self.username.is_empty() {
            faults.push("sasl.username: is not set".to_owned());
        }
        let password = match (&self.password, &self.password_file) {
            (Some(password), None) if !password.reveal().is_empty() => password.reveal().to_owned(),
            (None, Some(file)) => password_in(file).unwrap_or_else(|error| {
                faults.push(format!("sasl.password_file: {}: {error}", file.display()));
                String::new()
            }),
            _ => {
                faults.push("sasl: give one of password and password_file".to_owned());
                String::new()
            }
        };
        vec![
            ("sasl.mechanism", self.mechanism.name().to_owned()),
            ("sasl.username", self.username.clone()),
            ("sasl.password", password),
        ]
    }
}

/// Why a file gives no password.
#[derive(Debug, thiserror::Error)]
enum PasswordError {
    #[error(transparent)]
    Read(#[from] std::io::Error),
    #[error("is {0} bytes long, which is too long for a password")]
    TooLong(u64),
    #[error("is empty")]
    Empty,
}

/// The password in a file, without white space around it.
fn password_in(file: &Path) -> Result<String, PasswordError> {
    let length = std::fs::metadata(file)?.len();
    if length > PASSWORD_BYTES_MAX {
        return Err(PasswordError::TooLong(length));
    }
    match std::fs::read_to_string(file)?.trim() {
        "" => Err(PasswordError::Empty),
        password => Ok(password.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> KafkaSection {
        toml::from_str(text).unwrap()
    }

    fn options(text: &str) -> Result<BTreeMap<String, String>, Vec<String>> {
        let mut faults = Vec::new();
        let cluster = section(text).cluster(&mut faults);
        if faults.is_empty() {
            Ok(cluster.options)
        } else {
            Err(faults)
        }
    }

    #[test]
    fn security_becomes_properties() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, " hunter2\n").unwrap();
        let file = file.to_str().unwrap();
        assert_eq!(options("bootstrap_servers = 'a:1'"), Ok(BTreeMap::new()));
        let text = format!(
            "bootstrap_servers = 'a:1'\ntls = {{ ca_file = '{file}', cert_file = '{file}', key_file = '{file}' }}\n\
             [sasl]\nmechanism = 'SCRAM-SHA-256'\nusername = 'me'\npassword_file = '{file}'\n[options]\n'socket.timeout.ms' = 7000"
        );
        let expected = [
            ("sasl.mechanism", "SCRAM-SHA-256"),
            ("sasl.password", "hunter2"),
            ("sasl.username", "me"),
            ("security.protocol", "SASL_SSL"),
            ("socket.timeout.ms", "7000"),
            ("ssl.ca.location", file),
            ("ssl.certificate.location", file),
            ("ssl.key.location", file),
        ];
        assert_eq!(
            options(&text),
            Ok(expected
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into())
        );
        let plain = "bootstrap_servers = 'a:1'\ntls.enabled = true\nsasl = { mechanism = 'PLAIN', username = 'me', password = 'x' }";
        assert_eq!(options(plain).unwrap()["security.protocol"], "SASL_SSL");
        assert!(!section(plain).is_password_in_the_clear());
        let clear = plain.replace("true", "false");
        assert_eq!(options(&clear).unwrap()["security.protocol"], "SASL_PLAINTEXT");
        assert!(section(&clear).is_password_in_the_clear());
    }

    #[test]
    fn every_fault_is_named() {
        let faults = options(
            "prefix = 'a/b'\ntls = { enabled = false, cert_file = '/does/not/exist' }\nsasl = { password = 'hunter2', password_file = 'f' }\n\
             [options]\nacks = '1'\n'no.such.property' = 'x'\n'sasl.password' = 'hunter2'\n'socket.timeout.ms' = 'soon'",
        )
        .unwrap_err()
        .join("\n");
        for part in [
            "kafka.bootstrap_servers: is not set",
            "a/b",
            "kafka.tls.cert_file: /does/not/exist",
            "cert_file and key_file",
            "kafka.tls.enabled",
            "kafka.sasl.username",
            "one of password and password_file",
            "acks can't be set",
            "no.such.property",
            "sasl.password has a setting of its own",
            "socket.timeout.ms is not taken",
        ] {
            assert!(faults.contains(part), "{part} is not in:\n{faults}");
        }
        assert!(!faults.contains("hunter2"), "{faults}");
        assert!(faults.lines().all(|fault| fault.starts_with("kafka")), "{faults}");
    }

    #[test]
    fn secrets_are_hidden_wherever_they_stand() {
        let section = section(
            "bootstrap_servers = 'a:1'\nsasl = { username = 'me', password = 'hunter2' }\n[options]\n'ssl.key.password' = 'hunter2'",
        );
        let printed = toml::to_string(&section).unwrap();
        assert!(
            !printed.contains("hunter2") && printed.matches(HIDDEN).count() == 2,
            "{printed}"
        );
        assert!(!format!("{section:?}").contains("hunter2"));
    }
}
