use super::*;
use crate::demo::recordings::RECORDINGS;
use std::collections::BTreeSet;

const OWNER: Owner = Owner {
    team: "t",
    project: "p",
    cost_centre: "c",
    department: "d",
    env: "e",
};
const NOW_MS: i64 = 1_900_000_000_000;

fn decode_logs(bytes: &[u8]) -> ExportLogsServiceRequest {
    ExportLogsServiceRequest::decode(bytes).unwrap()
}

/// Everything in a message's debug text that has the form of an id.
fn ids(text: &str) -> BTreeSet<String> {
    let starts = text
        .char_indices()
        .filter(|(at, _)| !text[..*at].ends_with(|c: char| c.is_ascii_alphanumeric()));
    starts
        .filter_map(|(at, _)| uuid_at(&text[at..]).or_else(|| prefixed_at(&text[at..])))
        .map(str::to_owned)
        .collect()
}

fn attribute<'r>(attributes: &'r [KeyValue], key: &str) -> Option<&'r str> {
    let value = attributes
        .iter()
        .find(|attribute| attribute.key == key)?
        .value
        .as_ref()?;
    match value.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

/// Before and after of every log body of a replay.
fn replayed(name: &str) -> Vec<(i64, ExportLogsServiceRequest, ExportLogsServiceRequest)> {
    let recording = RECORDINGS
        .iter()
        .find(|recording| recording.name == name)
        .unwrap();
    let mut rewrite = Rewrite::new(OWNER);
    let bodies = recording.bodies.iter().filter(|body| body.path == "/v1/logs");
    bodies
        .map(|body| {
            (
                body.arrived_ms,
                decode_logs(&body.plain().unwrap()),
                decode_logs(&rewrite.body(body, NOW_MS).unwrap()),
            )
        })
        .collect()
}

#[test]
fn every_id_of_every_recording_is_fresh() {
    for recording in RECORDINGS {
        let (mut rewrite, mut again) = (Rewrite::new(OWNER), Rewrite::new(OWNER));
        for body in recording.bodies {
            let text = |bytes: &[u8]| match body.path {
                "/v1/logs" => format!("{:?}", ExportLogsServiceRequest::decode(bytes).unwrap()),
                "/v1/traces" => format!("{:?}", ExportTraceServiceRequest::decode(bytes).unwrap()),
                _ => format!("{:?}", ExportMetricsServiceRequest::decode(bytes).unwrap()),
            };
            let before = ids(&text(&body.plain().unwrap()));
            let first = ids(&text(&rewrite.body(body, NOW_MS).unwrap()));
            let second = ids(&text(&again.body(body, NOW_MS).unwrap()));
            assert_eq!(before.len(), first.len(), "{} {}", recording.name, body.path);
            assert!(
                before.is_disjoint(&first) && first.is_disjoint(&second),
                "{} {}",
                recording.name,
                body.path
            );
        }
    }
}

#[test]
fn renaming_is_consistent_across_bodies_and_places() {
    for name in ["subagent", "subagent_v2", "tui"] {
        let mut renamed = HashMap::new();
        for (_, before, after) in replayed(name) {
            let pairs = |request: &ExportLogsServiceRequest| {
                let records = request
                    .resource_logs
                    .iter()
                    .flat_map(|resource| &resource.scope_logs)
                    .flat_map(|scope| &scope.log_records);
                let mut all = Vec::new();
                for record in records {
                    all.push(format!("{:?}", record.trace_id));
                    for attribute in &record.attributes {
                        if let Some(Value::StringValue(text)) =
                            attribute.value.as_ref().and_then(|value| value.value.as_ref())
                        {
                            all.extend(ids(text));
                        }
                    }
                }
                all
            };
            // Sorted sets within one text can change order: compare texts with a single id and trace ids only by pairs.
            for (old, new) in pairs(&before).into_iter().zip(pairs(&after)) {
                if old.starts_with('[') || old.starts_with("call_") {
                    assert_eq!(renamed.entry(old).or_insert(new.clone()), &new, "{name}");
                }
            }
        }
        assert!(renamed.len() > 1, "{name}");
    }
    let mut rewrite = Rewrite::new(OWNER);
    let child = "01a20456-d0f5-7962-a56d-7a9ee0a6dc91";
    let alone = rewrite.text(child);
    assert_eq!(
        rewrite
            .text(&format!(
                "{{\"agent_id\": \"{child}\", \"x\": \"call_1795369728\"}}"
            ))
            .matches(&alone)
            .count(),
        1
    );
    assert_eq!(&alone[14..15], "7");
}

#[test]
fn times_keep_their_distance_to_the_arrival_and_are_never_ahead() {
    for recording in RECORDINGS {
        for (arrived, before, after) in replayed(recording.name) {
            let records = |request: ExportLogsServiceRequest| {
                request
                    .resource_logs
                    .into_iter()
                    .flat_map(|resource| resource.scope_logs)
                    .flat_map(|scope| scope.log_records)
            };
            for (old, new) in records(before).zip(records(after)) {
                assert!(
                    new.observed_time_unix_nano <= u64::try_from(NOW_MS).unwrap() * 1_000_000,
                    "{}",
                    recording.name
                );
                let distance = |observed: u64, at: i64| i64::try_from(observed).unwrap() - at * 1_000_000;
                assert_eq!(
                    distance(old.observed_time_unix_nano, arrived),
                    distance(new.observed_time_unix_nano, NOW_MS)
                );
                assert_eq!(new.time_unix_nano, 0, "Codex leaves it empty");
                let stamp = |attributes: &[KeyValue]| {
                    Some(
                        parse_rfc3339(attribute(attributes, "event.timestamp")?)
                            .unwrap()
                            .0,
                    )
                };
                let (old, new) = (stamp(&old.attributes), stamp(&new.attributes));
                assert_eq!(old.map(|at| at - arrived), new.map(|at| at - NOW_MS));
                assert!(
                    new.is_none_or(|at| at <= NOW_MS && at > NOW_MS - 10_000),
                    "{}: {new:?}",
                    recording.name
                );
            }
        }
    }
}

#[test]
fn resources_belong_to_the_owner_once() {
    for (_, _, after) in replayed("basic") {
        for resource in after.resource_logs {
            let attributes = resource.resource.unwrap().attributes;
            assert_eq!(
                attributes
                    .iter()
                    .filter(|attribute| attribute.key == "env")
                    .count(),
                1
            );
            assert_eq!(attribute(&attributes, "env"), Some("e"));
            assert_eq!(attribute(&attributes, "team.id"), Some("t"));
            assert!(attribute(&attributes, "service.name").is_some());
        }
    }
}

#[test]
fn only_ids_are_renamed() {
    let mut rewrite = Rewrite::new(OWNER);
    let text = "call_tool recall_1234567890 01a20456-d0f5-7962-a56d-7a9ee0a6dc91f é exec";
    assert_eq!(rewrite.text(text), text);
    assert!(
        rewrite
            .text("exec-f0338be6-4ad6-4e4b-84b4-b1694e181a07")
            .starts_with("exec-")
    );
    assert_ne!(
        rewrite.text("exec-f0338be6-4ad6-4e4b-84b4-b1694e181a07"),
        "exec-f0338be6-4ad6-4e4b-84b4-b1694e181a07"
    );
}
