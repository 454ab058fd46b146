//! Who may come in: how many records a request may hold, and how many bytes a tenant's open requests may.

use crate::wire::{Fields, WireError};
use dashmap::DashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A request may hold that many log records, spans or metrics.
pub const RECORDS_MAX: usize = 100_000;
/// That many tenants are told apart; one more is refused.
pub const TENANTS_MAX: usize = 10_000;

/// Counts the log records, spans or metrics of a request: all three signals nest them alike.
///
/// # Errors
/// The bytes are not of that form, as far as the count needs it.
pub fn count_records(request: &[u8]) -> Result<usize, WireError> {
    let mut count = 0;
    for resource in Fields::new(request) {
        let resource = resource?;
        if resource.number != 1 {
            continue;
        }
        for scope in Fields::new(resource.len_payload()?) {
            let scope = scope?;
            if scope.number != 2 {
                continue;
            }
            for record in Fields::new(scope.len_payload()?) {
                count += usize::from(record?.number == 2);
            }
        }
    }
    Ok(count)
}

/// A tenant has as many bytes in open requests as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many bytes in open requests; send again later")]
pub struct Busy;

/// What each tenant's open requests hold.
#[derive(Debug)]
pub struct Admission {
    tenants: DashMap<String, Arc<AtomicU64>>,
    bytes_max: u64,
}

impl Admission {
    /// Admits up to `bytes_max` bytes a tenant.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self { tenants: DashMap::new(), bytes_max }
    }

    /// A permit for a request of that tenant; it holds nothing yet.
    ///
    /// # Errors
    /// There are [`TENANTS_MAX`] other tenants already.
    pub fn permit(&self, tenant: &str) -> Result<Permit, Busy> {
        let known = self.tenants.get(tenant).map(|held| Arc::clone(&held));
        let in_flight = match known {
            Some(held) => held,
            None if self.tenants.len() >= TENANTS_MAX => return Err(Busy),
            None => Arc::clone(&self.tenants.entry(tenant.to_owned()).or_default()),
        };
        Ok(Permit { in_flight, held: 0, max: self.bytes_max })
    }
}

/// The bytes that one request holds; given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    in_flight: Arc<AtomicU64>,
    held: u64,
    max: u64,
}

impl Permit {
    /// Takes more bytes.
    ///
    /// # Errors
    /// The tenant's requests would hold more than they may; nothing more is taken then.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Busy> {
        let bytes = bytes as u64;
        let grown = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= self.max);
        self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).map_err(|_| Busy)?;
        self.held += bytes;
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::put_len;

    #[test]
    fn counts_on_the_wire() {
        let (mut scope, mut resource, mut request) = (Vec::new(), Vec::new(), Vec::new());
        put_len(&mut scope, 2, b"");
        put_len(&mut scope, 2, b"anything");
        put_len(&mut resource, 2, &scope);
        put_len(&mut resource, 1, b"\xff");
        put_len(&mut request, 1, &resource);
        put_len(&mut request, 1, &resource);
        assert_eq!(count_records(&request), Ok(4));
        assert_eq!(count_records(b""), Ok(0));
        assert_eq!(count_records(&request[..request.len() - 1]), Err(WireError::Truncated));
    }

    #[test]
    fn a_tenant_gets_its_bytes_back_and_no_other_tenants() {
        let admission = Admission::new(10);
        let mut first = admission.permit("a").unwrap();
        first.grow(6).unwrap();
        first.grow(4).unwrap();
        let mut second = admission.permit("a").unwrap();
        assert_eq!(second.grow(1), Err(Busy));
        admission.permit("b").unwrap().grow(10).unwrap();
        drop(first);
        second.grow(10).unwrap();
    }
}
