//! Binds the listeners of the process.

use super::settings::Settings;
use settings::process::bind;
use std::net::TcpListener;

/// The listeners of the process.
pub(super) struct Ports {
    pub http: TcpListener,
    /// The listener for gRPC; none where gRPC comes in on the port for HTTP.
    pub grpc: Option<TcpListener>,
    pub admin: TcpListener,
}

impl Ports {
    /// Binds all listeners.
    ///
    /// # Errors
    /// Every address that can't be listened on, in words.
    pub fn bind(settings: &Settings) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let http = bind("http.listen", settings.http.listen.0, &mut faults);
        let grpc = (!settings.is_one_port())
            .then(|| bind("grpc.listen", settings.grpc.listen.0, &mut faults))
            .flatten();
        let admin = bind("admin.listen", settings.admin.listen.0, &mut faults);
        match (http, admin) {
            (Some(http), Some(admin)) if faults.is_empty() => Ok(Self { http, grpc, admin }),
            _ => Err(faults),
        }
    }
}
