//! Derivations: a derivation is one set of derived topics and results of a log.
//!
//! Two derivations of the same raw topics stand side by side under two derived prefixes. A further derivation is a replay: it
//! replaces one whose state is damaged, or one that an older version computed under other semantics.

use crate::view::MAIN;
use processor_log::cluster::Cluster;
use serde::{Deserialize, Serialize};

/// The most bytes of a derivation's name.
const NAME_BYTES_MAX: usize = 100;

/// The table `[derivation]` of settings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DerivationSection {
    /// The value of label `log` of every result. If left out, it is the derived prefix, else the prefix, else `main`.
    pub name: Option<String>,
    /// Whether the derivation ticks the raw partitions and writes to the quarantine topic. Exactly one derivation of a log does.
    pub ticks: bool,
}

impl Default for DerivationSection {
    fn default() -> Self {
        Self {
            name: None,
            ticks: true,
        }
    }
}

/// A derivation, with defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derivation {
    /// The value of label `log` of every result.
    pub name: String,
    /// The prefix of derived topics; empty for the first derivation of a data directory.
    pub prefix: String,
    /// Whether the derivation ticks the raw partitions and writes to the quarantine topic.
    pub ticks: bool,
}

impl DerivationSection {
    /// The derivation on a cluster. Faults of its name are added to `faults`.
    pub fn derivation(&self, cluster: &Cluster, faults: &mut Vec<String>) -> Derivation {
        self.named(cluster.derivation_name(), &cluster.derived_prefix, faults)
    }

    /// The derivation under that prefix in a data directory. Faults of its name are added to `faults`.
    pub fn of_directory(&self, prefix: &str, faults: &mut Vec<String>) -> Derivation {
        let name = if prefix.is_empty() { MAIN } else { prefix };
        self.named(name, prefix, faults)
    }

    fn named(&self, default: &str, prefix: &str, faults: &mut Vec<String>) -> Derivation {
        let name = self.name.as_deref().unwrap_or(default);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            faults.push(format!(
                "derivation.name: {name:?} must be 1 to {NAME_BYTES_MAX} bytes without control characters"
            ));
        }
        Derivation {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
            ticks: self.ticks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derivation_is_called_by_its_prefixes_unless_it_has_a_name() {
        let mut faults = Vec::new();
        let mut name = |section: &DerivationSection, prefix: &str, derived: &str| {
            let cluster = Cluster::plain("a:1", prefix).deriving(derived);
            section.derivation(&cluster, &mut faults).name
        };
        let left_out = DerivationSection::default();
        assert_eq!(name(&left_out, "", ""), "main");
        assert_eq!(name(&left_out, "lab.", "lab."), "lab.");
        assert_eq!(name(&left_out, "lab.", "second."), "second.");
        let named = DerivationSection {
            name: Some("blue".to_owned()),
            ..left_out.clone()
        };
        assert_eq!(name(&named, "lab.", "second."), "blue");
        assert_eq!(faults, Vec::<String>::new());
        let wrong = DerivationSection {
            name: Some(String::new()),
            ..left_out
        };
        wrong.of_directory("", &mut faults);
        assert!(faults[0].contains("derivation.name"), "{faults:?}");
    }
}
