//! A session's row, from its state.

use schemas::changelog::{Counts, Identity, SessionState};
use schemas::derived::{DecisionRow, SessionRow, SessionRowState, TokensRow, ToolRow};
use schemas::id::split_raw_key;
use schemas::topic::Topic;

/// Phase of a session that waits for its next record.
pub const OPEN: u32 = 0;
/// Phase of a session whose gap has passed.
pub const ENDED: u32 = 1;
/// Phase of a session that ended and has got another record since.
pub const REOPENED: u32 = 2;

/// The row of the session under `key`, as of `position`.
pub fn of(key: &str, session: &SessionState, partition: i32, position: i64) -> SessionRow {
    let (tenant, conversation) = split_raw_key(key);
    let identity = session.identity.clone().unwrap_or_default();
    let counts = session.counts.clone().unwrap_or_default();
    let Identity { model, originator, service_name, app_version, auth_mode, terminal_type, user_email, user_account_id, .. } = identity;
    let Identity { team, project, cost_centre, department, env, agent_name, approval_policy, sandbox_policy, effort, tier, .. } =
        session.identity.clone().unwrap_or_default();
    SessionRow {
        tenant: tenant.to_owned(),
        conversation_id: conversation.to_owned(),
        segment_start_ms: session.segment_start_ms,
        state: match session.phase {
            ENDED => SessionRowState::Ended,
            REOPENED => SessionRowState::Reopened,
            _ => SessionRowState::Open,
        },
        source_topic: Topic::RawLogs.name().to_owned(),
        source_partition: partition,
        position,
        revision: position,
        epoch: session.epoch,
        started_ms: session.segment_start_ms,
        last_event_ms: session.last_event_ms,
        ended_ms: session.ended_ms,
        duration_ms: session.last_event_ms - session.segment_start_ms,
        first_offset: session.first_offset,
        last_offset: session.last_offset,
        entrypoint: super::classify::entrypoint(&service_name, &originator).to_owned(),
        model,
        originator,
        service_name,
        app_version,
        auth_mode,
        terminal_type,
        user_email,
        user_account_id,
        agent_name,
        approval_policy,
        sandbox_policy,
        effort,
        tier,
        team,
        project,
        cost_centre,
        department,
        env,
        tokens: tokens(&counts),
        decisions: counts.decisions.iter().map(decision).collect(),
        tools: counts.tools.iter().map(tool).collect(),
        open_calls: i64::try_from(session.open_calls.len()).unwrap_or(i64::MAX),
        records: long(counts.records),
        conversation_starts: long(counts.conversation_starts),
        user_prompts: long(counts.user_prompts),
        api_requests: long(counts.api_requests),
        api_errors: long(counts.api_errors),
        api_retries: long(counts.api_retries_http + counts.api_retries_stream),
        api_retries_http: long(counts.api_retries_http),
        api_retries_stream: long(counts.api_retries_stream),
        api_duration_us: long(counts.api_duration_us),
        stream_failures: long(counts.stream_failures),
        responses_completed: long(counts.responses_completed),
        tool_calls: long(counts.tool_calls),
        tool_failures: long(counts.tool_failures),
        tool_duration_us: long(counts.tool_duration_us),
        nonzero_exits: long(counts.nonzero_exits),
        compactions: long(counts.compactions),
        spawned_agents: long(counts.spawned_agents),
        ttft_count: long(counts.ttft_count),
        ttft_us: long(counts.ttft_us),
    }
}

fn tokens(counts: &Counts) -> TokensRow {
    let total = counts.input_uncached + counts.input_cached + counts.input_cache_write + counts.output_visible + counts.output_reasoning;
    TokensRow {
        input_uncached: long(counts.input_uncached),
        input_cached: long(counts.input_cached),
        input_cache_write: long(counts.input_cache_write),
        output_visible: long(counts.output_visible),
        output_reasoning: long(counts.output_reasoning),
        total: long(total),
    }
}

fn decision(count: &schemas::changelog::DecisionCount) -> DecisionRow {
    DecisionRow { tool: count.tool.clone(), decision: count.decision.clone(), source: count.source.clone(), count: long(count.count) }
}

fn tool(count: &schemas::changelog::ToolCount) -> ToolRow {
    ToolRow { tool: count.tool.clone(), calls: long(count.calls), failures: long(count.failures) }
}

/// Avro has no unsigned numbers.
fn long(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
