//! Spans and metrics.

use super::*;

#[test]
fn spans_of_json() {
    let read = |members: &str| {
        ExportTraceServiceRequest::decode(to_protobuf(Signal::Traces, &in_span(members)).unwrap().as_slice())
            .unwrap()
    };
    for (members, expected) in [
        ("", Span::default()),
        (r#""status":null,"events":null,"links":[null]"#, Span::default()),
        (
            r#""status":{}"#,
            Span {
                status: Some(Status::default()),
                ..Default::default()
            },
        ),
        (
            r#""traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174","parentSpanId":"","traceState":"s","name":"n","kind":2,
               "startTimeUnixNano":"1","endTimeUnixNano":2,"status":{"code":2,"message":"m"},"flags":257,"droppedEventsCount":1,
               "droppedLinksCount":2,"droppedAttributesCount":3,"attributes":[{"key":"k","value":{"stringValue":"v"}}],
               "events":[{"timeUnixNano":"9","name":"e","attributes":[{"key":"k"}],"droppedAttributesCount":4}],
               "links":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","traceState":"t","flags":5,"droppedAttributesCount":6}]"#,
            Span {
                trace_id: trace_id(),
                span_id: 0xEEE1_9B7E_C3C1_B174_u64.to_be_bytes().to_vec(),
                trace_state: "s".to_owned(),
                name: "n".to_owned(),
                kind: 2,
                start_time_unix_nano: 1,
                end_time_unix_nano: 2,
                status: Some(Status {
                    code: 2,
                    message: "m".to_owned(),
                }),
                flags: 257,
                dropped_events_count: 1,
                dropped_links_count: 2,
                dropped_attributes_count: 3,
                attributes: vec![pair("k", text("v"))],
                events: vec![Event {
                    time_unix_nano: 9,
                    name: "e".to_owned(),
                    attributes: vec![pair("k", None)],
                    dropped_attributes_count: 4,
                }],
                links: vec![Link {
                    trace_id: trace_id(),
                    span_id: 0xEEE1_9B7E_C3C1_B174_u64.to_be_bytes().to_vec(),
                    trace_state: "t".to_owned(),
                    flags: 5,
                    dropped_attributes_count: 6,
                    ..Default::default()
                }],
                ..Default::default()
            },
        ),
    ] {
        assert_eq!(read(members), in_spans(expected), "{members}");
    }
}

#[test]
fn metrics_of_json() {
    for (members, expected) in metric_table() {
        let read = to_protobuf(Signal::Metrics, &in_metric(members)).unwrap();
        assert_eq!(
            ExportMetricsServiceRequest::decode(read.as_slice()).unwrap(),
            in_metrics(expected),
            "{members}"
        );
    }
}

fn metric_table() -> Vec<(&'static str, metric::Data)> {
    let number = |value| NumberDataPoint {
        value,
        ..Default::default()
    };
    let gauge = |data_points| metric::Data::Gauge(Gauge { data_points });
    let exemplars = vec![Exemplar {
        time_unix_nano: 1,
        value: Some(exemplar::Value::AsDouble(0.0)),
        trace_id: trace_id(),
        ..Default::default()
    }];
    let mut table = vec![
        (r#""gauge":{}"#, gauge(vec![])),
        (r#""gauge":{"dataPoints":null}"#, gauge(vec![])),
        (
            r#""gauge":{"dataPoints":[{"asInt":0},{"asInt":"-5"},{"asDouble":"2.5"},{"asDouble":0}]}"#,
            gauge(vec![
                number(Some(number_data_point::Value::AsInt(0))),
                number(Some(number_data_point::Value::AsInt(-5))),
                number(Some(number_data_point::Value::AsDouble(2.5))),
                number(Some(number_data_point::Value::AsDouble(0.0))),
            ]),
        ),
        (
            r#""sum":{"aggregationTemporality":1,"isMonotonic":true,"dataPoints":[{"startTimeUnixNano":"1","timeUnixNano":2,"flags":1,
            "attributes":[{"key":"k"}],"exemplars":[{"timeUnixNano":"1","asDouble":0,"traceId":"5B8EFFF798038103D269B633813FC60C"}]}]}"#,
            metric::Data::Sum(Sum {
                aggregation_temporality: 1,
                is_monotonic: true,
                data_points: vec![NumberDataPoint {
                    start_time_unix_nano: 1,
                    time_unix_nano: 2,
                    flags: 1,
                    attributes: vec![pair("k", None)],
                    exemplars,
                    value: None,
                }],
            }),
        ),
    ];
    table.extend(distributions());
    table
}

fn distributions() -> [(&'static str, metric::Data); 3] {
    [
        (
            r#""histogram":{"aggregationTemporality":2,"dataPoints":[{"count":"3","sum":0,"min":"-Infinity","max":1.5,
            "bucketCounts":["1",2,0],"explicitBounds":[0,"1.5"],"timeUnixNano":4}]}"#,
            metric::Data::Histogram(Histogram {
                aggregation_temporality: 2,
                data_points: vec![HistogramDataPoint {
                    count: 3,
                    sum: Some(0.0),
                    min: Some(f64::NEG_INFINITY),
                    max: Some(1.5),
                    bucket_counts: vec![1, 2, 0],
                    explicit_bounds: vec![0.0, 1.5],
                    time_unix_nano: 4,
                    ..Default::default()
                }],
            }),
        ),
        (
            r#""exponentialHistogram":{"dataPoints":[{"scale":-3,"zeroCount":"1","zeroThreshold":0.5,"positive":{"offset":-2,"bucketCounts":["300",0]},
            "negative":{},"count":5,"flags":7}]}"#,
            metric::Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![ExponentialHistogramDataPoint {
                    scale: -3,
                    zero_count: 1,
                    zero_threshold: 0.5,
                    positive: Some(Buckets {
                        offset: -2,
                        bucket_counts: vec![300, 0],
                    }),
                    negative: Some(Buckets::default()),
                    count: 5,
                    flags: 7,
                    ..Default::default()
                }],
                ..Default::default()
            }),
        ),
        (
            r#""summary":{"dataPoints":[{"count":1,"sum":2,"quantileValues":[{"quantile":0.5,"value":"3"},null]}]}"#,
            metric::Data::Summary(Summary {
                data_points: vec![SummaryDataPoint {
                    count: 1,
                    sum: 2.0,
                    quantile_values: vec![ValueAtQuantile {
                        quantile: 0.5,
                        value: 3.0,
                    }],
                    ..Default::default()
                }],
            }),
        ),
    ]
}
