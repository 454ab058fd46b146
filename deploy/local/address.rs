//! Addresses of sockets: as flags give them, and as clients on this machine reach them.

use settings::units::Listen;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// Reads the address that `flag` gives; what is wrong with it is added to `faults`.
pub fn of_flag(flag: &str, text: &str, faults: &mut Vec<String>) -> Option<SocketAddr> {
    let parsed = text.parse::<Listen>();
    if parsed.is_err() {
        faults.push(format!(
            "{flag} {text:?} is not an address and port such as 127.0.0.1:4318"
        ));
    }
    parsed.ok().map(|listen| listen.0)
}

/// The address under which a client on this machine reaches a listener: loopback where the socket takes any interface.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
