//! What is refused, and with which error.

use super::*;

#[test]
fn what_is_refused() {
    let deep = |levels: usize| {
        let open = r#"{"arrayValue":{"values":["#.repeat(levels);
        format!(r#""body":{open}{}"#, "]}}".repeat(levels))
    };
    for members in [
        // Ids must be hex strings of the right length.
        r#""traceId":"W47/95gDgQPSabYzgT/GDA==""#.to_owned(),
        r#""traceId":"5b8""#.to_owned(),
        r#""traceId":7"#.to_owned(),
        // Enums must be integers.
        r#""severityNumber":"SEVERITY_NUMBER_INFO""#.to_owned(),
        // Integers must be whole and in range.
        r#""timeUnixNano":1.5"#.to_owned(),
        r#""timeUnixNano":-1"#.to_owned(),
        r#""timeUnixNano":18446744073709551616"#.to_owned(),
        r#""timeUnixNano":"""#.to_owned(),
        r#""flags":4294967296"#.to_owned(),
        r#""body":{"intValue":"9223372036854775808"}"#.to_owned(),
        r#""body":{"intValue":true}"#.to_owned(),
        // JSON knows no words for numbers but those of the proto3 mapping.
        r#""body":{"doubleValue":"nan"}"#.to_owned(),
        r#""body":{"doubleValue":"inf"}"#.to_owned(),
        r#""body":{"doubleValue":NaN}"#.to_owned(),
        // Each value must be of its kind.
        r#""body":"text""#.to_owned(),
        r#""body":[]"#.to_owned(),
        r#""body":{"stringValue":7}"#.to_owned(),
        r#""body":{"boolValue":"true"}"#.to_owned(),
        r#""body":{"bytesValue":"*"}"#.to_owned(),
        r#""attributes":{}"#.to_owned(),
        r#""attributes":["k"]"#.to_owned(),
        deep(50),
        deep(100_000),
        "\"a\":".to_owned(),
    ] {
        assert!(
            to_protobuf(Signal::Logs, &in_record(&members)).is_err(),
            "{}",
            &members[..members.len().min(80)]
        );
    }
    assert!(to_protobuf(Signal::Logs, &in_record(&deep(30))).is_ok());
    // Unknown members may be nested to any depth, since they are not looked into.
    let unknown = format!(r#""x":{}{}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(to_protobuf(Signal::Logs, &in_record(&unknown)).is_ok());
    for json in [
        "null",
        "[]",
        "7",
        "\"a\"",
        "{",
        "{}}",
        "{\"resourceLogs\":[{}}",
        "nul",
    ] {
        for signal in Signal::ALL {
            assert!(to_protobuf(signal, json.as_bytes()).is_err(), "{json}");
        }
    }
    assert!(matches!(
        to_protobuf(Signal::Logs, &in_record(r#""flags":{}"#)),
        Err(JsonError::Form { line: 1, .. })
    ));
    assert!(matches!(
        to_protobuf(Signal::Logs, &in_record(r#""flags":"#)),
        Err(JsonError::Syntax { line: 1, .. })
    ));
}
