//! A broker behind a proxy that can remove all brokers from Metadata answers, as a cluster does while its controller takes all
//! brokers for dead.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "test code")]

use super::broker::Broker;
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The Metadata request: its API key, and the versions with the same encoding that clients may use.
const METADATA: i16 = 3;
const EARLIEST: i16 = 11;
const LATEST: i16 = 13;
/// The error code `LEADER_NOT_AVAILABLE` of a partition.
const LEADER_NOT_AVAILABLE: i16 = 5;

/// A broker, and the proxy that its clients use.
pub struct Veil {
    broker: Broker,
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Whether Metadata answers are without brokers.
    down: AtomicBool,
    /// How many Metadata answers were without brokers.
    hidden: AtomicUsize,
}

impl Veil {
    /// Starts a broker that advertises the address of the proxy.
    ///
    /// # Panics
    /// Java or Maven is missing, or the broker does not start.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let broker = Broker::start(&[("advertised.listeners", &format!("PLAINTEXT://127.0.0.1:{port}"))]);
        let (shared, upstream) = (Arc::new(Shared::default()), broker.bootstrap());
        let seen = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // While the broker has no connections, its clients get none either.
                let Ok(server) = TcpStream::connect(&upstream) else {
                    continue;
                };
                connect(client, server, &seen);
            }
        });
        Self { broker, port, shared }
    }

    /// The address that clients connect to.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Sets whether Metadata answers are without brokers from now on.
    pub fn let_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::Relaxed);
    }

    /// How many Metadata answers were without brokers so far.
    pub fn hidden(&self) -> usize {
        self.shared.hidden.load(Ordering::Relaxed)
    }
}

/// The correlation ids of the Metadata requests that have no answer yet.
type Asked = Arc<Mutex<HashSet<[u8; 4]>>>;

fn connect(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) {
    let asked = Asked::default();
    let (note, shared) = (Arc::clone(&asked), Arc::clone(shared));
    copy(
        client.try_clone().unwrap(),
        server.try_clone().unwrap(),
        move |frame| {
            if frame[..2] == METADATA.to_be_bytes() {
                let version = i16::from_be_bytes([frame[2], frame[3]]);
                assert!(
                    (EARLIEST..=LATEST).contains(&version),
                    "the encoding of Metadata v{version} is not known"
                );
                note.lock().unwrap().insert(frame[4..8].try_into().unwrap());
            }
            frame
        },
    );
    copy(server, client, move |frame| {
        match asked.lock().unwrap().remove(&frame[..4]) {
            true if shared.down.load(Ordering::Relaxed) => {
                shared.hidden.fetch_add(1, Ordering::Relaxed);
                without_brokers(&frame)
            }
            _ => frame,
        }
    });
}

/// Forwards frames until one side closes the connection, and then closes both sides.
fn copy(mut from: TcpStream, mut to: TcpStream, mut change: impl FnMut(Vec<u8>) -> Vec<u8> + Send + 'static) {
    let mut pass = move |from: &mut TcpStream, to: &mut TcpStream| -> io::Result<()> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        from.read_exact(&mut frame)?;
        let frame = change(frame);
        let mut all = u32::try_from(frame.len()).unwrap().to_be_bytes().to_vec();
        all.extend(frame);
        to.write_all(&all)
    };
    std::thread::spawn(move || {
        while pass(&mut from, &mut to).is_ok() {}
        for stream in [from, to] {
            // The other direction may have closed the connection already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    });
}

/// A Metadata answer as Kafka gives it while no broker counts as alive: no broker is listed, and no partition has a leader.
///
/// Source: the schema of `MetadataResponse` in the Kafka protocol; KIP-482 for the encoding.
fn without_brokers(frame: &[u8]) -> Vec<u8> {
    let mut answer = Rewrite {
        rest: frame,
        done: Vec::new(),
    };
    // The head of the answer: correlation id, no tags, throttle time.
    answer.keep(4 + 1 + 4);
    let brokers = answer.varint();
    answer.done.push(1);
    for _ in 1..brokers {
        answer.skip(4);
        answer.skip_string();
        answer.skip(4);
        answer.skip_string();
        answer.skip(1);
    }
    // The cluster id and the controller id follow the brokers.
    answer.keep_array(1);
    answer.keep(4);
    let topics = answer.keep_varint();
    for _ in 1..topics {
        answer.keep(2);
        answer.keep_array(1);
        // The topic's id, and whether it is internal, follow the topic's name.
        answer.keep(16 + 1);
        let partitions = answer.keep_varint();
        for _ in 1..partitions {
            answer.put(&LEADER_NOT_AVAILABLE.to_be_bytes());
            answer.keep(4);
            answer.put(&(-1_i32).to_be_bytes());
            // The partition's leader epoch, replicas, in-sync replicas, offline replicas and tags follow its leader.
            answer.keep(4);
            (0..3).for_each(|_| answer.keep_array(4));
            answer.keep(1);
        }
        // The operations that the client may do on the topic, and tags, end the topic.
        answer.keep(4 + 1);
    }
    answer.keep(answer.rest.len());
    answer.done
}

/// A copy of an answer in the making: what is left to read, and what is written.
struct Rewrite<'a> {
    rest: &'a [u8],
    done: Vec<u8>,
}

impl Rewrite<'_> {
    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    fn keep(&mut self, bytes: usize) {
        self.done.extend(&self.rest[..bytes]);
        self.skip(bytes);
    }

    fn put(&mut self, other: &[u8]) {
        self.done.extend(other);
        self.skip(other.len());
    }

    fn varint(&mut self) -> usize {
        let length = self.rest.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let value = self.rest[..length]
            .iter()
            .rev()
            .fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f));
        self.skip(length);
        value
    }

    fn keep_varint(&mut self) -> usize {
        let before = self.rest;
        let value = self.varint();
        self.done.extend(&before[..before.len() - self.rest.len()]);
        value
    }

    /// Keeps an array of items of `item` bytes, or a string (`item` is 1). Its length plus one stands before it; 0 is null.
    fn keep_array(&mut self, item: usize) {
        let length = self.keep_varint();
        self.keep(length.saturating_sub(1) * item);
    }

    fn skip_string(&mut self) {
        let length = self.varint();
        self.skip(length.saturating_sub(1));
    }
}
