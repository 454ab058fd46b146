//! Finds the environment of raw records: those whose resource or tenant says so go to topics of another prefix, such as those
//! of CI.
//!
//! Each prefix is a whole set of topics, with settings of its own and processors of its own. Environment 0 is the main
//! prefix, where everything goes that no rule takes.

use crate::prepare::wire::{Fields, WireError, any_text, key_and_value};
use processor_log::cluster::Cluster;
use serde::{Deserialize, Serialize};

/// How many rules there may be.
pub const ROUTES_MAX: usize = 32;
/// Longest attribute, value or tenant that a rule may name, in bytes.
pub const ROUTE_TEXT_BYTES_MAX: usize = 256;

const RESOURCE_ATTRIBUTES: u32 = 1;

/// A rule as it is written in the settings. A record goes by it if everything that it names is as it says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// A resource attribute, such as `env`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribute: Option<String>,
    /// The value that the attribute must have, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The tenant that the record must be of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The prefix of the topics that the record goes to, in the place of the main one.
    pub prefix: String,
}

impl Route {
    /// Whether this rule takes everything that `later` would take.
    fn covers(&self, later: &Self) -> bool {
        let attribute =
            self.attribute.is_none() || (&self.attribute, &self.value) == (&later.attribute, &later.value);
        attribute && (self.tenant.is_none() || self.tenant == later.tenant)
    }

    /// What is wrong with this rule, the one at index `at`.
    fn faults(&self, at: usize) -> Vec<RouteFault> {
        let mut faults = Vec::new();
        match (&self.attribute, &self.value, &self.tenant) {
            (Some(_), Some(_), _) | (None, None, Some(_)) => {}
            (None, None, None) => faults.push(RouteFault::NamesNothing { at }),
            (Some(_), None, _) => faults.push(RouteFault::NoValue { at }),
            (None, Some(_), _) => faults.push(RouteFault::NoAttribute { at }),
        }
        let texts = [
            ("attribute", &self.attribute),
            ("value", &self.value),
            ("tenant", &self.tenant),
        ];
        for (name, text) in texts
            .into_iter()
            .filter_map(|(name, text)| Some((name, text.as_ref()?)))
        {
            if text.is_empty() || text.len() > ROUTE_TEXT_BYTES_MAX {
                faults.push(RouteFault::TextLength { at, name });
            }
        }
        let of_prefix = Cluster::plain("host:1", &self.prefix).faults().into_iter();
        faults.extend(of_prefix.map(|fault| RouteFault::Prefix { at, fault }));
        faults
    }
}

/// What is wrong with the rules. `at` is the index of the rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each is explained by its message, right above it")]
pub enum RouteFault {
    #[error("routes: there are {count}, but at most {ROUTES_MAX} may be")]
    TooMany { count: usize },
    #[error("routes.{at}: names neither an attribute with its value nor a tenant")]
    NamesNothing { at: usize },
    #[error("routes.{at}: names an attribute, but no value")]
    NoValue { at: usize },
    #[error("routes.{at}: names a value, but no attribute")]
    NoAttribute { at: usize },
    #[error("routes.{at}: {name} must have 1 to {ROUTE_TEXT_BYTES_MAX} bytes")]
    TextLength { at: usize, name: &'static str },
    #[error("routes.{at}: {fault}")]
    Prefix { at: usize, fault: String },
    #[error("routes.{at}: takes nothing, since routes.{before} takes it before")]
    Covered { at: usize, before: usize },
}

/// The rules in force; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    rules: Vec<(Route, u8)>,
    /// The prefixes of the environments from 1 on, in order.
    prefixes: Vec<String>,
}

impl Routes {
    /// The rules, of which the first that fits a record counts.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn new(main_prefix: &str, routes: &[Route]) -> Result<Self, Vec<RouteFault>> {
        let (mut made, mut faults) = (Self::default(), Vec::new());
        if routes.len() > ROUTES_MAX {
            faults.push(RouteFault::TooMany { count: routes.len() });
        }
        for (at, route) in routes.iter().enumerate().take(ROUTES_MAX) {
            faults.extend(route.faults(at));
            let covers = |(index, before): (usize, &Route)| {
                (before.faults(index).is_empty() && before.covers(route)).then_some(index)
            };
            if let Some(before) = routes[..at].iter().enumerate().find_map(covers) {
                faults.push(RouteFault::Covered { at, before });
            }
            let environment = made.environment(main_prefix, &route.prefix);
            made.rules.push((route.clone(), environment));
        }
        if faults.is_empty() { Ok(made) } else { Err(faults) }
    }

    /// The number of the environment with that prefix; a new one where it is not known yet.
    fn environment(&mut self, main_prefix: &str, prefix: &str) -> u8 {
        if prefix == main_prefix {
            return 0;
        }
        let known = self.prefixes.iter().position(|known| known == prefix);
        let index = known.unwrap_or_else(|| {
            self.prefixes.push(prefix.to_owned());
            self.prefixes.len() - 1
        });
        u8::try_from(index + 1).expect("there are at most as many prefixes as rules, and ROUTES_MAX of those")
    }

    /// Whether everything goes to the main prefix.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The prefixes of the environments from 1 on, in order.
    #[must_use]
    pub fn prefixes(&self) -> &[String] {
        &self.prefixes
    }

    /// The environment of a tenant's resource, which is given as an encoded OTLP `Resource`.
    ///
    /// # Errors
    /// The bytes are malformed.
    pub fn of(&self, tenant: &str, resource: &[u8]) -> Result<u8, WireError> {
        // Bit `at` is set where the resource has the attribute that rule `at` names, with its value.
        let mut fits: u32 = 0;
        for field in Fields::new(resource) {
            let field = field?;
            if field.number != RESOURCE_ATTRIBUTES {
                continue;
            }
            let (key, value) = key_and_value(field.len_payload()?)?;
            for (at, (rule, _)) in self.rules.iter().enumerate() {
                if rule
                    .attribute
                    .as_ref()
                    .is_some_and(|attribute| attribute.as_bytes() == key)
                {
                    let text = value.map_or(Ok(None), any_text)?;
                    fits |= u32::from(text.is_some() && text == rule.value.as_deref()) << at;
                }
            }
        }
        let takes = |at: usize, rule: &Route| {
            (rule.attribute.is_none() || fits >> at & 1 == 1)
                && rule.tenant.as_ref().is_none_or(|name| name == tenant)
        };
        Ok(self
            .rules
            .iter()
            .enumerate()
            .find(|(at, (rule, _))| takes(*at, rule))
            .map_or(0, |(_, (_, environment))| *environment))
    }
}

#[cfg(test)]
mod tests;
