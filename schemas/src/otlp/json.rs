//! OTLP/JSON onto the same types as the binary form.
