use super::*;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use schemas::signal::Signal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

fn rule(attribute: &str, value: &str, tenant: &str, prefix: &str) -> Route {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Route {
        attribute: text(attribute),
        value: text(value),
        tenant: text(tenant),
        prefix: prefix.to_owned(),
    }
}

fn resource(attributes: &[(&str, Value)]) -> Vec<u8> {
    let attribute = |(key, value): &(&str, Value)| KeyValue {
        key: (*key).to_owned(),
        value: Some(AnyValue {
            value: Some(value.clone()),
        }),
        ..KeyValue::default()
    };
    Resource {
        attributes: attributes.iter().map(attribute).collect(),
        ..Resource::default()
    }
    .encode_to_vec()
}

fn text(value: &str) -> Value {
    Value::StringValue(value.to_owned())
}

fn routes(routes: &[Route]) -> Routes {
    let mut faults = Vec::new();
    let made = Routes::new("", routes, &mut faults);
    assert_eq!(faults, Vec::<String>::new());
    made
}

#[test]
fn the_first_rule_that_fits_counts() {
    let routes = routes(&[
        rule("project", "special", "", ""),
        rule("env", "ci", "big", "big-ci."),
        rule("env", "ci", "", "ci."),
        rule("env", "test", "", "ci."),
        rule("", "", "other", "other."),
    ]);
    assert_eq!(routes.prefixes(), ["big-ci.", "ci.", "other."]);
    let of = |tenant, attributes: &[(&str, Value)]| routes.of(tenant, &resource(attributes)).unwrap();
    assert_eq!(of("default", &[]), 0);
    assert_eq!(of("default", &[("env", text("dev"))]), 0);
    assert_eq!(of("default", &[("host.name", text("h")), ("env", text("ci"))]), 2);
    assert_eq!(of("default", &[("env", text("test"))]), 2);
    assert_eq!(of("big", &[("env", text("ci"))]), 1);
    assert_eq!(of("other", &[("env", text("ci"))]), 2);
    assert_eq!(of("other", &[("env", text("dev"))]), 3);
    assert_eq!(
        of("other", &[("env", text("ci")), ("project", text("special"))]),
        0,
        "back to the main prefix"
    );
    assert_eq!(
        of("default", &[("env", Value::IntValue(1))]),
        0,
        "texts alone are compared"
    );
    assert_eq!(of("default", &[("env.name", text("ci"))]), 0);
    assert!(routes.of("default", b"\x0a\x7f").is_err());
}

#[test]
fn every_fault_is_named_at_once() {
    let mut given = vec![
        rule("env", "", "", "a."),
        rule("", "ci", "", "a."),
        rule("", "", "", "a/b"),
        rule("env", "ci", "", "ci."),
        rule("env", "ci", "t", "other."),
        Route {
            attribute: Some(String::new()),
            value: Some("x".repeat(ROUTE_TEXT_BYTES_MAX + 1)),
            ..Route::default()
        },
    ];
    given.extend((0..ROUTES_MAX).map(|number| rule("env", &number.to_string(), "", "")));
    let mut faults = Vec::new();
    Routes::new("", &given, &mut faults);
    let parts = [
        "there are 38, but at most 32",
        "routes.0: names an attribute, but no value",
        "routes.1: names a value, but no attribute",
        "routes.2: names neither",
        "routes.2: the prefix \"a/b\"",
        "routes.4: takes nothing, since routes.3 takes it before",
        "routes.5: attribute must",
        "routes.5: value must",
    ];
    for part in parts {
        assert!(
            faults.iter().any(|fault| fault.contains(part)),
            "{part} is not in {faults:#?}"
        );
    }
    assert_eq!(faults.len(), parts.len(), "{faults:#?}");
}

/// Takes records when it is let.
#[derive(Default)]
struct Gate {
    open: Notify,
    is_ready: AtomicBool,
    fails: bool,
    taken: Mutex<Vec<String>>,
}

impl Sink for Gate {
    async fn append(&self, records: Vec<RawRecord>) -> Result<(), SinkError> {
        self.taken
            .lock()
            .unwrap()
            .extend(records.into_iter().map(|record| record.key));
        self.open.notified().await;
        if self.fails {
            Err(SinkError::Full("gate".to_owned()))
        } else {
            Ok(())
        }
    }

    fn ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }
}

fn record(key: &str, environment: u8) -> RawRecord {
    RawRecord {
        signal: Signal::Logs,
        key: key.to_owned(),
        value: bytes::Bytes::new(),
        part: 0,
        policy: None,
        environment,
    }
}

#[tokio::test]
async fn each_record_goes_to_its_sink_and_all_are_waited_for_side_by_side() {
    let routed = Routed::new(vec![
        Gate::default(),
        Gate {
            fails: true,
            ..Gate::default()
        },
    ]);
    let records = vec![record("a", 0), record("b", 1), record("c", 0)];
    let mut waiting = Box::pin(routed.append(records));
    assert!(poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending())).await);
    let taken = |index: usize| routed.sinks[index].taken.lock().unwrap().clone();
    assert_eq!(
        (taken(0), taken(1)),
        (vec!["a".to_owned(), "c".to_owned()], vec!["b".to_owned()]),
        "neither waits for the other"
    );
    routed.sinks[1].open.notify_one();
    assert!(
        poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending())).await,
        "one is not all"
    );
    routed.sinks[0].open.notify_one();
    assert!(matches!(waiting.await, Err(SinkError::Full(_))));
    assert!(matches!(
        routed.append(vec![record("d", 2)]).await,
        Err(SinkError::Unavailable(_))
    ));
    assert!(routed.append(Vec::new()).await.is_ok());
}

#[test]
fn ready_means_all() {
    let routed = Routed::new(vec![Gate::default(), Gate::default()]);
    routed.sinks[0].is_ready.store(true, Ordering::Relaxed);
    assert!(!routed.ready());
    routed.sinks[1].is_ready.store(true, Ordering::Relaxed);
    assert!(routed.ready());
}
