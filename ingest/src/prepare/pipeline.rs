//! The path that every request takes, whatever protocol brought it.

use crate::connection::reply::{Accepted, Reject};
use crate::control::policy::{Policies, Rule};
use crate::prepare::admit::{Admission, Permit, Size, check_fields};
use crate::prepare::coding::{Coding, CodingError};
use crate::prepare::config::Config;
use crate::prepare::detect::{self, Told};
use crate::prepare::finish::Finishing;
use crate::prepare::json;
use crate::prepare::lanes::{Lane, Lanes};
use crate::prepare::partial;
use crate::prepare::privacy::{self, Counts, PrivacyError};
use crate::prepare::route;
use crate::prepare::scrub::Scrubber;
use crate::sink::{RawRecord, Sink, SinkError};
use crate::telemetry::Telemetry;
use bytes::Bytes;
use schemas::id::DEFAULT_TENANT;
use schemas::signal::Signal;
use std::sync::Arc;

/// Bodies above that size, and all that must be decompressed or are JSON, are worked on outside of the threads that
/// serve connections.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// A JSON request has at most that many bytes, decompressed, and in protobuf: while it is read both are there.
const JSON_BYTES_MAX: usize = 32 << 20;

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
    /// Which request it is; none: its content tells.
    pub signal: Option<Signal>,
    /// Its encoding.
    pub form: Form,
    /// How it is compressed.
    pub coding: Coding,
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
    lanes: Lanes,
    policies: Arc<Policies>,
    sink: Arc<S>,
}

/// A request that may be written.
pub(crate) struct Prepared {
    pub signal: Signal,
    pub records: Vec<RawRecord>,
    pub counts: Counts,
    pub decoded_bytes: usize,
    /// Log records, spans or data points that are not among `records`, and why the request could not be taken with them.
    rejected: Option<(u64, PrivacyError)>,
    permit: Permit,
}

/// How to prepare a request.
#[derive(Clone, Copy)]
struct Manner {
    rule: Rule,
    /// Larger ones, decoded, are given back.
    lane: Lane,
    /// Whether records that can't be taken are left out.
    is_lenient: bool,
}

/// A request that is not prepared.
enum Failure {
    Reject(Reject),
    /// It is larger than its lane.
    Outgrown(Incoming),
}

impl<E: Into<Reject>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Reject(error.into())
    }
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
        let admission = Admission::new(config.tenant_bytes_in_flight_max, config.bytes_in_flight_max);
        Arc::new(Self {
            config,
            telemetry: Telemetry::new(),
            admission,
            lanes: Lanes::new(),
            policies,
            sink,
        })
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

    /// Resolves once all of the request that can be taken is durable. Goes on to its end if nobody waits for it any more.
    ///
    /// # Errors
    /// Why it is refused; nothing of it was written then, unless the sink could not tell.
    pub async fn accept(self: &Arc<Self>, incoming: Incoming) -> Result<Accepted, Reject> {
        let door = Arc::clone(self);
        Finishing::new(async move { door.take(incoming).await }).await
    }

    async fn take(self: &Arc<Self>, incoming: Incoming) -> Result<Accepted, Reject> {
        let unread =
            || SinkError::Unavailable("the privacy policy in tacho.control is not read yet".to_owned());
        let rule = self
            .policies
            .rule(&self.config, DEFAULT_TENANT)
            .ok_or_else(unread)?;
        let is_plain = incoming.coding == Coding::Identity && incoming.form == Form::Protobuf;
        let prepared = if is_plain && incoming.body.len() <= INLINE_BYTES_MAX {
            prepare_here(&self.config, rule, true, incoming)?
        } else {
            self.work(rule, incoming).await?
        };
        let Prepared {
            signal,
            records,
            counts,
            decoded_bytes,
            rejected,
            mut permit,
        } = prepared;
        self.telemetry.payload(signal, decoded_bytes);
        self.telemetry.cleaned(&counts);
        if let Some((count, error)) = rejected {
            self.telemetry.rejected_records(signal, count);
            tracing::debug!(%error, count, signal = signal.name(), "records left out");
        }
        let accepted = Accepted::new(signal, rejected, counts.truncated);
        if records.is_empty() {
            return Ok(accepted);
        }
        // From here on only the records are held; split they may be more than the request was.
        let bytes: usize = records.iter().map(|record| record.value.len()).sum();
        permit.shrink(bytes as u64);
        let _held = permit;
        self.sink.append(records).await?;
        Ok(accepted)
    }

    /// Prepares a request in the lane of its size, outside of the threads that serve connections.
    async fn work(self: &Arc<Self>, rule: Rule, mut incoming: Incoming) -> Result<Prepared, Reject> {
        let mut lane = Lane::of(incoming.body.len());
        loop {
            let _turn = self.lanes.turn(lane).await.ok_or(Reject::Crowded)?;
            let door = Arc::clone(self);
            let work = move || {
                prepare_as(
                    &door.config,
                    Manner {
                        rule,
                        lane,
                        is_lenient: true,
                    },
                    incoming,
                )
            };
            match tokio::task::spawn_blocking(work)
                .await
                .map_err(|_| Reject::Internal("the worker stopped"))?
            {
                Ok(prepared) => return Ok(prepared),
                Err(Failure::Reject(reject)) => return Err(reject),
                Err(Failure::Outgrown(back)) => (incoming, lane) = (back, lane.wider()),
            }
        }
    }
}

/// Checks, cleans and splits a request: what all ways in have in common. All of it is taken, or nothing.
pub(crate) fn prepare(config: &Config, rule: Rule, incoming: Incoming) -> Result<Prepared, Reject> {
    prepare_here(config, rule, false, incoming)
}

/// On this thread, whatever its size.
fn prepare_here(
    config: &Config,
    rule: Rule,
    is_lenient: bool,
    incoming: Incoming,
) -> Result<Prepared, Reject> {
    match prepare_as(
        config,
        Manner {
            rule,
            lane: Lane::Large,
            is_lenient,
        },
        incoming,
    ) {
        Ok(prepared) => Ok(prepared),
        Err(Failure::Reject(reject)) => Err(reject),
        Err(Failure::Outgrown(_)) => Err(Reject::Internal("no lane is wide enough")),
    }
}

fn prepare_as(config: &Config, manner: Manner, incoming: Incoming) -> Result<Prepared, Failure> {
    let Incoming {
        signal,
        form,
        coding,
        body,
        mut permit,
    } = incoming;
    let held = permit.held();
    let most = match form {
        Form::Protobuf => config.decoded_bytes_max,
        Form::Json => config.decoded_bytes_max.min(JSON_BYTES_MAX),
    };
    let limit = most.min(manner.lane.bytes_max());
    // A reference, not a copy: whoever is outgrown begins anew.
    let again = (coding != Coding::Identity).then(|| body.clone());
    let decoded = match (coding.decode(body, limit, &mut permit), again) {
        (Ok(decoded), _) => decoded,
        (Err(CodingError::TooLarge), Some(body)) if limit < most => {
            permit.shrink(held);
            return Err(Failure::Outgrown(Incoming {
                signal,
                form,
                coding,
                body,
                permit,
            }));
        }
        (Err(CodingError::TooLarge), _) => return Err(Reject::DecodedTooLarge(most).into()),
        (Err(CodingError::Busy), _) => return Err(crate::prepare::admit::Busy.into()),
        (Err(CodingError::Malformed(coding)), _) => return Err(Reject::Compressed(coding).into()),
    };
    let decoded_bytes = decoded.len();
    let told = match (signal, form) {
        (Some(signal), _) => Told::Signal(signal),
        (None, Form::Protobuf) => detect::protobuf(&decoded)?,
        (None, Form::Json) => detect::json(&decoded)?,
    };
    let signal = match told {
        Told::Signal(signal) => signal,
        Told::Unclear => return Err(Reject::Unclear.into()),
        Told::Empty => {
            let (records, counts) = (Vec::new(), Counts::default());
            return Ok(Prepared {
                signal: Signal::Logs,
                records,
                counts,
                decoded_bytes,
                rejected: None,
                permit,
            });
        }
    };
    let request = match form {
        Form::Protobuf => decoded,
        Form::Json => {
            let request = json::to_protobuf_within(signal, &decoded, most)?;
            // What it was read from goes; for that moment the lane has room for both.
            drop(decoded);
            permit.shrink(request.len() as u64);
            permit.grow(
                request
                    .len()
                    .saturating_sub(usize::try_from(permit.held()).unwrap_or(usize::MAX)),
            )?;
            Bytes::from(request)
        }
    };
    let size = Size::of(&request)?;
    size.check()?;
    if request.len() > INLINE_BYTES_MAX {
        check_fields(&request)??;
    }
    let (actions, key) = (manner.rule.actions, config.hash_key.as_ref());
    let (cleaned, rejected) = match privacy::apply(signal, request.clone(), actions, key) {
        Ok(cleaned) => (cleaned, None),
        Err(error) if !manner.is_lenient || size.records < 2 => return Err(error.into()),
        Err(error) => match partial::sound(signal, &request, actions, key) {
            Ok(Some(sound)) => (
                privacy::apply(signal, sound.request, actions, key)?,
                Some((sound.rejected, error)),
            ),
            _ => return Err(error.into()),
        },
    };
    drop(request);
    let mut records = route::route_by(
        &config.routes,
        signal,
        DEFAULT_TENANT,
        &cleaned.bytes,
        &cleaned.conversations,
    )?;
    records
        .iter_mut()
        .for_each(|record| record.policy = manner.rule.epoch);
    Ok(Prepared {
        signal,
        records,
        counts: cleaned.counts,
        decoded_bytes,
        rejected,
        permit,
    })
}
