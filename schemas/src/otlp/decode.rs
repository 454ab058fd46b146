//! The full decode of an OTLP log request, by prost: slow, complete, and the oracle of the scan.
