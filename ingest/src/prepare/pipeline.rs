//! Takes every request of a client, whatever protocol brought it, through preparation to the sink.

use crate::control::policy::{Policies, Rule};
use crate::prepare::admit::{Admission, Permit};
use crate::prepare::coding::Coding;
use crate::prepare::config::Config;
use crate::prepare::error::PipelineError;
use crate::prepare::finish::Finishing;
use crate::prepare::lanes::{Lane, Lanes};
use crate::prepare::request::{
    BadRecords, Format, INLINE_BYTES_MAX, Incoming, LeftOut, NotPrepared, Prepared, prepare, prepare_in,
};
use crate::prepare::scrub::Scrubber;
use crate::prepare::telemetry::PrepareTelemetry;
use crate::sink::{Sink, SinkError};
use schemas::id::DEFAULT_TENANT;
use schemas::signal::Signal;
use std::sync::Arc;

/// What the protocols share: settings, limits and what is in use of them, the policy in force, the sink.
pub struct Pipeline<S> {
    pub(crate) config: Config,
    telemetry: PrepareTelemetry,
    admission: Admission,
    lanes: Lanes,
    policies: Arc<Policies>,
    sink: Arc<S>,
}

/// A request that was taken, and what of it was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The request's signal.
    pub signal: Signal,
    /// How many log records, spans or data points were left out.
    pub rejected: u64,
    /// What was left out and why, and what was cut; none where all of the request was taken as it came.
    pub warning: Option<String>,
}

impl Accepted {
    pub(crate) fn new(signal: Signal, left_out: Option<LeftOut>, truncated: u64) -> Self {
        let without =
            left_out.map(|LeftOut { count, error }| format!("{count} left out; the first of them: {error}"));
        let cut = (truncated > 0)
            .then(|| format!("{truncated} texts cut, because their records were over the limit"));
        let warning = match (without, cut) {
            (Some(without), Some(cut)) => Some(format!("{without}; {cut}")),
            (without, cut) => without.or(cut),
        };
        Self {
            signal,
            rejected: left_out.map_or(0, |left_out| left_out.count),
            warning,
        }
    }
}

impl<S: Sink> Pipeline<S> {
    /// A pipeline into `sink`. It must be made after the metrics recorder is installed. Warns loudly when the settings keep
    /// texts whatever the policy says.
    #[must_use]
    pub fn new(config: Config, policies: Arc<Policies>, sink: Arc<S>) -> Arc<Self> {
        if config.keep_text {
            tracing::warn!(
                "keep_text is on: whatever the privacy policy says, prompts, arguments, outputs and answers are stored in the clear"
            );
        }
        // The scrubber's rules are read here, so that the first request does not wait for that.
        Scrubber::shared();
        let admission = Admission::new(config.tenant_bytes_in_flight_max, config.bytes_in_flight_max);
        Arc::new(Self {
            config,
            telemetry: PrepareTelemetry::new(),
            admission,
            lanes: Lanes::new(),
            policies,
            sink,
        })
    }

    /// Whether the sink would take records now.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.sink.ready()
    }

    /// A permit for one request, which holds no bytes yet.
    ///
    /// # Errors
    /// There is no room for another tenant.
    pub fn permit(&self) -> Result<Permit, PipelineError> {
        Ok(self.admission.permit(DEFAULT_TENANT)?)
    }

    /// Resolves once everything of the request that can be taken is durable. The work goes on to its end when the future is
    /// dropped.
    ///
    /// # Errors
    /// Why the request is refused. Nothing of it is written then, unless the sink could not tell.
    pub async fn accept(self: &Arc<Self>, incoming: Incoming) -> Result<Accepted, PipelineError> {
        let pipeline = Arc::clone(self);
        Finishing::new(async move { pipeline.append(incoming).await }).await
    }

    async fn append(self: &Arc<Self>, incoming: Incoming) -> Result<Accepted, PipelineError> {
        let not_read =
            || SinkError::Unavailable("the privacy policy in tacho.control is not read yet".to_owned());
        let rule = self
            .policies
            .rule(self.config.text_settings(), DEFAULT_TENANT)
            .ok_or_else(not_read)?;
        let Prepared {
            signal,
            records,
            counts,
            decoded_bytes,
            left_out,
            mut permit,
        } = self.prepare(rule, incoming).await?;
        self.telemetry.payload(signal, decoded_bytes);
        self.telemetry.cleaned(&counts);
        if let Some(LeftOut { count, error }) = left_out {
            self.telemetry.left_out(signal, count);
            tracing::debug!(%error, count, signal = signal.name(), "records left out");
        }
        let accepted = Accepted::new(signal, left_out, counts.truncated);
        if records.is_empty() {
            return Ok(accepted);
        }
        // From here on only the records are held; split, they may have more bytes than the request had.
        let bytes: usize = records.iter().map(|record| record.value.len()).sum();
        permit.shrink(bytes as u64);
        let _held = permit;
        self.sink.append(records).await?;
        Ok(accepted)
    }

    /// Prepares a small plain request on this thread, and every other one in the lane of its size.
    async fn prepare(self: &Arc<Self>, rule: Rule, incoming: Incoming) -> Result<Prepared, PipelineError> {
        let is_plain = incoming.coding == Coding::Identity && incoming.format == Format::Protobuf;
        if is_plain && incoming.body.len() <= INLINE_BYTES_MAX {
            return prepare(&self.config, rule, BadRecords::LeaveOut, incoming);
        }
        self.prepare_elsewhere(rule, incoming).await
    }

    /// Prepares a request outside of the threads that serve connections, in a wider lane where it outgrows its own.
    async fn prepare_elsewhere(
        self: &Arc<Self>,
        rule: Rule,
        mut incoming: Incoming,
    ) -> Result<Prepared, PipelineError> {
        let mut lane = Lane::of(incoming.body.len());
        loop {
            let _turn = self.lanes.turn(lane).await.ok_or(PipelineError::Crowded)?;
            let pipeline = Arc::clone(self);
            let work = move || prepare_in(lane, &pipeline.config, rule, BadRecords::LeaveOut, incoming);
            match tokio::task::spawn_blocking(work)
                .await
                .map_err(|_| PipelineError::Internal("the worker stopped"))?
            {
                Ok(prepared) => return Ok(prepared),
                Err(NotPrepared::Refused(error)) => return Err(error),
                Err(NotPrepared::Outgrown(back)) => (incoming, lane) = (back, lane.wider()),
            }
        }
    }
}
