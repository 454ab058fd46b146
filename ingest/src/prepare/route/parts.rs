//! Takes a request apart on the wire, and puts parts of it together again.

use super::{RouteError, VALUE_BYTES_MAX};
use crate::prepare::environment::Routes;
use crate::prepare::wire::{Fields, WireError, len_field_size, put_len};

/// A resource's part of a request.
pub(super) struct Resource<'a> {
    /// The fields of the part other than its scopes, as they came.
    own: Vec<&'a [u8]>,
    /// The payload of the `Resource` message in it.
    pub payload: &'a [u8],
    /// The environment that its records go to.
    environment: u8,
}

/// A scope's part of a resource's part.
struct Scope<'a> {
    /// The fields of the part other than its items, as they came.
    own: Vec<&'a [u8]>,
    /// The index of the resource that the scope belongs to.
    resource: usize,
}

/// A log record, span or metric, with the indexes of what it stands in.
pub(super) struct Item<'a> {
    pub resource: usize,
    scope: usize,
    raw: &'a [u8],
    pub payload: &'a [u8],
}

/// A request, taken apart on the wire. All three signals nest alike: field 1 is a resource's part of the request; in it
/// field 1 is the resource and field 2 a scope's part; in that field 1 is the scope and field 2 an item.
pub(super) struct Parts<'a> {
    /// The fields of the request that are not parts of resources.
    own: Vec<&'a [u8]>,
    pub resources: Vec<Resource<'a>>,
    scopes: Vec<Scope<'a>>,
    pub items: Vec<Item<'a>>,
}

impl<'a> Parts<'a> {
    pub fn of(request: &'a [u8]) -> Result<Self, WireError> {
        let mut parts = Self {
            own: Vec::new(),
            resources: Vec::new(),
            scopes: Vec::new(),
            items: Vec::new(),
        };
        for field in Fields::new(request) {
            let field = field?;
            if field.number == 1 {
                parts.resource(field.len_payload()?)?
            } else {
                parts.own.push(field.raw)
            }
        }
        Ok(parts)
    }

    /// Finds the environment of each resource; without it, all belong to environment 0.
    pub fn find_environments(&mut self, routes: &Routes, tenant: &str) -> Result<(), WireError> {
        for resource in &mut self.resources {
            resource.environment = routes.of(tenant, resource.payload)?;
        }
        Ok(())
    }

    /// The environment that an item's record goes to.
    pub fn environment(&self, item: &Item<'_>) -> u8 {
        self.resources[item.resource].environment
    }

    fn resource(&mut self, message: &'a [u8]) -> Result<(), WireError> {
        let index = self.resources.len();
        self.resources.push(Resource {
            own: Vec::new(),
            payload: &[],
            environment: 0,
        });
        for field in Fields::new(message) {
            let field = field?;
            if field.number == 2 {
                self.scope(index, field.len_payload()?)?;
                continue;
            }
            self.resources[index].own.push(field.raw);
            if field.number == 1 {
                self.resources[index].payload = field.len_payload()?;
            }
        }
        Ok(())
    }

    fn scope(&mut self, resource: usize, message: &'a [u8]) -> Result<(), WireError> {
        let scope = self.scopes.len();
        self.scopes.push(Scope {
            own: Vec::new(),
            resource,
        });
        for field in Fields::new(message) {
            let field = field?;
            if field.number == 2 {
                self.items.push(Item {
                    resource,
                    scope,
                    raw: field.raw,
                    payload: field.len_payload()?,
                });
            } else {
                self.scopes[scope].own.push(field.raw);
            }
        }
        Ok(())
    }

    /// Requests with the items of `chosen`, in order, each as large as fits into a message. The number beside each request says
    /// where in `chosen` it ends.
    pub fn build(&self, chosen: &[usize]) -> Result<Vec<(usize, Vec<u8>)>, RouteError> {
        let (mut values, mut start) = (Vec::new(), 0);
        while start < chosen.len() {
            let end = self.fitting(chosen, start)?;
            values.push((end, self.encode(&chosen[start..end])));
            start = end;
        }
        Ok(values)
    }

    /// How far the items of `chosen` from `start` on fit into one message, by an upper bound of its size.
    fn fitting(&self, chosen: &[usize], start: usize) -> Result<usize, RouteError> {
        let mut size: usize = self.own.iter().map(|raw| raw.len()).sum();
        let (mut resource, mut scope) = (None, None);
        for (at, &index) in chosen.iter().enumerate().skip(start) {
            let item = &self.items[index];
            let mut grown = size + item.raw.len();
            if resource != Some(item.resource) {
                grown += enclosing_size(&self.resources[item.resource].own);
            }
            if scope != Some(item.scope) {
                grown += enclosing_size(&self.scopes[item.scope].own);
            }
            if grown > VALUE_BYTES_MAX {
                return if at == start {
                    Err(RouteError::TooLarge { bytes: grown })
                } else {
                    Ok(at)
                };
            }
            size = grown;
            (resource, scope) = (Some(item.resource), Some(item.scope));
        }
        Ok(chosen.len())
    }

    fn encode(&self, chosen: &[usize]) -> Vec<u8> {
        let mut out = self.own.concat();
        for of_resource in chosen.chunk_by(|a, b| self.items[*a].resource == self.items[*b].resource) {
            let mut resource = Vec::new();
            for of_scope in of_resource.chunk_by(|a, b| self.items[*a].scope == self.items[*b].scope) {
                let of = &self.scopes[self.items[of_scope[0]].scope];
                let mut scope = of.own.concat();
                for &index in of_scope {
                    scope.extend_from_slice(self.items[index].raw);
                }
                if resource.is_empty() {
                    resource = self.resources[of.resource].own.concat();
                }
                put_len(&mut resource, 2, &scope);
            }
            put_len(&mut out, 1, &resource);
        }
        out
    }
}

/// An upper bound of the bytes that a resource's or scope's part adds to what is in it: its own fields, and a key and a length
/// of the largest size.
fn enclosing_size(own: &[&[u8]]) -> usize {
    own.iter().map(|raw| raw.len()).sum::<usize>() + len_field_size(2, VALUE_BYTES_MAX) - VALUE_BYTES_MAX
}
