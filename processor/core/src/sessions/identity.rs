//! The identity of a session: who and what it is, by the reports of its records.

use super::classify;
use super::identity_cache::{IdentityCache, Reported};
use super::parse::{Derived, Sender};
use schemas::event::Attr;
use schemas::fact::{Agent, Dimensions, UNASSIGNED};
use schemas::otlp::scan::Attrs;
use schemas::state::Identity;

/// The most bytes that are kept of a text; ids and names are far shorter.
pub const TEXT_BYTES_MAX: usize = 160;

/// Whether the reports of a sender change the series under which an open session is counted.
pub fn moves(identity: &Identity, sender: Sender, cache: &IdentityCache) -> bool {
    cache.texts(sender).any(|(reported, text)| {
        let known = match reported {
            Reported::Team => &identity.team,
            Reported::ServiceName => &identity.service_name,
            Reported::Originator => &identity.originator,
            Reported::Project
            | Reported::CostCentre
            | Reported::Department
            | Reported::Env
            | Reported::Model
            | Reported::AppVersion
            | Reported::AuthMode
            | Reported::TerminalType
            | Reported::UserEmail
            | Reported::UserAccountId => return false,
        };
        !text.is_empty() && known != cut(text)
    })
}

/// Takes over the reports of a record and its resource, and the attributes that few records have.
pub fn learn(identity: &mut Identity, record: &Derived<'_>, cache: &IdentityCache) {
    for (reported, text) in cache.texts(record.sender) {
        let field = match reported {
            Reported::Model => &mut identity.model,
            Reported::Originator => &mut identity.originator,
            Reported::AppVersion => &mut identity.app_version,
            Reported::AuthMode => &mut identity.auth_mode,
            Reported::TerminalType => &mut identity.terminal_type,
            Reported::UserEmail => &mut identity.user_email,
            Reported::UserAccountId => &mut identity.user_account_id,
            Reported::ServiceName => &mut identity.service_name,
            Reported::Team => &mut identity.team,
            Reported::Project => &mut identity.project,
            Reported::CostCentre => &mut identity.cost_centre,
            Reported::Department => &mut identity.department,
            Reported::Env => &mut identity.env,
        };
        set(field, Some(text));
    }
    learn_seldom(identity, &record.attrs);
}

/// Takes over the attributes that say what a session is and that few records have.
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

/// Sets a field to a text, unless the text is missing or empty.
fn set(field: &mut String, value: Option<&str>) {
    let Some(value) = value.filter(|value| !value.is_empty()).map(cut) else {
        return;
    };
    if field != value {
        field.clear();
        field.push_str(value);
    }
}

/// As much of a text as is kept: at most [`TEXT_BYTES_MAX`] bytes, cut between characters.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_BYTES_MAX))
        .unwrap_or(text)
}

/// The dimensions under which a session with that identity is counted.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_without_reports_is_unassigned() {
        assert_eq!(
            of_identity("t", &Identity::default()),
            Dimensions::unassigned("t")
        );
    }
}
