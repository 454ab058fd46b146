//! What a log record is routed by: its conversation, else a thread at either end.

use schemas::id::can_route;

/// The ids that a record names.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Conversation<'a> {
    own: Option<&'a str>,
    sender: Option<&'a str>,
    receiver: Option<&'a str>,
}

impl<'a> Conversation<'a> {
    /// Where the text of the attribute of that key belongs, if it is one of those that are read; the last one counts.
    #[inline]
    pub fn slot(&mut self, key: &[u8]) -> Option<&mut Option<&'a str>> {
        match key {
            b"conversation.id" => Some(&mut self.own),
            b"sender_thread_id" => Some(&mut self.sender),
            b"receiver_thread_id" => Some(&mut self.receiver),
            _ => None,
        }
    }

    /// The first that is not empty.
    pub fn named(self) -> Option<&'a str> {
        [self.own, self.sender, self.receiver]
            .into_iter()
            .flatten()
            .find(|id| !id.is_empty())
    }
}

/// The ids of a request's log records, in their order; records of one id that follow each other are held as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversations(Vec<(Option<String>, usize)>);

impl Conversations {
    /// The next record's id. One that can't be a key is none: what stands for it is found from the record.
    pub(crate) fn push(&mut self, id: Option<&str>) {
        match self.0.last_mut() {
            Some((last, count)) if last.as_deref() == id => *count += 1,
            _ => self.0.push((id.filter(|id| can_route(id)).map(str::to_owned), 1)),
        }
    }

    /// The id that all records have, and how many there are.
    pub(crate) fn only(&self) -> Option<(&str, usize)> {
        if let [(Some(id), count)] = self.0.as_slice() {
            Some((id, *count))
        } else {
            None
        }
    }

    /// Of each record, as far as it is known.
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
