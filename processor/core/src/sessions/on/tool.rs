//! Results of tool calls.

use super::{Event, add, decision, duration_us};
use crate::out::Out;
use crate::sessions::classify;
use schemas::event::Attr;
use schemas::fact::Fact;
use schemas::otlp::scan::Attrs;
use schemas::state::{SessionState, ToolCount};

/// Counts a tool call that ended, and removes it from the open calls.
pub fn tool_result(event: Event<'_>, session: &mut SessionState, out: &mut Out<'_>) {
    let attrs = event.attrs;
    let (tool, mcp) = (classify::tool(attrs), classify::is_mcp(attrs));
    let success = attrs.flag(Attr::Success).unwrap_or(false);
    let exit_code = attrs.int(Attr::TachoExitCode);
    let duration_us = duration_us(attrs);
    if let Some(call) = attrs.text(Attr::CallId) {
        decision::end_call(call, session);
    }
    let counts = session.counts.get_or_insert_default();
    counts.tool_calls += 1;
    counts.tool_failures += u64::from(!success);
    add(&mut counts.tool_duration_us, duration_us.unwrap_or(0));
    counts.nonzero_exits += u64::from(exit_code.is_some_and(|code| code != 0));
    counts.spawned_agents += u64::from(has_spawned(attrs, success));
    count(&mut counts.tools, tool, success);
    out.emit(&Fact::ToolCall {
        tool,
        success,
        mcp,
        exit_code,
        duration_us,
    });
}

/// Whether a call spawned an agent: ingest found an agent's id in the output, or it is a call of the second generation of
/// multi-agent tools that succeeded, whose output names the agent's task instead.
fn has_spawned(attrs: &Attrs<'_>, success: bool) -> bool {
    attrs.text(Attr::TachoSpawnedAgent).is_some()
        || (success
            && attrs.text(Attr::ToolName) == Some("spawn_agent")
            && attrs.text(Attr::ToolNamespace) == Some("collaboration"))
}

/// Adds a call to the count of its tool; counts are ordered by tool.
fn count(tools: &mut Vec<ToolCount>, tool: &str, success: bool) {
    let order = |count: &ToolCount| count.tool.as_str().cmp(tool);
    match tools.binary_search_by(order) {
        Ok(at) => {
            tools[at].calls += 1;
            tools[at].failures += u64::from(!success);
        }
        Err(at) => {
            let count = ToolCount {
                tool: tool.to_owned(),
                calls: 1,
                failures: u64::from(!success),
            };
            tools.insert(at, count);
        }
    }
}
