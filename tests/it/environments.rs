//! One ingest writes the records of two environments under two prefixes, where they are derived separately.

use crate::support::broker::Broker;
use crate::support::processes::{self, Process, tacho};
use crate::support::replay::read_topic;
use crate::support::tacho::PROTOBUF;
use crate::support::{eventually, now_ms, otlp};
use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::resource::v1::Resource;
use processor_log::cluster::Cluster;
use processor_log::kafka::{KafkaConfig, KafkaLog};
use prost::Message;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use schemas::origin::Origin;
use schemas::record::Record;
use schemas::topic::Topic;
use std::collections::BTreeSet;
use std::time::Duration;

const MAIN: &str = "people.";
const CI: &str = "people-ci.";

fn apply(bootstrap: &str, prefix: &str, raw_partitions: &str) {
    let args = [
        "topics",
        "apply",
        "--allow-single-broker",
        "--kafka",
        bootstrap,
        "--prefix",
        prefix,
        "--raw-partitions",
        raw_partitions,
    ];
    let output = tacho().args(&args).run();
    assert!(output.status.success(), "{output:?}");
}

/// A request with a prompt of that conversation in each environment.
fn request(conversation: &str, environments: &[&str]) -> Vec<u8> {
    let resource_logs = environments.iter().map(|env| {
        let mut logs = otlp::logs(vec![otlp::prompt(conversation, now_ms())])
            .resource_logs
            .remove(0);
        logs.resource = Some(Resource {
            attributes: vec![otlp::attribute("env", otlp::text(*env))],
            ..Resource::default()
        });
        logs
    });
    ExportLogsServiceRequest {
        resource_logs: resource_logs.collect(),
    }
    .encode_to_vec()
}

fn turns(worker: &Process, count: i64) {
    worker.wait_for_count("tacho_turns_total", &[], count);
}

/// How many raw log records a prefix has, without ticks, and their environments.
fn raw(bootstrap: &str, prefix: &str) -> (Vec<Record>, BTreeSet<String>) {
    let config = KafkaConfig::reader(&Cluster::plain(bootstrap, prefix), &format!("{prefix}reader"));
    let mut records = read_topic(&mut KafkaLog::connect(config).unwrap(), Topic::RawLogs);
    records.retain(|record| record.header("tacho-tick").is_none());
    let env = |record: &Record| {
        let request = ExportLogsServiceRequest::decode(record.value.clone().unwrap()).unwrap();
        let resources = request
            .resource_logs
            .into_iter()
            .flat_map(|logs| logs.resource.unwrap().attributes);
        resources
            .map(|attribute| format!("{:?}", attribute.value.unwrap().value.unwrap()))
            .collect::<Vec<_>>()
    };
    let environments = records.iter().flat_map(env).collect();
    (records, environments)
}

#[expect(clippy::too_many_lines, reason = "one scenario, told in order")]
#[test]
fn what_ci_sends_is_derived_apart() {
    let bootstrap = Broker::shared().bootstrap();
    apply(&bootstrap, MAIN, "3");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ingest.toml");
    let text = format!(
        "[inbox]\nsession_timeout = \"6s\"\n[[routes]]\nattribute = \"env\"\nvalue = \"ci\"\nprefix = \"{CI}\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let door = processes::ingest(&bootstrap, MAIN)
        .args(&["--config".as_ref(), file.as_os_str()])
        .start();
    // Records of CI may come at any time, so ingest is not ready before the topics of CI are there.
    eventually("a word about the other topics", || {
        let said = door.said();
        if said.contains(&format!("--prefix {CI}")) {
            Ok(())
        } else {
            Err(said)
        }
    });
    assert_eq!(door.get("/readyz").unwrap().0, 503);
    assert_eq!(
        door.post("/v1/logs", PROTOBUF, &request("early", &["dev"])),
        Ok(503)
    );
    apply(&bootstrap, CI, "2");
    door.wait_until_ready();

    let workers = [MAIN, CI].map(|prefix| processes::processor(&bootstrap, prefix, "one").ready());
    door.logs(&request("both", &["dev", "ci"]));
    door.logs(&request("people", &["dev"]));
    for number in 0..20 {
        door.logs(&request(&format!("job-{number}"), &["ci"]));
    }
    turns(&workers[0], 2);
    turns(&workers[1], 21);

    // Records of the inbox are divided in the same way.
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &bootstrap)
        .create()
        .unwrap();
    let inbox = format!("{MAIN}{}", Topic::InboxLogs.name());
    for number in 0..10 {
        let value = request(&format!("foreign-{number}"), &["ci", "dev"]);
        producer
            .send(BaseRecord::<(), [u8]>::to(&inbox).payload(&value))
            .map_err(|(error, _)| error)
            .unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    turns(&workers[0], 12);
    turns(&workers[1], 31);

    let (of_people, environments) = raw(&bootstrap, MAIN);
    assert_eq!(environments, BTreeSet::from(["StringValue(\"dev\")".to_owned()]));
    assert_eq!(of_people.len(), 12);
    let (of_ci, environments) = raw(&bootstrap, CI);
    assert_eq!(environments, BTreeSet::from(["StringValue(\"ci\")".to_owned()]));
    assert_eq!(of_ci.len(), 31);
    // The topics of CI have an inbox of their own, which is another source than the first inbox.
    let sources = |records: &[Record]| {
        let origin = |record: &Record| String::from_utf8(record.header("tacho-origin")?.to_vec()).ok();
        let sources = records
            .iter()
            .filter_map(origin)
            .map(|origin| Origin::parse(&origin).unwrap().source.to_owned());
        sources.collect::<BTreeSet<_>>()
    };
    let (near, far) = (sources(&of_people), sources(&of_ci));
    assert!(
        !near.is_empty() && near.iter().all(|source| !source.contains('~')),
        "{near:?}"
    );
    assert!(
        !far.is_empty() && far.iter().all(|source| source.contains('~')),
        "{far:?}"
    );
    for process in workers.into_iter().chain([door]) {
        process.signal(Signal::SIGTERM);
        let (status, said) = process.ended();
        assert_eq!(status.code(), Some(0), "{said}");
    }
}
