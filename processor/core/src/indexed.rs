//! Maps that are searched for every record.

/// A map that is searched by hash and goes through its entries in the order in which they came.
///
/// Searching an ordered map with many long keys alike at their beginnings is mostly comparing them. The hash is seeded anew in
/// each process, so that no client can choose keys that collide; the order does not depend on it.
pub type IndexMap<K, V> = indexmap::IndexMap<K, V, foldhash::quality::RandomState>;
