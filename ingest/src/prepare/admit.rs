//! Bounds what a request may hold, and how many bytes open requests may hold: those of a tenant, and all.

use crate::prepare::privacy::RECORD_BYTES_MAX;
use crate::prepare::wire::{Fields, WireError};
use dashmap::DashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many log records, spans or metrics a request may hold.
pub const RECORDS_MAX: usize = 100_000;
/// How many parts a request may hold: fields of the request, of its resources and of its scopes, records included.
pub const PARTS_MAX: usize = 200_000;
/// How many fields the records of a request may hold together: attributes, span events, data.
pub const FIELDS_MAX: usize = 1_000_000;
/// How many bytes the records of a request may hold together. Each counts with [`RECORD_BYTES_MAX`] at most, since longer
/// ones are cut.
pub const RECORDS_BYTES_MAX: usize = 32 << 20;
/// How many tenants may have open requests counted; one more is refused.
pub const TENANTS_MAX: usize = 10_000;

/// What a request holds, counted on the wire without an allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// How many log records, spans or metrics there are.
    pub records: usize,
    /// How many fields the request, its resources and its scopes have together.
    pub parts: usize,
    /// How many bytes the records have together, each counted with [`RECORD_BYTES_MAX`] at most.
    pub bytes: usize,
}

/// What a request holds too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each is explained by its message, right above it")]
pub enum Excess {
    #[error("the request holds more than {RECORDS_MAX} records: send smaller batches")]
    Records,
    #[error("the request holds more than {PARTS_MAX} resources, scopes and records: send smaller batches")]
    Parts,
    #[error("the records of the request hold more than {FIELDS_MAX} fields: send smaller batches")]
    Fields,
    #[error("the records of the request hold more than {RECORDS_BYTES_MAX} bytes: send smaller batches")]
    Bytes,
}

impl Size {
    /// Counts what a request holds; all three signals nest their records alike. The count ends after [`PARTS_MAX`] and one.
    ///
    /// # Errors
    /// The bytes are no such request, as far as the count needs it.
    pub fn of(request: &[u8]) -> Result<Self, WireError> {
        let mut size = Self::default();
        for resource in Fields::new(request) {
            let resource = resource?;
            if !size.part() {
                return Ok(size);
            }
            if resource.number != 1 {
                continue;
            }
            for scope in Fields::new(resource.len_payload()?) {
                let scope = scope?;
                if !size.part() {
                    return Ok(size);
                }
                if scope.number != 2 {
                    continue;
                }
                for record in Fields::new(scope.len_payload()?) {
                    let record = record?;
                    if !size.part() {
                        return Ok(size);
                    }
                    if record.number == 2 {
                        size.records += 1;
                        size.bytes += record.payload.len().min(RECORD_BYTES_MAX);
                    }
                }
            }
        }
        Ok(size)
    }

    /// Counts one more part; false when that is one too many.
    const fn part(&mut self) -> bool {
        self.parts += 1;
        self.parts <= PARTS_MAX
    }

    /// Checks that a request may hold that much.
    ///
    /// # Errors
    /// What there is too much of.
    pub const fn check(self) -> Result<(), Excess> {
        match self {
            Self { records, .. } if records > RECORDS_MAX => Err(Excess::Records),
            Self { parts, .. } if parts > PARTS_MAX => Err(Excess::Parts),
            Self { bytes, .. } if bytes > RECORDS_BYTES_MAX => Err(Excess::Bytes),
            _ => Ok(()),
        }
    }
}

/// Checks that the records hold at most [`FIELDS_MAX`] fields. Only large requests need it.
///
/// # Errors
/// The outer error says why the bytes are no request, the inner one that they hold too much.
pub fn check_fields(request: &[u8]) -> Result<Result<(), Excess>, WireError> {
    let mut fields = 0;
    for record in records(request) {
        for field in Fields::new(record?) {
            field?;
            fields += 1;
            if fields > FIELDS_MAX {
                return Ok(Err(Excess::Fields));
            }
        }
    }
    Ok(Ok(()))
}

/// The payloads of all records of a request, up to the first error.
pub(crate) fn records(request: &[u8]) -> impl Iterator<Item = Result<&[u8], WireError>> {
    children(Ok(request), 1)
        .flat_map(|resource| children(resource, 2))
        .flat_map(|scope| children(scope, 2))
}

/// The messages in the fields of `message` with that number; an error is passed on.
fn children(
    message: Result<&[u8], WireError>,
    number: u32,
) -> impl Iterator<Item = Result<&[u8], WireError>> {
    let (message, error) = match message {
        Ok(message) => (message, None),
        Err(error) => (&[][..], Some(Err(error))),
    };
    let fields = Fields::new(message).filter_map(move |field| match field {
        Ok(field) => (field.number == number).then(|| field.len_payload()),
        Err(error) => Some(Err(error)),
    });
    error.into_iter().chain(fields)
}

/// Open requests hold as many bytes as they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many bytes in open requests; send again later")]
pub struct Busy;

/// Counts the bytes that open requests hold, of each tenant and in all.
#[derive(Debug)]
pub struct Admission {
    tenants: DashMap<String, Arc<AtomicU64>>,
    bytes_max: u64,
    all: Arc<AtomicU64>,
    all_max: u64,
}

impl Admission {
    /// Admits up to `bytes_max` bytes for each tenant, and `all_max` in all.
    #[must_use]
    pub fn new(bytes_max: u64, all_max: u64) -> Self {
        Self {
            tenants: DashMap::new(),
            bytes_max,
            all: Arc::default(),
            all_max,
        }
    }

    /// A permit for a request of that tenant, which holds no bytes yet.
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
        Ok(Permit {
            in_flight,
            all: Arc::clone(&self.all),
            held: 0,
            max: self.bytes_max,
            all_max: self.all_max,
        })
    }
}

/// The bytes that one request holds; they are given back when the permit is dropped.
#[derive(Debug)]
pub struct Permit {
    in_flight: Arc<AtomicU64>,
    all: Arc<AtomicU64>,
    held: u64,
    max: u64,
    all_max: u64,
}

impl Permit {
    /// Takes `bytes` more bytes.
    ///
    /// # Errors
    /// The tenant's requests, or all requests, would hold more than they may; then nothing more is taken.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Busy> {
        let bytes = bytes as u64;
        let take = |held: &AtomicU64, max: u64| {
            let grown = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= max);
            held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown)
                .map_err(|_| Busy)
        };
        take(&self.in_flight, self.max)?;
        if let Err(busy) = take(&self.all, self.all_max) {
            self.in_flight.fetch_sub(bytes, Ordering::Relaxed);
            return Err(busy);
        }
        self.held += bytes;
        Ok(())
    }

    /// How many bytes the permit holds.
    #[must_use]
    pub const fn held(&self) -> u64 {
        self.held
    }

    /// Gives back what the permit holds above `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        let less = self.held.saturating_sub(bytes);
        self.in_flight.fetch_sub(less, Ordering::Relaxed);
        self.all.fetch_sub(less, Ordering::Relaxed);
        self.held -= less;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare::wire::put_len;

    #[test]
    fn counts_on_the_wire() {
        let (mut scope, mut resource, mut request) = (Vec::new(), Vec::new(), Vec::new());
        put_len(&mut scope, 2, b"");
        put_len(&mut scope, 2, b"\x1a\x01x");
        put_len(&mut resource, 2, &scope);
        put_len(&mut resource, 1, b"\xff");
        put_len(&mut request, 1, &resource);
        put_len(&mut request, 1, &resource);
        assert_eq!(
            Size::of(&request),
            Ok(Size {
                records: 4,
                parts: 10,
                bytes: 6
            })
        );
        assert_eq!(Size::of(b""), Ok(Size::default()));
        assert_eq!(Size::of(&request[..request.len() - 1]), Err(WireError::Truncated));
        let all: Result<Vec<_>, _> = records(&request).collect();
        assert_eq!(all, Ok(vec![&b""[..], b"\x1a\x01x", b"", b"\x1a\x01x"]));
        assert_eq!(check_fields(&request), Ok(Ok(())));
        assert_eq!(
            check_fields(&request[..request.len() - 1]),
            Err(WireError::Truncated)
        );
    }

    #[test]
    fn what_is_too_much_is_named() {
        let nested = |scope: &[u8]| {
            let (mut resource, mut request) = (Vec::new(), Vec::new());
            put_len(&mut resource, 2, scope);
            put_len(&mut request, 1, &resource);
            request
        };
        let check = |request: &[u8]| Size::of(request).unwrap().check();
        assert_eq!(check(&nested(&[0x12, 0].repeat(RECORDS_MAX))), Ok(()));
        assert_eq!(
            check(&nested(&[0x12, 0].repeat(RECORDS_MAX + 1))),
            Err(Excess::Records)
        );
        assert_eq!(check(&[0x0a, 0].repeat(PARTS_MAX)), Ok(()));
        assert_eq!(check(&[0x0a, 0].repeat(PARTS_MAX + 1)), Err(Excess::Parts));
        let record = |bytes: usize| {
            let mut scope = Vec::new();
            put_len(&mut scope, 2, &vec![0; bytes]);
            scope
        };
        assert_eq!(check(&nested(&record(50 << 20))), Ok(()));
        assert_eq!(check(&nested(&record(1 << 20).repeat(33))), Err(Excess::Bytes));
        let fields = |count: usize| {
            let mut scope = Vec::new();
            put_len(&mut scope, 2, &[0x32, 0].repeat(count));
            check_fields(&nested(&scope)).unwrap()
        };
        assert_eq!(
            (fields(FIELDS_MAX), fields(FIELDS_MAX + 1)),
            (Ok(()), Err(Excess::Fields))
        );
    }

    #[test]
    fn a_tenant_gets_its_bytes_back_and_no_other_tenants() {
        let admission = Admission::new(10, 25);
        let mut first = admission.permit("a").unwrap();
        first.grow(6).unwrap();
        first.grow(4).unwrap();
        let mut second = admission.permit("a").unwrap();
        assert_eq!(second.grow(1), Err(Busy));
        let mut other = admission.permit("b").unwrap();
        other.grow(10).unwrap();
        // All together may hold 25 bytes, and what is refused is held by nobody.
        let mut third = admission.permit("c").unwrap();
        assert_eq!(third.grow(6), Err(Busy));
        third.grow(5).unwrap();
        other.shrink(4);
        assert_eq!(other.held(), 4);
        third.grow(5).unwrap();
        drop((first, other, third));
        second.grow(10).unwrap();
    }
}
