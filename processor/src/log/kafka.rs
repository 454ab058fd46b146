//! Real Kafka, by rdkafka.
