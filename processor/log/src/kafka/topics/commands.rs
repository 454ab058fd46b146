//! The commands that mend faults of topics, for an operator to paste.

use crate::cluster::Cluster;

/// The commands that mend faults on a cluster.
pub(super) struct Commands<'a> {
    pub cluster: &'a Cluster,
}

impl Commands<'_> {
    /// How Kafka's own tools reach the cluster; where it asks for security, that is in a file of the operator's.
    pub fn connection(&self) -> String {
        let security = if self.cluster.options.is_empty() {
            ""
        } else {
            " --command-config FILE"
        };
        format!(" --bootstrap-server {}{security}", self.cluster.bootstrap)
    }

    /// Our own command that makes missing topics and renews old ones.
    pub fn apply(&self) -> String {
        if !self.cluster.options.is_empty() {
            return "tacho topics apply --config FILE".to_owned();
        }
        format!(
            "tacho topics apply --kafka {}{}",
            self.cluster.bootstrap,
            self.cluster.prefix_flags()
        )
    }

    /// Kafka's command that changes a topic's setting.
    pub fn alter(&self, name: &str, key: &str, value: &str) -> String {
        format!(
            "kafka-configs.sh{} --alter --entity-type topics --entity-name {name} --add-config {key}={value}",
            self.connection()
        )
    }

    /// The way out of a wrong partition count: a topic made anew. A count can't change later, since keys would be in two
    /// partitions.
    pub fn again(&self, name: &str) -> String {
        format!(
            "use another prefix; or, while nothing is in it, kafka-topics.sh{} --delete --topic {name} && {}",
            self.connection(),
            self.apply()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_can_be_pasted() {
        let mut cluster = Cluster::plain("a:1", "lab.");
        assert_eq!(
            Commands { cluster: &cluster }.apply(),
            "tacho topics apply --kafka a:1 --prefix lab."
        );
        cluster
            .options
            .insert("security.protocol".to_owned(), "SSL".to_owned());
        assert_eq!(
            Commands { cluster: &cluster }.apply(),
            "tacho topics apply --config FILE"
        );
        assert!(
            Commands { cluster: &cluster }
                .alter("t", "k", "v")
                .contains("--bootstrap-server a:1 --command-config FILE --alter")
        );
    }
}
