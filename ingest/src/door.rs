//! The path that every request takes, whatever protocol brought it.

use crate::admit::{Admission, Permit, RECORDS_MAX, count_records};
use crate::config::Config;
use crate::json;
use crate::policy::{Policies, Rule};
use crate::privacy::{self, Counts};
use crate::reply::Reject;
use crate::route;
use crate::scrub::Scrubber;
use crate::signal::Signal;
use crate::sink::{RawRecord, Sink, SinkError};
use crate::telemetry::Telemetry;
use bytes::Bytes;
use schemas::id::DEFAULT_TENANT;
use std::io::Read;
use std::sync::Arc;

/// Bodies above that size, and all that must be decompressed or are JSON, are worked on outside of the threads that
/// serve connections.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// Decompression asks for room in steps of that size.
const INFLATE_STEP: usize = 64 << 10;

/// How a request is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Binary protobuf.
    Protobuf,
    /// OTLP/JSON.
    Json,
}

/// A body as it came, with how to read it.
#[derive(Debug)]
pub struct Incoming {
    /// Which request it is.
    pub signal: Signal,
    /// Its encoding.
    pub form: Form,
    /// Whether it is compressed.
    pub gzip: bool,
    /// The bytes.
    pub body: Bytes,
    /// Holds the size of `body`; grows with decompression.
    pub permit: Permit,
}

/// What the doors share: settings, limits in use, the sink. Make it after a metrics recorder is installed.
pub struct Door<S> {
    pub(crate) config: Config,
    pub(crate) telemetry: Telemetry,
    admission: Admission,
    policies: Arc<Policies>,
    sink: Arc<S>,
}

/// A request that may be written.
pub(crate) struct Prepared {
    pub records: Vec<RawRecord>,
    pub counts: Counts,
    pub decoded_bytes: usize,
    permit: Permit,
}

impl<S: Sink> Door<S> {
    /// The shared part of all doors to `sink`, under the policy in force. Says so loudly when texts are kept whatever that
    /// is.
    #[must_use]
    pub fn new(config: Config, policies: Arc<Policies>, sink: Arc<S>) -> Arc<Self> {
        if config.keep_text {
            tracing::warn!(
                "keep_text is on: whatever the privacy policy says, prompts, arguments, outputs and answers are stored in the clear"
            );
        }
        // Read before the first request, and not in it.
        Scrubber::shared();
        let admission = Admission::new(config.tenant_bytes_in_flight_max);
        Arc::new(Self { config, telemetry: Telemetry::new(), admission, policies, sink })
    }

    /// Whether records would be taken now.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.sink.ready()
    }

    /// A permit for one request.
    ///
    /// # Errors
    /// There is no room for another tenant.
    pub fn permit(&self) -> Result<Permit, Reject> {
        Ok(self.admission.permit(DEFAULT_TENANT)?)
    }

    /// Resolves once all of the request is durable.
    ///
    /// # Errors
    /// Why it is refused; nothing of it was written then, unless the sink could not tell.
    pub async fn accept(self: &Arc<Self>, incoming: Incoming) -> Result<(), Reject> {
        let signal = incoming.signal;
        let unread = || SinkError::Unavailable("the privacy policy in tacho.control is not read yet".to_owned());
        let rule = self.policies.rule(&self.config, DEFAULT_TENANT).ok_or_else(unread)?;
        let inline = !incoming.gzip && incoming.form == Form::Protobuf && incoming.body.len() <= INLINE_BYTES_MAX;
        let prepared = if inline {
            prepare(&self.config, rule, incoming)?
        } else {
            let door = Arc::clone(self);
            let work = tokio::task::spawn_blocking(move || prepare(&door.config, rule, incoming));
            work.await.map_err(|_| Reject::Internal("the worker stopped"))??
        };
        self.telemetry.payload(signal, prepared.decoded_bytes);
        self.telemetry.cleaned(&prepared.counts);
        let _held = prepared.permit;
        if prepared.records.is_empty() {
            return Ok(());
        }
        Ok(self.sink.append(prepared.records).await?)
    }
}

/// Checks, cleans and splits a request: what all ways in have in common.
pub(crate) fn prepare(config: &Config, rule: Rule, incoming: Incoming) -> Result<Prepared, Reject> {
    let Incoming { signal, form, gzip, body, mut permit } = incoming;
    let decoded = if gzip && !body.is_empty() { inflate(&body, config.decoded_bytes_max, &mut permit)? } else { body };
    let decoded_bytes = decoded.len();
    let request = match form {
        Form::Protobuf => decoded,
        Form::Json => Bytes::from(json::to_protobuf(signal, &decoded)?),
    };
    if count_records(&request)? > RECORDS_MAX {
        return Err(Reject::TooManyRecords);
    }
    let cleaned = privacy::apply(signal, request, rule.actions, config.hash_key.as_ref())?;
    let mut records = route::route_by(&config.routes, signal, DEFAULT_TENANT, &cleaned.bytes)?;
    records.iter_mut().for_each(|record| record.policy = rule.epoch);
    Ok(Prepared { records, counts: cleaned.counts, decoded_bytes, permit })
}

/// All members of a gzip body, as far as the limit goes.
fn inflate(body: &[u8], limit: usize, permit: &mut Permit) -> Result<Bytes, Reject> {
    let mut reader = flate2::read::MultiGzDecoder::new(body);
    let mut out = Vec::new();
    loop {
        permit.grow(INFLATE_STEP)?;
        let step = (&mut reader).take(INFLATE_STEP as u64).read_to_end(&mut out).map_err(|_| Reject::Gzip)?;
        if out.len() > limit {
            return Err(Reject::DecodedTooLarge(limit));
        }
        if step == 0 {
            return Ok(Bytes::from(out));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn permit(bytes: u64) -> Permit {
        Admission::new(bytes).permit("t").unwrap()
    }

    #[test]
    fn inflates_all_members_up_to_the_limit() {
        let two = [gzip(&[1; 100_000]), gzip(&[2; 10])].concat();
        let whole = inflate(&two, 100_010, &mut permit(1 << 20)).unwrap();
        assert_eq!((whole.len(), whole[99_999], whole[100_000]), (100_010, 1, 2));
        assert!(matches!(inflate(&two, 100_009, &mut permit(1 << 20)), Err(Reject::DecodedTooLarge(100_009))));
        assert!(matches!(inflate(&two[..50], 100_010, &mut permit(1 << 20)), Err(Reject::Gzip)));
        assert!(matches!(inflate(b"no gzip", 100_010, &mut permit(1 << 20)), Err(Reject::Gzip)));
    }

    #[test]
    fn a_bomb_takes_no_more_than_the_tenant_may() {
        let bomb = gzip(&vec![0; 32 << 20]);
        assert!(matches!(inflate(&bomb, 64 << 20, &mut permit(1 << 20)), Err(Reject::Busy(_))));
        assert!(matches!(inflate(&bomb, 1 << 20, &mut permit(64 << 20)), Err(Reject::DecodedTooLarge(_))));
    }
}
