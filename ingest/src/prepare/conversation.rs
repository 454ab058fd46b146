//! Finds the conversation that a log record belongs to, by the ids in its attributes.
//!
//! A record is routed by its own conversation, else by the thread that sends, else by the one that receives.

use schemas::id::can_route;

/// The ids that a log record names.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Conversation<'a> {
    own: Option<&'a str>,
    sender: Option<&'a str>,
    receiver: Option<&'a str>,
}

impl<'a> Conversation<'a> {
    /// The place for the value of an attribute with that key; none for keys that are not read. The last attribute of a key
    /// counts.
    #[inline]
    pub fn slot(&mut self, key: &[u8]) -> Option<&mut Option<&'a str>> {
        match key {
            b"conversation.id" => Some(&mut self.own),
            b"sender_thread_id" => Some(&mut self.sender),
            b"receiver_thread_id" => Some(&mut self.receiver),
            _ => None,
        }
    }

    /// The first id that is not empty, in the order of preference.
    pub fn named(self) -> Option<&'a str> {
        [self.own, self.sender, self.receiver]
            .into_iter()
            .flatten()
            .find(|id| !id.is_empty())
    }
}

/// The conversation of each log record of a request, in order. Consecutive records of one conversation are held as one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversations(Vec<(Option<String>, usize)>);

impl Conversations {
    /// Adds the next record's id. An id that can't be part of a key counts as none: routing then finds a substitute in the
    /// record.
    pub(crate) fn push(&mut self, id: Option<&str>) {
        match self.0.last_mut() {
            Some((last, count)) if last.as_deref() == id => *count += 1,
            _ => self.0.push((id.filter(|id| can_route(id)).map(str::to_owned), 1)),
        }
    }

    /// The id of all records and how many there are, if all have one and the same.
    pub(crate) fn only(&self) -> Option<(&str, usize)> {
        if let [(Some(id), count)] = self.0.as_slice() {
            Some((id, *count))
        } else {
            None
        }
    }

    /// The id of each record, as far as it is known.
    pub(crate) fn each(&self) -> impl Iterator<Item = Option<&str>> {
        self.0
            .iter()
            .flat_map(|(id, count)| std::iter::repeat_n(id.as_deref(), *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_one_id_are_one() {
        let mut all = Conversations::default();
        assert_eq!(all.only(), None);
        for _ in 0..3 {
            all.push(Some("a"));
        }
        assert_eq!(all.only(), Some(("a", 3)));
        all.push(None);
        all.push(Some("a/b\n"));
        all.push(Some("a"));
        assert_eq!(all.only(), None);
        assert_eq!(
            all.each().collect::<Vec<_>>(),
            [Some("a"), Some("a"), Some("a"), None, None, Some("a")]
        );
    }
}
