use super::*;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

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
    Routes::new("", routes).unwrap()
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
    let faults: Vec<String> = Routes::new("", &given)
        .unwrap_err()
        .iter()
        .map(RouteFault::to_string)
        .collect();
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
