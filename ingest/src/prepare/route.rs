//! Splits a request into raw records, one conversation each, without changing the bytes of their parts.

mod parts;

use crate::prepare::conversation::{Conversation, Conversations};
use crate::prepare::environment::Routes;
use crate::prepare::wire::{Fields, WireError, any_text, key_and_value};
use crate::sink::RawRecord;
use bytes::Bytes;
use parts::{Item, Parts};
use schemas::event::is_public;
use schemas::id::{can_route, raw_key};
use schemas::signal::Signal;
use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write as _;
use xxhash_rust::xxh3::xxh3_128;

/// How many bytes a raw record's value may have: a message of 8 MiB, less room for key, headers and framing.
pub const VALUE_BYTES_MAX: usize = (8 << 20) - (64 << 10);
/// How many bytes the raw records of one request may have together: splitting repeats resources and scopes.
pub const SPLIT_BYTES_MAX: usize = 48 << 20;

const LOG_BODY: u32 = 5;
const LOG_ATTRIBUTES: u32 = 6;
const RESOURCE_ATTRIBUTES: u32 = 1;

/// Why a request has no raw records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The bytes are no request of that signal.
    #[error("not an OTLP request: {0}")]
    Wire(#[from] WireError),
    /// One record with its resource and scope is over [`VALUE_BYTES_MAX`].
    #[error(
        "a record with its resource and scope has {bytes} bytes; at most {VALUE_BYTES_MAX} fit into a message"
    )]
    TooLarge {
        /// The record's size with its resource and scope, in bytes.
        bytes: usize,
    },
    /// Split by conversation, the request would be over [`SPLIT_BYTES_MAX`].
    #[error("split by conversation the request has over {SPLIT_BYTES_MAX} bytes: send smaller batches")]
    TooManyParts,
}

/// The raw records of a cleaned request, in the order in which their conversations first occur.
///
/// A request of one conversation, and one of traces or metrics, is passed on as it is while it fits into a message.
/// A request without records gives none.
///
/// # Errors
/// The bytes are malformed, or a part does not fit into a message.
pub fn route(signal: Signal, tenant: &str, request: &Bytes) -> Result<Vec<RawRecord>, RouteError> {
    route_by(
        &Routes::default(),
        signal,
        tenant,
        request,
        &Conversations::default(),
    )
}

/// Like [`route`], for the environments that `routes` name: a request whose resources belong to several is split by them too.
/// `conversations` are those of the request's log records, as far as they are known.
///
/// # Errors
/// The same as of [`route`].
pub fn route_by(
    routes: &Routes,
    signal: Signal,
    tenant: &str,
    request: &Bytes,
    conversations: &Conversations,
) -> Result<Vec<RawRecord>, RouteError> {
    let record = |environment: u8, id: &str, value: Bytes, items: usize| {
        let part = u32::try_from(items.saturating_sub(1)).unwrap_or(u32::MAX);
        RawRecord {
            signal,
            key: raw_key(tenant, id),
            value,
            part,
            policy: None,
            environment,
        }
    };
    // Most requests are of one conversation: there is nothing to take apart.
    if let Some((id, items)) = conversations
        .only()
        .filter(|_| routes.is_empty() && request.len() <= VALUE_BYTES_MAX)
    {
        return Ok(vec![record(0, id, request.clone(), items)]);
    }
    let mut parts = Parts::of(request)?;
    if parts.items.is_empty() {
        return Ok(Vec::new());
    }
    if !routes.is_empty() {
        parts.find_environments(routes, tenant)?;
    }
    let groups = match signal {
        Signal::Logs => by_conversation(&parts, conversations)?,
        Signal::Traces => by_environment(&parts, |first| {
            Ok(trace_id(first.payload, 1)?.unwrap_or_else(|| hash(request)))
        })?,
        Signal::Metrics => by_environment(&parts, |first| {
            Ok(hash(&public(
                parts.resources[first.resource].payload,
                RESOURCE_ATTRIBUTES,
            )?))
        })?,
    };
    if let [group] = groups.as_slice()
        && request.len() <= VALUE_BYTES_MAX
    {
        return Ok(vec![record(
            group.environment,
            &group.id,
            request.clone(),
            parts.items.len(),
        )]);
    }
    let (mut records, mut total, mut before) = (Vec::with_capacity(groups.len()), 0, 0);
    for group in &groups {
        let items = &group.items;
        for (end, value) in parts.build(items)? {
            total += value.len();
            if total > SPLIT_BYTES_MAX {
                return Err(RouteError::TooManyParts);
            }
            records.push(record(
                group.environment,
                &group.id,
                Bytes::from(value),
                before + end,
            ));
        }
        before += items.len();
    }
    Ok(records)
}

/// Items of a request that become one raw record, or several where they do not fit into one.
struct Group {
    environment: u8,
    /// What the group is routed by within its environment.
    id: String,
    items: Vec<usize>,
}

/// Groups log records by environment and routing id, in the order of first occurrence.
fn by_conversation(parts: &Parts<'_>, conversations: &Conversations) -> Result<Vec<Group>, WireError> {
    let mut groups: Vec<Group> = Vec::new();
    let mut known: HashMap<(u8, Cow<'_, str>), usize> = HashMap::new();
    let ids = conversations.each().chain(std::iter::repeat(None));
    for ((index, item), id) in parts.items.iter().enumerate().zip(ids) {
        let id = id.map_or_else(|| conversation(item.payload), |id| Ok(Cow::Borrowed(id)))?;
        let environment = parts.environment(item);
        match known.entry((environment, id)) {
            Entry::Occupied(group) => groups[*group.get()].items.push(index),
            Entry::Vacant(new) => {
                groups.push(Group {
                    environment,
                    id: new.key().1.clone().into_owned(),
                    items: vec![index],
                });
                new.insert(groups.len() - 1);
            }
        }
    }
    Ok(groups)
}

/// Groups items by environment, in the order of first occurrence. `id` gives what a group is routed by, from its first item.
fn by_environment(
    parts: &Parts<'_>,
    id: impl Fn(&Item<'_>) -> Result<String, WireError>,
) -> Result<Vec<Group>, WireError> {
    let mut groups: Vec<Group> = Vec::new();
    for (index, item) in parts.items.iter().enumerate() {
        let environment = parts.environment(item);
        match groups.iter_mut().find(|group| group.environment == environment) {
            Some(group) => group.items.push(index),
            None => groups.push(Group {
                environment,
                id: id(item)?,
                items: vec![index],
            }),
        }
    }
    Ok(groups)
}

/// What a log record is routed by: the conversation that it names, else its trace, else a hash of what it holds beside texts.
fn conversation(record: &[u8]) -> Result<Cow<'_, str>, WireError> {
    let mut conversation = Conversation::default();
    for field in Fields::new(record) {
        let field = field?;
        if field.number != LOG_ATTRIBUTES {
            continue;
        }
        let (key, value) = key_and_value(field.len_payload()?)?;
        if let Some(slot) = conversation.slot(key) {
            *slot = value.map_or(Ok(None), any_text)?;
        }
    }
    Ok(match conversation.named() {
        Some(id) if can_route(id) => Cow::Borrowed(id),
        Some(id) => Cow::Owned(hash(id.as_bytes())),
        None => Cow::Owned(match trace_id(record, 9)? {
            Some(id) => id,
            None => hash(&public(record, LOG_ATTRIBUTES)?),
        }),
    })
}

/// The bytes of a log record or resource without what a privacy policy may change or cleaning adds, so that no policy moves
/// it to another partition.
fn public(record: &[u8], attributes: u32) -> Result<Vec<u8>, WireError> {
    let mut out = Vec::with_capacity(record.len());
    for field in Fields::new(record) {
        let field = field?;
        let stays = match field.number {
            LOG_BODY => attributes != LOG_ATTRIBUTES,
            number if number == attributes => is_public(key_and_value(field.len_payload()?)?.0),
            _ => true,
        };
        if stays {
            out.extend_from_slice(field.raw);
        }
    }
    Ok(out)
}

fn trace_id(message: &[u8], number: u32) -> Result<Option<String>, WireError> {
    let mut id = None;
    for field in Fields::new(message) {
        let field = field?;
        if field.number == number {
            id = Some(field.len_payload()?);
        }
    }
    let usable = id.filter(|id| id.len() == 16 && id.iter().any(|byte| *byte != 0));
    Ok(usable.map(|id| {
        id.iter().fold(String::with_capacity(32), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }))
}

fn hash(bytes: &[u8]) -> String {
    format!("{:032x}", xxh3_128(bytes))
}

#[cfg(test)]
mod tests;
