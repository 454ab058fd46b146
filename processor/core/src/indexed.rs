//! The hash map of the core: for maps in which something is looked up for every record.

/// A map with lookup by hash and iteration in the order of insertion.
///
/// Lookup in an ordered map of many long keys with equal beginnings mostly compares keys. The hash has a new
/// seed in each process, so that no client can choose keys that collide; the order of iteration does not
/// depend on it.
pub type IndexMap<K, V> = indexmap::IndexMap<K, V, foldhash::quality::RandomState>;
