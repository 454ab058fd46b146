//! One raw record into state and deltas.

use super::classify;
use super::cost::{self, AMOUNT_MAX, Terms};
use super::deltas::{Deltas, Ended};
use super::identity::{TEXT_BYTES_MAX, learn, learn_seldom, moves, of_identity};
use super::marks::{Added, BUCKET_MS, ChunkId};
use super::parse::{Context, Parsed, parse};
use super::row::{ENDED, OPEN, REOPENED};
use super::told::Told;
use super::{Conversation, Ledger, Quarantined, SessionTask, Timer};
use crate::{Input, Rules};
use schemas::changelog::{DecisionCount, Identity, SessionState, ToolCount};
use schemas::delta::Slot;
use schemas::event::{Attr, EventKind};
use schemas::fact::{CompactionMethod, Fact, Outcome, RetryLayer, TimeSource, Tokens};
use schemas::id::{can_route, split_raw_key};
use schemas::otlp::scan::Attrs;
use schemas::price::Prices;
use schemas::settings::TimeRules;
use schemas::time::{EventTime, window_start};

/// Calls of a session that may be open at once in its state; more are not followed.
pub const CALLS_MAX: usize = 16;
/// Distinct (tool, decision, source) counts of a session; the rest is counted under `other`.
const DECISIONS_MAX: usize = 32;
/// An inferred compaction this soon after one seen by its endpoint is the same one, ms.
const SAME_COMPACTION_MS: i64 = 60_000;

/// The slot of an event at `time` on a partition whose clock is at `clock`, and for how many window sizes it is late.
pub fn slot(time: i64, clock: i64, rules: &TimeRules) -> Slot {
    let end = |size: i64| window_start(EventTime(time), size).0 + size;
    let late = rules
        .window_sizes_ms
        .iter()
        .take_while(|size| clock >= end(**size) + rules.grace_ms)
        .count();
    Slot {
        start: window_start(EventTime(time), rules.slot_ms).0,
        late: u32::try_from(late).unwrap_or(u32::MAX),
        arrival: (late > 0).then(|| window_start(EventTime(clock), rules.slot_ms).0),
    }
}

/// Counts a change in the number of open sessions.
pub fn active(deltas: &mut Deltas, key: &str, session: &SessionState, change: i64, slot: Slot) {
    let nobody = Identity::default();
    let dimensions = of_identity(split_raw_key(key).0, session.identity.as_ref().unwrap_or(&nobody));
    deltas.observe(&Fact::SessionsActive { change }, &dimensions, slot);
}

/// A record that derives, and its attributes.
type Read<'r> = (&'r Parsed<'r>, &'r Attrs<'r>);

/// A raw record while it is folded.
struct Folding<'a> {
    input: Input<'a>,
    tenant: &'a str,
    clock: i64,
    epoch: i64,
    rules: &'a Rules,
    /// Of the partition's epoch.
    prices: &'a Prices,
    told: &'a Told,
    /// The chunk of marks that is known to be dirty already.
    chunk: Option<ChunkId>,
}

impl SessionTask {
    /// Folds a raw record that is not a tick.
    pub(super) fn fold(&mut self, input: Input<'_>, rules: &Rules) {
        let Some(clock) = self.clock else { return };
        if input
            .origin
            .is_some_and(|origin| !self.origins.take(origin, input.offset))
        {
            return self.ledger.repeated(input, clock, rules, &mut self.told);
        }
        let (tenant, routed_by) = split_raw_key(input.key);
        let time = &rules.seed.time;
        let context = Context {
            tenant,
            appended: input.appended,
            clock,
            rules: time,
        };
        let Ok(records) = parse(input.value, context, &mut self.told) else {
            return self.ledger.quarantine(input, "undecodable", clock, time);
        };
        if records.iter().any(|record| misrouted(record, routed_by)) {
            return self.ledger.quarantine(input, "misrouted", clock, time);
        }
        let (epoch, prices) = (self.epoch, rules.prices(self.epoch));
        let mut folding = Folding {
            input,
            tenant,
            clock,
            epoch,
            rules,
            prices,
            told: &self.told,
            chunk: None,
        };
        let mut fold = |conversation: &mut Conversation| {
            for record in &records {
                self.ledger.record(record, &mut folding, conversation);
            }
        };
        if let Some(conversation) = self.conversations.get_mut(input.key) {
            fold(conversation);
        } else {
            let mut conversation = Conversation::default();
            fold(&mut conversation);
            if !conversation.is_empty() {
                self.conversations.insert(input.key.to_owned(), conversation);
            }
        }
    }
}

impl Ledger {
    /// Counts the records of a raw record that was drained from an inbox once more; nothing else follows from it.
    fn repeated(&mut self, input: Input<'_>, clock: i64, rules: &Rules, told: &mut Told) {
        let (tenant, _) = split_raw_key(input.key);
        let time = &rules.seed.time;
        let Ok(records) = parse(
            input.value,
            Context {
                tenant,
                appended: input.appended,
                clock,
                rules: time,
            },
            told,
        ) else {
            return self.unread(tenant, Outcome::Duplicate, clock, time);
        };
        for record in &records {
            self.deltas.count(
                outcome_of(record, Outcome::Duplicate),
                tenant,
                slot(record.time, clock, time),
            );
        }
    }

    fn quarantine(&mut self, input: Input<'_>, reason: &'static str, clock: i64, time: &TimeRules) {
        let (tenant, _) = split_raw_key(input.key);
        self.unread(tenant, Outcome::Quarantined, clock, time);
        self.quarantined_bytes += input.value.len();
        self.quarantined.push(Quarantined {
            offset: input.offset,
            reason,
            key: input.key.to_owned(),
            value: input.value.to_vec(),
        });
    }

    /// Counts a raw record of which nothing is known but its tenant.
    fn unread(&mut self, tenant: &str, outcome: Outcome, clock: i64, time: &TimeRules) {
        let ended = Ended {
            event: EventKind::Unknown,
            outcome,
            time_source: TimeSource::Received,
            clamped: false,
        };
        self.deltas.count(ended, tenant, slot(clock, clock, time));
    }

    fn record(&mut self, record: &Parsed<'_>, folding: &mut Folding<'_>, conversation: &mut Conversation) {
        let (tenant, prices) = (folding.tenant, folding.prices);
        let slot = slot(record.time, folding.clock, &folding.rules.seed.time);
        let outcome = self.outcome(record, folding, conversation, slot);
        self.deltas.count(outcome_of(record, outcome), tenant, slot);
        if outcome == Outcome::Duplicate {
            return;
        }
        let attrs = record.attrs.as_deref().filter(|_| record.derives);
        if record.conversation.is_none() {
            let Some(attrs) = attrs else { return };
            let mut scratch = Identity::default();
            learn(&mut scratch, record, folding.told);
            let dimensions = of_identity(tenant, &scratch);
            let mut nobody = SessionState::default();
            return facts((record, attrs), &mut nobody, (&scratch, prices), |fact| {
                self.deltas.observe(&fact, &dimensions, slot)
            });
        }
        let session = self.touch(record, folding, conversation, slot);
        let Some(attrs) = attrs else { return };
        // Facts change the session, but never who it is: its identity stands aside meanwhile, instead of being copied.
        let identity = session.identity.take().unwrap_or_default();
        let dimensions = of_identity(tenant, &identity);
        facts((record, attrs), session, (&identity, prices), |fact| {
            self.deltas.observe(&fact, &dimensions, slot)
        });
        session.identity = Some(identity);
    }

    /// Decides what becomes of a record, and remembers its mark.
    fn outcome(
        &mut self,
        record: &Parsed<'_>,
        folding: &mut Folding<'_>,
        conversation: &mut Conversation,
        slot: Slot,
    ) -> Outcome {
        if let Some(mark) = record.mark {
            let (key, time) = (folding.input.key, &folding.rules.seed.time);
            match conversation.marks.add(mark, folding.clock, time.marks_max) {
                Added::Seen => return Outcome::Duplicate,
                Added::New {
                    chunk,
                    first,
                    dropped,
                } => {
                    if first {
                        let at = chunk.bucket + BUCKET_MS + time.mark_age_ms;
                        self.timers.insert(Timer {
                            at,
                            key: key.to_owned(),
                            bucket: Some(chunk.bucket),
                        });
                    }
                    let written = (folding.chunk != Some(chunk)).then_some(chunk);
                    self.dirty_chunks.extend(
                        written
                            .into_iter()
                            .chain(dropped)
                            .map(|chunk| (key.to_owned(), chunk)),
                    );
                    folding.chunk = Some(chunk);
                }
            }
        }
        if record.event == EventKind::Unknown {
            Outcome::Unknown
        } else if slot.late > 0 {
            Outcome::Late
        } else if record.derives && record.mark.is_none() {
            Outcome::Unmarked
        } else {
            Outcome::Applied
        }
    }

    /// Begins, goes on with or re-opens the record's session.
    fn touch<'s>(
        &mut self,
        record: &Parsed<'_>,
        folding: &Folding<'_>,
        conversation: &'s mut Conversation,
        slot: Slot,
    ) -> &'s mut SessionState {
        let Folding {
            input,
            clock,
            epoch,
            rules,
            ..
        } = *folding;
        let key = input.key;
        self.changed(key, &mut conversation.dirty);
        let known = conversation.session.as_ref().map(|session| session.phase);
        let session = conversation.session.get_or_insert_with(|| SessionState {
            segment_start_ms: record.time,
            last_event_ms: record.time,
            first_offset: input.offset,
            ..SessionState::default()
        });
        session.last_event_ms = session.last_event_ms.max(record.time);
        session.last_clock_ms = clock;
        session.last_offset = input.offset;
        let renewed = std::mem::replace(&mut session.epoch, epoch) != epoch;
        if !std::mem::replace(&mut session.unpublished, true) {
            self.unpublished.push(key.to_owned());
        }
        let open = !matches!(known, None | Some(ENDED));
        // What was said last is known already.
        let is_new = known.is_none() || conversation.told != Some(record.said);
        conversation.told = record.said.are_kept().then_some(record.said);
        // An open session that turns out to be another team's leaves the one series and joins the other.
        let moves = is_new
            && open
            && session
                .identity
                .as_ref()
                .is_some_and(|identity| moves(identity, record.said, folding.told));
        if moves {
            active(&mut self.deltas, key, session, -1, slot);
        }
        if is_new {
            learn(session.identity.get_or_insert_default(), record, folding.told);
        } else if let Some(attrs) = &record.attrs {
            learn_seldom(session.identity.get_or_insert_default(), attrs);
        }
        if moves {
            active(&mut self.deltas, key, session, 1, slot);
        }
        session.counts.get_or_insert_default().records += u64::from(record.derives);
        if !open || renewed {
            // A timer looks for itself when the session is really due, which suits records that put it off. An epoch
            // with a shorter gap brings it forward: that needs a timer of its own.
            let at = clock + rules.settings(epoch).session_gap_ms;
            self.timers.insert(Timer {
                at,
                key: key.to_owned(),
                bucket: None,
            });
        }
        if open {
            return session;
        }
        if known.is_none() {
            session.phase = OPEN;
            let dimensions = of_identity(split_raw_key(key).0, session.identity.get_or_insert_default());
            self.deltas.observe(&Fact::SessionStarted, &dimensions, slot);
        } else {
            session.phase = REOPENED;
            session.ended_ms = None;
            // A re-opening is published at once, whatever the time of the last row.
            session.row_clock_ms = None;
        }
        active(&mut self.deltas, key, session, 1, slot);
        session
    }
}

const fn outcome_of(record: &Parsed<'_>, outcome: Outcome) -> Ended {
    Ended {
        event: record.event,
        outcome,
        time_source: record.time_source,
        clamped: record.clamped,
    }
}

/// A record of another conversation than its key says. Ids that can't be keys were replaced before they got here.
fn misrouted(record: &Parsed<'_>, routed_by: &str) -> bool {
    record
        .conversation
        .is_some_and(|id| id != routed_by && can_route(id))
}

/// By what a response in this record is priced. Tier and sign-in are its own: a tier that it does not tell is the default,
/// whatever the session's last one was.
fn terms<'a>((record, attrs): Read<'_>, identity: &'a Identity, prices: &'a Prices) -> Terms<'a> {
    let tier = classify::tier(attrs.text(Attr::ServiceTier).unwrap_or(""));
    let plan = classify::is_chatgpt(attrs.text(Attr::AuthMode).unwrap_or(""));
    Terms {
        prices,
        model: &identity.model,
        plan,
        tier,
        time: record.time,
    }
}

/// Works out what a record means in its session, changes the session's state, and tells the facts.
///
/// `session` lacks its identity for that long: it is `priced`, beside the prices.
fn facts(
    read: Read<'_>,
    session: &mut SessionState,
    priced: (&Identity, &Prices),
    mut tell: impl FnMut(Fact),
) {
    let (record, attrs) = read;
    match record.event {
        EventKind::ConversationStarts => {
            session.counts.get_or_insert_default().conversation_starts += 1;
            session.context_window = attrs.count(Attr::ContextWindow).or(session.context_window);
            session.compact_limit = attrs.count(Attr::AutoCompactTokenLimit).or(session.compact_limit);
        }
        EventKind::UserPrompt => {
            session.failed = false;
            session.counts.get_or_insert_default().user_prompts += 1;
            tell(Fact::Turn);
        }
        EventKind::ApiRequest => request(read, session, &mut tell),
        EventKind::SseEvent if attrs.get(Attr::InputTokenCount).is_some() => {
            response(read, session, priced, &mut tell)
        }
        EventKind::SseEvent => {
            let Some(error) = classify::stream_error(attrs) else {
                return;
            };
            session.failed = true;
            // A broken stream leaves two records: what the reader met, and this one, which ends the response.
            if attrs.text(Attr::EventKindName) == Some("response.completed") {
                session.counts.get_or_insert_default().stream_failures += 1;
                tell(Fact::StreamFailure { error });
            }
        }
        EventKind::TurnTtft => {
            let Some(duration_us) = duration_us(attrs) else {
                return;
            };
            let counts = session.counts.get_or_insert_default();
            counts.ttft_count += 1;
            counts.ttft_us += duration_us;
            tell(Fact::FirstToken { duration_us });
        }
        EventKind::TurnCost => {
            let estimate = attrs
                .billionths(Attr::UsageEstimatedUsd)
                .filter(|nano_usd| *nano_usd <= AMOUNT_MAX);
            let Some(nano_usd) = estimate else { return };
            let counts = session.counts.get_or_insert_default();
            counts.native_cost_nano_usd = counts.native_cost_nano_usd.saturating_add(nano_usd);
            tell(Fact::TurnCost {
                nano_usd,
                interrupted: attrs.flag(Attr::TurnInterrupted).unwrap_or(false),
            });
        }
        EventKind::ToolDecision => decision(attrs, session, &mut tell),
        EventKind::ToolResult => tool_call(attrs, session, &mut tell),
        _ => {}
    }
}

fn duration_us(attrs: &Attrs<'_>) -> Option<u64> {
    attrs.micros(Attr::DurationMs)
}

fn request((record, attrs): Read<'_>, session: &mut SessionState, tell: &mut impl FnMut(Fact)) {
    let endpoint = classify::endpoint(attrs);
    let status = attrs
        .int(Attr::StatusCode)
        .and_then(|status| u16::try_from(status).ok());
    let error = classify::request_error(status, attrs);
    let retry = if attrs.int(Attr::Attempt).is_some_and(|attempt| attempt > 0) {
        Some(RetryLayer::Http)
    } else if session.failed && endpoint.starts_with("/responses") {
        // `attempt` begins at 0 again when the stream layer asks anew.
        Some(RetryLayer::Stream)
    } else {
        None
    };
    let duration_us = duration_us(attrs);
    session.failed |= error.is_some();
    let counts = session.counts.get_or_insert_default();
    counts.api_requests += 1;
    counts.api_errors += u64::from(error.is_some());
    counts.api_retries_http += u64::from(retry == Some(RetryLayer::Http));
    counts.api_retries_stream += u64::from(retry == Some(RetryLayer::Stream));
    counts.api_duration_us = counts.api_duration_us.saturating_add(duration_us.unwrap_or(0));
    tell(Fact::Request {
        endpoint,
        status,
        error,
        retry,
        duration_us,
    });
    if endpoint == "/responses/compact" && error.is_none() {
        session.compacted_ms = Some(record.time);
        counts.compactions += 1;
        tell(Fact::Compaction {
            method: CompactionMethod::Endpoint,
            reclaimed: None,
        });
    }
}

/// Splits the counts of a completed response into disjoint kinds; what contradicts itself is clamped and told.
///
/// Cached and cache-write tokens are part of the input, reasoning tokens of the output, and `tool_token_count` is the
/// sum of both, which makes it a checksum.
fn tokens(attrs: &Attrs<'_>) -> (Tokens, Option<&'static str>) {
    let count = |attr| attrs.count(attr).unwrap_or(0);
    let (input, output) = (count(Attr::InputTokenCount), count(Attr::OutputTokenCount));
    let cached = count(Attr::CachedTokenCount).min(input);
    let cache_write = count(Attr::CacheWriteTokenCount).min(input - cached);
    let reasoning = count(Attr::ReasoningTokenCount).min(output);
    let mismatch = if count(Attr::CachedTokenCount).saturating_add(count(Attr::CacheWriteTokenCount)) > input
    {
        Some("cached_gt_input")
    } else if count(Attr::ReasoningTokenCount) > output {
        Some("reasoning_gt_output")
    } else if attrs
        .count(Attr::ToolTokenCount)
        .is_some_and(|total| total != input.saturating_add(output))
    {
        Some("total_ne_sum")
    } else {
        None
    };
    let tokens = Tokens {
        input_uncached: input - cached - cache_write,
        input_cached: cached,
        input_cache_write: cache_write,
        output_visible: output - reasoning,
        output_reasoning: reasoning,
    };
    (tokens, mismatch)
}

fn response(
    read: Read<'_>,
    session: &mut SessionState,
    (identity, prices): (&Identity, &Prices),
    tell: &mut impl FnMut(Fact),
) {
    let (record, attrs) = read;
    let (tokens, mismatch) = tokens(attrs);
    session.failed = false;
    let before = session.last_input_tokens.replace(tokens.input());
    let counts = session.counts.get_or_insert_default();
    counts.responses_completed += 1;
    counts.input_uncached = counts.input_uncached.saturating_add(tokens.input_uncached);
    counts.input_cached = counts.input_cached.saturating_add(tokens.input_cached);
    counts.input_cache_write = counts.input_cache_write.saturating_add(tokens.input_cache_write);
    counts.output_visible = counts.output_visible.saturating_add(tokens.output_visible);
    counts.output_reasoning = counts.output_reasoning.saturating_add(tokens.output_reasoning);
    tell(Fact::Response { tokens, mismatch });
    cost::of_response(&tokens, &terms(read, identity, prices), counts, tell);
    let limit = session.compact_limit.or(session.context_window);
    let (Some(before), Some(limit)) = (before, limit) else {
        return;
    };
    let fell =
        tokens.input().saturating_mul(2) <= before && before.saturating_mul(10) >= limit.saturating_mul(6);
    let seen = session
        .compacted_ms
        .take()
        .is_some_and(|seen| record.time - seen <= SAME_COMPACTION_MS);
    if fell && !seen {
        counts.compactions += 1;
        tell(Fact::Compaction {
            method: CompactionMethod::Inferred,
            reclaimed: Some(before - tokens.input()),
        });
    }
}

fn decision(attrs: &Attrs<'_>, session: &mut SessionState, tell: &mut impl FnMut(Fact)) {
    let (tool, decision, source) = (
        classify::tool(attrs),
        classify::decision(attrs),
        classify::source(attrs),
    );
    if let Some(call) = attrs
        .text(Attr::CallId)
        .filter(|call| call.len() <= TEXT_BYTES_MAX)
        && decision.starts_with("approved")
        && session.open_calls.len() < CALLS_MAX
    {
        session.open_calls.push(call.to_owned());
    }
    let counts = session.counts.get_or_insert_default();
    let order = |count: &DecisionCount| {
        (
            count.tool.as_str(),
            count.decision.as_str(),
            count.source.as_str(),
        )
            .cmp(&(tool, decision, source))
    };
    match counts.decisions.binary_search_by(order) {
        Ok(at) => counts.decisions[at].count += 1,
        Err(at) if counts.decisions.len() < DECISIONS_MAX => {
            let count = DecisionCount {
                tool: tool.to_owned(),
                decision: decision.to_owned(),
                source: source.to_owned(),
                count: 1,
            };
            counts.decisions.insert(at, count);
        }
        // Beyond the limit, the last entry stands for all others: rows stay small, and the sum stays right.
        Err(_) => {
            if let Some(last) = counts.decisions.last_mut() {
                last.count += 1;
            }
        }
    }
    tell(Fact::Decision {
        tool,
        decision,
        source,
    });
}

fn tool_call(attrs: &Attrs<'_>, session: &mut SessionState, tell: &mut impl FnMut(Fact)) {
    let (tool, mcp) = (classify::tool(attrs), classify::is_mcp(attrs));
    let success = attrs.flag(Attr::Success).unwrap_or(false);
    let exit_code = attrs.int(Attr::TachoExitCode);
    let duration_us = duration_us(attrs);
    if let Some(call) = attrs.text(Attr::CallId) {
        session.open_calls.retain(|open| open != call);
    }
    let counts = session.counts.get_or_insert_default();
    counts.tool_calls += 1;
    counts.tool_failures += u64::from(!success);
    counts.tool_duration_us = counts.tool_duration_us.saturating_add(duration_us.unwrap_or(0));
    counts.nonzero_exits += u64::from(exit_code.is_some_and(|code| code != 0));
    counts.spawned_agents += u64::from(attrs.text(Attr::TachoSpawnedAgent).is_some());
    match counts
        .tools
        .binary_search_by(|count| count.tool.as_str().cmp(tool))
    {
        Ok(at) => {
            counts.tools[at].calls += 1;
            counts.tools[at].failures += u64::from(!success);
        }
        Err(at) => counts.tools.insert(
            at,
            ToolCount {
                tool: tool.to_owned(),
                calls: 1,
                failures: u64::from(!success),
            },
        ),
    }
    tell(Fact::ToolCall {
        tool,
        success,
        mcp,
        exit_code,
        duration_us,
    });
}
