//! What clients of a real broker meet when its cluster tells of no brokers, as it does while the controller takes all of
//! them for gone: a proxy before the broker that takes them out of the answers.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "test code")]

use super::broker::Broker;
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The Metadata request: its API key, and the versions of one form that clients may ask in.
const METADATA: i16 = 3;
const EARLIEST: i16 = 11;
const LATEST: i16 = 13;
/// An error of a partition.
const LEADER_NOT_AVAILABLE: i16 = 5;

/// A broker, and the proxy that its clients are sent to.
pub struct Veil {
    broker: Broker,
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    down: AtomicBool,
    hidden: AtomicUsize,
}

impl Veil {
    /// Starts a broker that calls itself by the proxy's address.
    ///
    /// # Panics
    /// As [`Broker::start`].
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let broker = Broker::start(&[("advertised.listeners", &format!("PLAINTEXT://127.0.0.1:{port}"))]);
        let (shared, upstream) = (Arc::new(Shared::default()), broker.bootstrap());
        let seen = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // A broker that is gone has no connections: neither has its client.
                let Ok(server) = TcpStream::connect(&upstream) else {
                    continue;
                };
                connect(client, server, &seen);
            }
        });
        Self { broker, port, shared }
    }

    /// What clients connect to.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// From now on the cluster tells of no brokers, or of those that are there.
    pub fn let_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::Relaxed);
    }

    /// In how many answers there were none so far.
    pub fn hidden(&self) -> usize {
        self.shared.hidden.load(Ordering::Relaxed)
    }
}

/// Which request an answer is to: by the number that both bear.
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
                    "Metadata v{version} is not known here"
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

/// Passes frames on, until one side is gone; then both are.
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
            // The other direction may have done it.
            let _ = stream.shutdown(Shutdown::Both);
        }
    });
}

/// A Metadata answer as Kafka gives it while no broker counts as alive: none is listed, and no partition has a leader. (The
/// schema of `MetadataResponse` in the Kafka protocol, in the encoding of KIP-482.)
fn without_brokers(frame: &[u8]) -> Vec<u8> {
    let mut answer = Rewrite {
        rest: frame,
        done: Vec::new(),
    };
    // The number, no tags, the throttle time.
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
    // The cluster's id, the controller.
    answer.keep_array(1);
    answer.keep(4);
    let topics = answer.keep_varint();
    for _ in 1..topics {
        answer.keep(2);
        answer.keep_array(1);
        // An id, whether it is internal.
        answer.keep(16 + 1);
        let partitions = answer.keep_varint();
        for _ in 1..partitions {
            answer.put(&LEADER_NOT_AVAILABLE.to_be_bytes());
            answer.keep(4);
            answer.put(&(-1_i32).to_be_bytes());
            // The leader's epoch; replicas, those in sync, those offline; tags.
            answer.keep(4);
            (0..3).for_each(|_| answer.keep_array(4));
            answer.keep(1);
        }
        // What the client may do, tags.
        answer.keep(4 + 1);
    }
    answer.keep(answer.rest.len());
    answer.done
}

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

    /// An array or string: its length goes before it, plus one; 0 stands for none.
    fn keep_array(&mut self, item: usize) {
        let length = self.keep_varint();
        self.keep(length.saturating_sub(1) * item);
    }

    fn skip_string(&mut self) {
        let length = self.varint();
        self.skip(length.saturating_sub(1));
    }
}
