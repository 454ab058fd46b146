//! A hash table of names that is built at compile time.

/// A hash table from names to their indexes, with open addressing, built at compile time. Aligned so that no name lies
/// across two cache lines, wherever the linker puts the table: a scan looks every attribute up in it.
#[repr(align(64))]
pub(super) struct Names<const N: usize> {
    names: [&'static str; N],
    /// The index of a name plus 1; 0 marks a free slot.
    slots: [u8; SLOTS],
}

/// The slots of [`Names`]: at least four times as many as names, so that probe sequences are short and always
/// end.
const SLOTS: usize = 512;

impl<const N: usize> Names<N> {
    pub const fn new(names: [&'static str; N]) -> Self {
        assert!(N * 4 <= SLOTS, "too many names: double SLOTS");
        let mut slots = [0; SLOTS];
        let mut index = 0;
        while index < N {
            let mut slot = spread(names[index].as_bytes());
            while slots[slot] != 0 {
                slot = (slot + 1) % SLOTS;
            }
            index += 1;
            slots[slot] = index as u8;
        }
        Self { names, slots }
    }

    pub fn find(&self, name: &[u8]) -> Option<usize> {
        let mut slot = spread(name);
        while self.slots[slot] != 0 {
            let index = usize::from(self.slots[slot] - 1);
            if self.names[index].as_bytes() == name {
                return Some(index);
            }
            slot = (slot + 1) % SLOTS;
        }
        None
    }
}

/// The hash of a name, from its length and four of its bytes, in which most names of the tables differ.
const fn spread(name: &[u8]) -> usize {
    let length = name.len();
    if length == 0 {
        return 0;
    }
    let (first, last) = (name[0] as usize, name[length - 1] as usize);
    let (middle, third) = (name[length / 2] as usize, name[length / 3] as usize);
    (length * 31 + first * 7 + last * 13 + middle * 37 + third * 101) % SLOTS
}
