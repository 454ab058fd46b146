//! Environments: raw records whose resource or tenant says so go to topics of another prefix, such as those of CI.
//!
//! Each prefix is a whole set of topics, with settings of its own and processors of its own. Environment 0 is the main
//! prefix, where everything goes that no rule takes.

use crate::prepare::wire::{Fields, WireError, any_text, key_and_value};
use crate::sink::{RawRecord, Sink, SinkError};
use schemas::cluster::Cluster;
use serde::{Deserialize, Serialize};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// So many rules at most.
pub const ROUTES_MAX: usize = 32;
/// Longest attribute, value or tenant that a rule names, in bytes.
pub const ROUTE_TEXT_BYTES_MAX: usize = 256;

const RESOURCE_ATTRIBUTES: u32 = 1;

/// A rule as it is written. All that it names must be so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// A resource attribute, such as `env`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribute: Option<String>,
    /// Its value, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// A tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Before the names of the topics that it goes to, in the place of the main prefix.
    pub prefix: String,
}

impl Route {
    /// Whether all that `later` takes is taken already.
    fn covers(&self, later: &Self) -> bool {
        let attribute =
            self.attribute.is_none() || (&self.attribute, &self.value) == (&later.attribute, &later.value);
        attribute && (self.tenant.is_none() || self.tenant == later.tenant)
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        match (&self.attribute, &self.value, &self.tenant) {
            (Some(_), Some(_), _) | (None, None, Some(_)) => {}
            (None, None, None) => {
                faults.push("names neither an attribute with its value nor a tenant".to_owned())
            }
            (Some(_), None, _) => faults.push("names an attribute, but no value".to_owned()),
            (None, Some(_), _) => faults.push("names a value, but no attribute".to_owned()),
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
                faults.push(format!("{name} must have 1 to {ROUTE_TEXT_BYTES_MAX} bytes"));
            }
        }
        faults.extend(Cluster::plain("host:1", &self.prefix).faults());
        faults
    }
}

/// The rules in force; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    rules: Vec<(Route, u8)>,
    /// Of the environments from 1 on.
    prefixes: Vec<String>,
}

impl Routes {
    /// The rules, of which the first that fits counts. What is wrong with them is added to `faults`.
    pub fn new(main_prefix: &str, routes: &[Route], faults: &mut Vec<String>) -> Self {
        let mut made = Self::default();
        if routes.len() > ROUTES_MAX {
            faults.push(format!(
                "routes: there are {}, but at most {ROUTES_MAX} may be",
                routes.len()
            ));
        }
        for (at, route) in routes.iter().enumerate().take(ROUTES_MAX) {
            faults.extend(
                route
                    .faults()
                    .into_iter()
                    .map(|fault| format!("routes.{at}: {fault}")),
            );
            if let Some(before) = routes[..at]
                .iter()
                .position(|before| before.faults().is_empty() && before.covers(route))
            {
                faults.push(format!(
                    "routes.{at}: takes nothing, since routes.{before} takes it before"
                ));
            }
            let environment = made.environment(main_prefix, &route.prefix);
            made.rules.push((route.clone(), environment));
        }
        made
    }

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

    /// The environment of a tenant's resource: the bytes of an OTLP `Resource`.
    ///
    /// # Errors
    /// The bytes are malformed.
    pub fn of(&self, tenant: &str, resource: &[u8]) -> Result<u8, WireError> {
        // A bit for each rule whose attribute is as it asks for.
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

/// A sink for each environment, the main one first.
pub struct Routed<S> {
    sinks: Vec<S>,
}

impl<S> Routed<S> {
    /// Sinks by environment: that of the main prefix, then those of [`Routes::prefixes`].
    pub const fn new(sinks: Vec<S>) -> Self {
        Self { sinks }
    }

    /// The sinks, in the order of environments.
    #[must_use]
    pub fn sinks(&self) -> &[S] {
        &self.sinks
    }

    fn sink(&self, environment: u8) -> Result<&S, SinkError> {
        let sink = self.sinks.get(usize::from(environment));
        sink.ok_or_else(|| SinkError::Unavailable(format!("there is no environment {environment}")))
    }
}

impl<S: Sink> Sink for Routed<S> {
    async fn append(&self, records: Vec<RawRecord>) -> Result<(), SinkError> {
        let Some(first) = records.first().map(|record| record.environment) else {
            return Ok(());
        };
        if records.iter().all(|record| record.environment == first) {
            return self.sink(first)?.append(records).await;
        }
        let mut parts: Vec<Vec<RawRecord>> = self.sinks.iter().map(|_| Vec::new()).collect();
        for record in records {
            self.sink(record.environment)?;
            parts[usize::from(record.environment)].push(record);
        }
        let parts = self.sinks.iter().zip(parts).filter(|(_, part)| !part.is_empty());
        all(parts
            .map(|(sink, part)| Box::pin(sink.append(part)) as Appending<'_>)
            .collect())
        .await
    }

    /// Only when all are: a record of any environment may come next.
    fn ready(&self) -> bool {
        self.sinks.iter().all(Sink::ready)
    }
}

type Appending<'a> = Pin<Box<dyn Future<Output = Result<(), SinkError>> + Send + 'a>>;

/// Waits for all, side by side; of several failures, gives the first.
async fn all(mut waiting: Vec<Appending<'_>>) -> Result<(), SinkError> {
    let mut result = Ok(());
    poll_fn(|context| {
        waiting.retain_mut(|one| match one.as_mut().poll(context) {
            Poll::Ready(outcome) => {
                if result.is_ok() {
                    result = outcome;
                }
                false
            }
            Poll::Pending => true,
        });
        if waiting.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    result
}

#[cfg(test)]
mod tests;
