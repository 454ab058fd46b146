//! Tests connections that are slow, many, broken or hostile: the server closes them and stays open for others.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use axum::http::{HeaderMap, Method, Request};
use bytes::Bytes;
use common::{PROTOBUF, Reply, Server, record, request};
use h2::Reason;
use h2::client::SendRequest;
use ingest::Config;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(3600);

fn body() -> Vec<u8> {
    request(vec![record(&[("conversation.id", "c")])])
}

fn head(length: usize) -> String {
    format!(
        "POST /v1/logs HTTP/1.1\r\nhost: tacho\r\ncontent-type: {PROTOBUF}\r\ncontent-length: {length}\r\n\r\n"
    )
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.unwrap()
}

/// Everything that the server sends until it closes the connection.
async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset ends the connection too.
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

/// Reads one answer, which has no body.
async fn answer(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.unwrap());
    }
    Reply::of(&bytes)
}

async fn http2(server: &Server) -> (SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let (client, connection) = h2::client::handshake(connect(server).await).await.unwrap();
    (client, tokio::spawn(connection))
}

fn http2_request(headers: HeaderMap) -> Request<()> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri("http://tacho/v1/logs")
        .header("content-type", PROTOBUF)
        .body(())
        .unwrap();
    request.headers_mut().extend(headers);
    request
}

#[tokio::test]
async fn a_slow_head_is_cut_off_and_a_busy_connection_is_not() {
    let server = Server::start(Config {
        header_time_max: SHORT,
        idle_time_max: LONG,
        ..Config::default()
    })
    .await;
    let mut busy = connect(&server).await;
    for _ in 0..2 {
        let sent = [head(body().len()).as_bytes(), &body()].concat();
        busy.write_all(&sent).await.unwrap();
        assert_eq!(answer(&mut busy).await.status, 200);
        // These two wait for longer than a head may take: until the server closes a connection that sends nothing, and one that
        // sends half a head.
        assert_eq!(rest(connect(&server).await).await, b"");
        let mut slow = connect(&server).await;
        slow.write_all(b"POST /v1/logs HTTP/1.1\r\nhost:").await.unwrap();
        assert_eq!(rest(slow).await, b"");
    }
    // The time for the second head of a connection is bounded too.
    busy.write_all(b"POST").await.unwrap();
    assert_eq!(rest(busy).await, b"");
    server.is_well().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let server = Server::start(Config {
        header_time_max: LONG,
        idle_time_max: SHORT,
        ..Config::default()
    })
    .await;
    let mut stream = connect(&server).await;
    stream
        .write_all(&[head(body().len()).as_bytes(), &body()].concat())
        .await
        .unwrap();
    assert_eq!(Reply::of(&rest(stream).await).status, 200);
    let (_client, connection) = http2(&server).await;
    let _ = connection.await.unwrap();
    server.is_well().await;
}

#[tokio::test]
async fn a_slow_body_is_cut_off() {
    let server = Server::start(Config {
        body_time_max: SHORT,
        ..Config::default()
    })
    .await;
    let mut stream = connect(&server).await;
    stream
        .write_all(&[head(100).as_bytes(), b"half"].concat())
        .await
        .unwrap();
    let reply = Reply::of(&rest(stream).await);
    assert_eq!(
        (reply.status, reply.header("retry-after"), reply.rpc().0),
        (503, Some("1"), 14)
    );
    server.is_well().await;
}

#[tokio::test]
async fn a_client_that_goes_away_is_counted() {
    ingest::telemetry::install().unwrap();
    let server = Server::start(Config::default()).await;
    let mut stream = connect(&server).await;
    stream
        .write_all(&[head(100).as_bytes(), b"half"].concat())
        .await
        .unwrap();
    drop(stream);
    while !ingest::telemetry::render().contains("tacho_ingest_rejected_total{reason=\"body\"} 1") {
        tokio::task::yield_now().await;
    }
    server.is_well().await;
}

#[tokio::test]
async fn more_connections_wait_until_one_ends() {
    let server = Server::start(Config {
        connections_max: 2,
        header_time_max: SHORT,
        ..Config::default()
    })
    .await;
    let silent = [
        connect(&server).await,
        connect(&server).await,
        connect(&server).await,
    ];
    // This request is answered once the connections before it are closed.
    server.is_well().await;
    for stream in silent {
        assert_eq!(rest(stream).await, b"");
    }
}

#[tokio::test]
async fn a_bloated_head_is_refused() {
    let server = Server::start(Config::default()).await;
    let many: String = (0..100).map(|at| format!("x-{at}: y\r\n")).collect();
    let large = format!("x: {}\r\n", "y".repeat(100 << 10));
    for headers in [many, large] {
        let mut stream = connect(&server).await;
        let head = head(0).replacen("\r\n", &format!("\r\n{headers}"), 1);
        // The request may be refused before all of it is sent.
        let _ = stream.write_all(head.as_bytes()).await;
        let reply = rest(stream).await;
        assert!(
            reply.is_empty() || Reply::of(&reply).status == 431,
            "{}",
            String::from_utf8_lossy(&reply)
        );
        server.is_well().await;
    }
    let (mut client, connection) = http2(&server).await;
    let headers: HeaderMap = (0..20)
        .map(|at| {
            (
                format!("x-{at}").parse().unwrap(),
                "y".repeat(1 << 10).parse().unwrap(),
            )
        })
        .collect();
    let (response, _) = client.send_request(http2_request(headers), true).unwrap();
    match response.await {
        Ok(response) => assert_eq!(response.status(), 431),
        Err(error) => assert!(error.is_reset() || error.is_go_away(), "{error}"),
    }
    connection.abort();
    server.is_well().await;
}

#[tokio::test]
async fn both_versions_of_http() {
    let server = Server::start(Config::default()).await;
    let (mut client, connection) = http2(&server).await;
    for _ in 0..3 {
        let (response, mut stream) = client
            .send_request(http2_request(HeaderMap::new()), false)
            .unwrap();
        stream.send_data(Bytes::from(body()), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    }
    assert_eq!(server.taken().len(), 3);
    connection.abort();
}

#[tokio::test]
async fn streams_that_are_reset_at_once_harm_nobody() {
    let server = Server::start(Config::default()).await;
    let (client, connection) = http2(&server).await;
    for _ in 0..20_000 {
        // The server ends the connection after some resets.
        let Ok(mut client) = client.clone().ready().await else {
            break;
        };
        let Ok((_, mut stream)) = client.send_request(http2_request(HeaderMap::new()), false) else {
            break;
        };
        stream.send_reset(Reason::CANCEL);
    }
    connection.abort();
    server.is_well().await;
    // No request is open any more, so the server ends at once.
    server.stop.send(()).unwrap();
    server.served.await.unwrap();
}

#[tokio::test]
async fn open_requests_are_finished_at_the_end() {
    let server = Server::start(Config::default()).await;
    let body = body();
    let mut open = connect(&server).await;
    open.write_all(&[head(body.len()).as_bytes(), &body[..5]].concat())
        .await
        .unwrap();
    let (mut client, connection) = http2(&server).await;
    let (response, mut stream) = client
        .send_request(http2_request(HeaderMap::new()), false)
        .unwrap();
    stream
        .send_data(Bytes::copy_from_slice(&body[..5]), false)
        .unwrap();
    // Both requests have arrived once a later one is answered.
    server.is_well().await;
    server.stop.send(()).unwrap();
    // New connections are refused now.
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    open.write_all(&body[5..]).await.unwrap();
    let reply = Reply::of(&rest(open).await);
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    stream
        .send_data(Bytes::copy_from_slice(&body[5..]), true)
        .unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    drop(client);
    connection.await.unwrap().unwrap();
    server.served.await.unwrap();
    assert_eq!(server.sink.records.lock().unwrap().len(), 2);
}
