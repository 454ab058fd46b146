//! Names the cluster of a command: by flags, over the environment, over a file of settings.

use ingest::prepare::hash::HashKey;
use ingest::process::PrivacySection;
use processor::derivation::DerivationSection;
use processor_log::cluster::Cluster;
use serde::Deserialize;
use settings::kafka::KafkaSection;
use settings::layers::{Sources, load};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The flags that name a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct ClusterArgs {
    /// Uses this Kafka cluster in place of the embedded log.
    #[arg(long, value_name = "HOST:PORT")]
    pub kafka: Option<String>,
    /// Goes before the names of all topics on the cluster.
    #[arg(long)]
    pub prefix: Option<String>,
    /// Goes before the names of derived topics and of the consumer group in place of the prefix: a second derivation of the
    /// same raw topics.
    #[arg(long, value_name = "PREFIX")]
    pub derived_prefix: Option<String>,
    /// The cluster as its table `[kafka]` says, TLS and SASL included; other tables are left alone, so that the file of
    /// tacho-ingest or tacho-processor will do. TACHO_KAFKA__… and flags go over it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The part of a file of settings that names the cluster; other tables are ignored.
#[derive(Default, Deserialize)]
#[serde(default)]
struct OnlyKafka {
    kafka: KafkaSection,
}

/// The part of a file of settings that holds the key of hashes; other tables are ignored.
#[derive(Default, Deserialize)]
#[serde(default)]
struct OnlyPrivacy {
    privacy: PrivacySection,
}

/// The part of a file of settings that names the derivation; other tables are ignored.
#[derive(Default, Deserialize)]
#[serde(default)]
struct OnlyDerivation {
    derivation: DerivationSection,
}

impl ClusterArgs {
    /// Whether the flags name a cluster at all.
    pub fn is_given(&self) -> bool {
        self.kafka.is_some() || self.config.is_some()
    }

    /// The cluster that the flags name, or `None`. What is wrong with the settings is added to `faults`.
    pub fn resolve(&self, env: &BTreeMap<String, String>, faults: &mut Vec<String>) -> Option<Cluster> {
        if !self.is_given() {
            if self.prefix.is_some() {
                faults.push("--prefix is for topics on a cluster: give --kafka or --config too".to_owned());
            }
            return None;
        }
        let flags = [
            ("kafka.bootstrap_servers", &self.kafka),
            ("kafka.prefix", &self.prefix),
            ("kafka.derived_prefix", &self.derived_prefix),
        ];
        let flags = flags
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.clone()?)))
            .collect();
        let (settings, found) = load::<OnlyKafka>(&Sources {
            file: self.config.clone(),
            env: env.clone(),
            flags,
        });
        faults.extend(found);
        Some(settings.kafka.cluster(faults))
    }

    /// The key of hashes, if the table `[privacy]` of the file or `TACHO_PRIVACY__…` gives one. What is wrong with it is
    /// added to `faults`.
    pub fn hash_key(&self, env: &BTreeMap<String, String>, faults: &mut Vec<String>) -> Option<HashKey> {
        let sources = Sources {
            file: self.config.clone(),
            env: env.clone(),
            flags: Vec::new(),
        };
        load::<OnlyPrivacy>(&sources).0.privacy.key(faults)
    }

    /// The table `[derivation]` of the file, or `TACHO_DERIVATION__…`. What is wrong with it is added to `faults`.
    pub fn derivation(&self, env: &BTreeMap<String, String>, faults: &mut Vec<String>) -> DerivationSection {
        let (settings, found) = load::<OnlyDerivation>(&Sources {
            file: self.config.clone(),
            env: env.clone(),
            flags: Vec::new(),
        });
        faults.extend(found);
        settings.derivation
    }

    /// The cluster of a command that works on clusters only: where the flags name none, that is a fault.
    pub fn required(&self, env: &BTreeMap<String, String>, faults: &mut Vec<String>) -> Option<Cluster> {
        let cluster = self.resolve(env, faults);
        if cluster.is_none() {
            faults.push("this is about a cluster: give --kafka or --config".to_owned());
        }
        cluster
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_process_names_the_cluster() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/examples/processor.toml");
        let args = ClusterArgs {
            config: Some(file.into()),
            prefix: Some("lab.".to_owned()),
            kafka: None,
            derived_prefix: None,
        };
        let env = BTreeMap::from([("TACHO_KAFKA__BOOTSTRAP_SERVERS".to_owned(), "env:1".to_owned())]);
        let mut faults = Vec::new();
        assert_eq!(
            args.resolve(&env, &mut faults),
            Some(Cluster::plain("env:1", "lab."))
        );
        assert_eq!(ClusterArgs::default().resolve(&env, &mut faults), None);
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!(ClusterArgs::default().required(&env, &mut faults), None);
        assert_eq!(faults, ["this is about a cluster: give --kafka or --config"]);
    }
}
