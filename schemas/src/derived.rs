//! Derived rows: what other teams read from the derived topics, as structs and as Avro.
