//! Who and what a session is, by what its records say.

use super::classify;
use super::identity_cache::IdentityCache;
use super::parse::{Parsed, Sender};
use schemas::event::Attr;
use schemas::fact::{Agent, Dimensions, UNASSIGNED};
use schemas::otlp::scan::Attrs;
use schemas::state::Identity;

/// Bytes kept of a text of identity; ids and names are far shorter.
pub const TEXT_BYTES_MAX: usize = 160;

/// Whether what a sender reports changes the series that an open session is counted under.
pub fn moves(identity: &Identity, sender: Sender, cache: &IdentityCache) -> bool {
    cache.texts(sender).any(|(attr, text)| {
        let known = match attr {
            Attr::TeamId => &identity.team,
            Attr::ServiceName => &identity.service_name,
            Attr::Originator => &identity.originator,
            _ => return false,
        };
        !text.is_empty() && known != cut(text)
    })
}

/// Takes over what a record reports of who and what its session is.
pub fn learn(identity: &mut Identity, record: &Parsed<'_>, cache: &IdentityCache) {
    for (attr, text) in cache.texts(record.sender) {
        let field = match attr {
            Attr::Model => &mut identity.model,
            Attr::Originator => &mut identity.originator,
            Attr::AppVersion => &mut identity.app_version,
            Attr::AuthMode => &mut identity.auth_mode,
            Attr::TerminalType => &mut identity.terminal_type,
            Attr::UserEmail => &mut identity.user_email,
            Attr::UserAccountId => &mut identity.user_account_id,
            Attr::ServiceName => &mut identity.service_name,
            Attr::TeamId => &mut identity.team,
            Attr::Project => &mut identity.project,
            Attr::CostCentre => &mut identity.cost_centre,
            Attr::Department => &mut identity.department,
            Attr::Env => &mut identity.env,
            _ => continue,
        };
        set(field, Some(text));
    }
    if let Some(attrs) = &record.attrs {
        learn_seldom(identity, attrs);
    }
}

/// Takes over the attributes that few records have.
pub fn learn_seldom(identity: &mut Identity, attrs: &Attrs<'_>) {
    set(&mut identity.agent_name, attrs.text(Attr::AgentName));
    set(&mut identity.approval_policy, attrs.text(Attr::ApprovalPolicy));
    set(&mut identity.sandbox_policy, attrs.text(Attr::SandboxPolicy));
    set(
        &mut identity.effort,
        attrs
            .text(Attr::ModelReasoningEffort)
            .or(attrs.text(Attr::ReasoningEffort)),
    );
    set(&mut identity.tier, attrs.text(Attr::ServiceTier));
}

fn set(field: &mut String, value: Option<&str>) {
    let Some(value) = value.filter(|value| !value.is_empty()).map(cut) else {
        return;
    };
    if field != value {
        field.clear();
        field.push_str(value);
    }
}

/// As much of a text of identity as is kept.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_BYTES_MAX))
        .unwrap_or(text)
}

/// The dimensions that a session of that identity is counted under.
pub fn of_identity<'a>(tenant: &'a str, identity: &'a Identity) -> Dimensions<'a> {
    let or_unassigned = |value: &'a String| {
        if value.is_empty() {
            UNASSIGNED
        } else {
            value.as_str()
        }
    };
    let subagent = !identity.agent_name.is_empty() && identity.agent_name != "/root";
    Dimensions {
        tenant,
        team: or_unassigned(&identity.team),
        project: or_unassigned(&identity.project),
        cost_centre: or_unassigned(&identity.cost_centre),
        department: or_unassigned(&identity.department),
        env: or_unassigned(&identity.env),
        model: or_unassigned(&identity.model),
        entrypoint: classify::entrypoint(&identity.service_name, &identity.originator),
        agent: if subagent { Agent::Subagent } else { Agent::Root },
        effort: classify::effort(&identity.effort),
        tier: classify::tier(&identity.tier),
    }
}
