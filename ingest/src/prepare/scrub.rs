//! Finds what looks like a secret in a text, by the rules of gitleaks (`rules/README.md`), and takes it out.
//!
//! ```text
//! text ─one search for all keywords─► rules that are woken ─their regexes─► matches ─entropy, allowlists─► secrets
//! ```
//!
//! One pass over a text for the keywords of all rules (Aho-Corasick) tells which rules are worth a look. Only these run their
//! regexes, each in time linear in the text. A text with backslashes, as JSON and shells write it, is searched once more
//! without them, since rules know `"` and not `\"`.
//!
//! Not found are a secret of no known form, one that a program printed in pieces or encoded, and one of which a client sent
//! only the beginning. Codex cuts outputs at 2,048 bytes: the word at such a cut is taken out whatever it is, and a private
//! key without its end has a rule of its own.

mod escapes;
mod rules;

use crate::prepare::wire::{DEPTH_MAX, Fields, Wire};
use escapes::{Unescaped, json_strings, unescaped};
use rules::{Candidate, Match, RULES_MAX, Rules};
use std::sync::OnceLock;

/// The text at the end of an output that Codex has cut.
const CUT_MARKER: &str = "[... telemetry preview truncated ...]";
/// The name that words at a cut are counted under, beside the ids of rules.
pub const CUT: &str = "cut";
/// Shortest text that can hold a secret of any rule, in bytes.
const TEXT_BYTES_MIN: usize = 8;

/// Finds secrets by the rules; any number of threads can use it at once.
pub struct Scrubber {
    rules: Rules,
}

/// Bytes with every secret in them overwritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masked {
    /// The bytes, as many as before.
    pub bytes: Vec<u8>,
    /// How many secrets were overwritten.
    pub found: u64,
}

/// How many bytes of its line before and after a match are given to allowlists.
const LINE_BYTES_MAX: usize = 512;

/// A secret in a text: its place in bytes, and the index of the rule that found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    start: usize,
    end: usize,
    rule: u16,
}

impl Scrubber {
    /// The scrubber of this process. The first call reads the rules; each is compiled when it is first woken.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Scrubber> = OnceLock::new();
        SHARED.get_or_init(|| Self { rules: Rules::read() })
    }

    /// The ids of all rules: a closed set, without [`CUT`].
    pub fn rule_ids(&self) -> impl Iterator<Item = &str> {
        self.rules.rules.iter().map(|rule| rule.id.as_str())
    }

    /// The text with `[scrubbed:<rule>]` in the place of each secret, and the rule of each; none where no secret was found.
    pub fn scrub(&'static self, text: &str) -> Option<(String, Vec<&'static str>)> {
        let cut = at_cut(text);
        let mut found = self.find(text.as_bytes());
        found.retain(|found| cut.is_none_or(|(start, end)| found.end <= start || found.start >= end));
        if found.is_empty() && cut.is_none() {
            return None;
        }
        let mut spans: Vec<(usize, usize, &'static str)> = Vec::with_capacity(found.len() + 1);
        spans.extend(found.iter().map(|found| {
            (
                found.start,
                found.end,
                self.rules.rules[usize::from(found.rule)].id.as_str(),
            )
        }));
        spans.extend(cut.map(|(start, end)| (start, end, CUT)));
        let (mut out, mut at) = (String::with_capacity(text.len() + 32), 0);
        for &(start, end, rule) in &spans {
            // Rules match bytes, so a match may begin or end within a character.
            let (start, end) = (
                text.floor_char_boundary(start).max(at),
                text.ceil_char_boundary(end),
            );
            out.push_str(&text[at..start]);
            out.push_str("[scrubbed:");
            out.push_str(rule);
            out.push(']');
            at = end;
        }
        out.push_str(&text[at..]);
        Some((out, spans.into_iter().map(|(_, _, rule)| rule).collect()))
    }

    /// Scrubs bytes that may be no text: a text as [`Scrubber::scrub`] does it; in other bytes each secret is overwritten by
    /// as many `*`.
    pub fn scrub_bytes(&'static self, bytes: &[u8]) -> Option<(Vec<u8>, Vec<&'static str>)> {
        if let Ok(text) = std::str::from_utf8(bytes) {
            return self.scrub(text).map(|(text, rules)| (text.into_bytes(), rules));
        }
        let found = self.find(bytes);
        let mut out = bytes.to_vec();
        found
            .iter()
            .for_each(|found| out[found.start..found.end].fill(b'*'));
        (!found.is_empty()).then(|| {
            (
                out,
                found
                    .iter()
                    .map(|found| self.rules.rules[usize::from(found.rule)].id.as_str())
                    .collect(),
            )
        })
    }

    /// Overwrites every secret in any bytes by as many `*`, so that the lengths that protobuf writes before its fields stay
    /// right. Texts that are fields of protobuf messages, at any depth, are searched by themselves too.
    #[must_use]
    pub fn mask(&self, bytes: &[u8]) -> Masked {
        let mut found = self.find(bytes);
        self.find_within(bytes, 0, 0, &mut found);
        let found = merged(found, |_| false);
        let mut out = bytes.to_vec();
        found
            .iter()
            .for_each(|found| out[found.start..found.end].fill(b'*'));
        Masked {
            bytes: out,
            found: found.len() as u64,
        }
    }

    /// Adds the secrets in the texts of a protobuf message, as far as the bytes are one. `offset` is its place in the whole.
    fn find_within(&self, message: &[u8], offset: usize, depth: usize, found: &mut Vec<Found>) {
        let mut at = 0;
        for field in Fields::new(message) {
            let Ok(field) = field else { return };
            at += field.raw.len();
            if field.wire != Wire::Len || field.payload.len() < TEXT_BYTES_MIN {
                continue;
            }
            let start = offset + at - field.payload.len();
            if is_text(field.payload) {
                let inner = self.find(field.payload).into_iter();
                found.extend(inner.map(|inner| Found {
                    start: inner.start + start,
                    end: inner.end + start,
                    rule: inner.rule,
                }));
            } else if depth < DEPTH_MAX {
                self.find_within(field.payload, start, depth + 1, found);
            }
        }
    }

    /// All secrets in a text, in order, none overlapping another.
    fn find(&self, text: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        // A text in which no keyword is found has none without backslashes either: no keyword begins or ends within an escape.
        if text.len() < TEXT_BYTES_MIN || !self.look(text, &mut found) {
            return Vec::new();
        }
        if text.trim_ascii_start().starts_with(b"{") || text.trim_ascii_start().starts_with(b"[") {
            for (start, end) in json_strings(text) {
                let string = &text[start..end];
                match unescaped(string) {
                    Some(unescaped) => self.look_within(&unescaped, start, &mut found),
                    None => {
                        let before = found.len();
                        self.look(string, &mut found);
                        found[before..]
                            .iter_mut()
                            .for_each(|one| (one.start, one.end) = (one.start + start, one.end + start));
                    }
                }
            }
        } else if let Some(unescaped) = unescaped(text) {
            self.look_within(&unescaped, 0, &mut found);
        }
        for one in &mut found {
            trim_quotes(text, one);
        }
        found.retain(|one| one.start < one.end);
        // Where two rules overlap, the name of the more special one tells more.
        merged(found, |rule| self.rules.rules[usize::from(rule)].from_keywords)
    }

    /// Adds the secrets in a text without backslashes, at their places in the text with backslashes.
    fn look_within(&self, unescaped: &Unescaped, offset: usize, found: &mut Vec<Found>) {
        let mut more = Vec::new();
        self.look(&unescaped.bytes, &mut more);
        let place = |at: usize| unescaped.at[at] as usize + offset;
        found.extend(more.into_iter().map(|one| Found {
            start: place(one.start),
            end: place(one.end - 1) + 1,
            rule: one.rule,
        }));
    }

    /// Adds what the rules find in a text as it is. Says whether any keyword was found.
    fn look(&self, text: &[u8], found: &mut Vec<Found>) -> bool {
        let mut woken = [0_u64; RULES_MAX / 64];
        let (mut ends, mut any) = (0, false);
        for hit in self.rules.keywords.find_overlapping_iter(text) {
            any = true;
            for &number in &self.rules.wakes[hit.pattern().as_usize()] {
                if !self.rules.rules[usize::from(number)].from_keywords {
                    woken[usize::from(number) / 64] |= 1 << (number % 64);
                } else if hit.start() >= ends
                    && let Some(one) = self.rules.rules[usize::from(number)].match_at(text, hit.start())
                    && self.judge(number, text, &one, found)
                {
                    ends = one.end;
                }
            }
        }
        let is_woken = |number: &usize| woken[number / 64] >> (number % 64) & 1 == 1;
        for number in (0..self.rules.rules.len()).filter(is_woken) {
            let rule = &self.rules.rules[number];
            if !rule.is_match(text) {
                continue;
            }
            let mut from = 0;
            while let Some(one) = rule.match_from(text, from) {
                self.judge(number as u16, text, &one, found);
                from = one.end.max(from + 1);
                if from > text.len() {
                    break;
                }
            }
        }
        any
    }

    /// Adds the match unless its rule takes it for harmless. Says whether it was added.
    fn judge(&self, number: u16, text: &[u8], one: &Match, found: &mut Vec<Found>) -> bool {
        let newline = |byte: &u8| *byte == b'\n';
        let (first, last) = (
            one.start.saturating_sub(LINE_BYTES_MAX),
            text.len().min(one.end + LINE_BYTES_MAX),
        );
        let begin = text[first..one.start]
            .iter()
            .rposition(newline)
            .map_or(first, |at| first + at + 1);
        let end = text[one.end..last]
            .iter()
            .position(newline)
            .map_or(last, |at| one.end + at);
        let candidate = Candidate {
            secret: &text[one.secret.0..one.secret.1],
            matched: &text[one.start..one.end],
            line: &text[begin..end],
        };
        if one.covered.0 == one.covered.1
            || self.rules.rules[usize::from(number)].refuses(&candidate, &self.rules.global)
        {
            return false;
        }
        found.push(Found {
            start: one.covered.0,
            end: one.covered.1,
            rule: number,
        });
        true
    }
}

/// Orders what was found, and makes one of what overlaps, under the first rule that is not `general`.
fn merged(mut found: Vec<Found>, general: impl Fn(u16) -> bool) -> Vec<Found> {
    found.sort_by_key(|found| (found.start, std::cmp::Reverse(found.end)));
    let mut out: Vec<Found> = Vec::with_capacity(found.len());
    for one in found {
        match out.last_mut().filter(|last| one.start < last.end) {
            Some(last) => {
                last.end = last.end.max(one.end);
                if general(last.rule) {
                    last.rule = one.rule;
                }
            }
            None => out.push(one),
        }
    }
    out
}

/// Where the last word before a cut begins and ends, if the text was cut.
fn at_cut(text: &str) -> Option<(usize, usize)> {
    let before = text.strip_suffix(CUT_MARKER)?.trim_end();
    let start = before
        .rfind(char::is_whitespace)
        .map_or(0, |at| text.ceil_char_boundary(at + 1));
    let word = &before[start..];
    (!word.is_empty() && !word.starts_with("[scrubbed:")).then_some((start, before.len()))
}

/// Whether bytes are UTF-8 without control characters, but for those of white space.
fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes)
        .is_ok_and(|text| !text.bytes().any(|byte| byte < 0x20 && !b"\n\r\t".contains(&byte)))
}

/// Leaves out quotes at either end, with their backslashes: they belong to the text around the secret.
fn trim_quotes(text: &[u8], found: &mut Found) {
    let is_quote = |byte: &u8| b"\\\"'".contains(byte);
    let inner = &text[found.start..found.end];
    let before = inner.iter().take_while(|byte| is_quote(byte)).count();
    let after = inner[before..]
        .iter()
        .rev()
        .take_while(|byte| is_quote(byte))
        .count();
    (found.start, found.end) = (found.start + before, found.end - after);
}

#[cfg(test)]
mod tests;
