//! Finds what looks like a secret in a text, by the rules of gitleaks (`rules/README.md`), and takes it out.
//!
//! One pass over a text for the keywords of all rules (Aho-Corasick) says which rules are worth a look; only these run their
//! regexes, each of which takes time that is linear in the text. What JSON and shells write with backslashes is looked at
//! once more without them, since a rule knows `"`, and not `\"`.
//!
//! What it can't find: a secret of no known form, one that a program printed in pieces or encoded, and one of which a client
//! sent only the beginning. Codex cuts outputs at 2,048 bytes: the word at such a cut is taken out whatever it is, and a
//! private key without its end has a rule of its own.

mod rules;

use crate::prepare::privacy::DEPTH_MAX;
use crate::prepare::wire::{Fields, Wire};
use rules::{Candidate, Match, RULES_MAX, Rules};
use std::sync::OnceLock;

/// What the end of an output looks like that Codex has cut.
const CUT_MARKER: &str = "[... telemetry preview truncated ...]";
/// The name under which a word at a cut is counted.
pub const CUT: &str = "cut";
/// Shorter texts hold no secret that any rule knows.
const TEXT_BYTES_MIN: usize = 8;

/// The rules, ready for use by any number of threads.
pub struct Scrubber {
    rules: Rules,
}

/// Bytes with every secret in them overwritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masked {
    /// As long as before.
    pub bytes: Vec<u8>,
    /// How many secrets were overwritten.
    pub found: u64,
}

/// So much of a line before and after a match is asked whether it makes the match harmless.
const LINE_BYTES_MAX: usize = 512;

/// Where something was found, and by which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    start: usize,
    end: usize,
    rule: u16,
}

/// A text without the backslashes of escapes, and where its bytes were.
struct Unescaped {
    bytes: Vec<u8>,
    at: Vec<u32>,
}

impl Scrubber {
    /// The one of this process; the first call reads the rules, each of which is compiled when it is first woken.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Scrubber> = OnceLock::new();
        SHARED.get_or_init(|| Self { rules: Rules::read() })
    }

    /// The ids of all rules, a closed set; [`CUT`] is not among them.
    pub fn rule_ids(&self) -> impl Iterator<Item = &str> {
        self.rules.rules.iter().map(|rule| rule.id.as_str())
    }

    /// The text with `[scrubbed:<rule>]` in place of each secret, and the rule of each; nothing where none was found.
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
            // A rule may begin or end within a character.
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

    /// The same for bytes of no known form.
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

    /// Overwrites every secret by as many `*`, in any bytes: the lengths that protobuf writes before its fields stay right.
    /// Texts that are fields of protobuf messages, at any depth, are looked at by themselves too.
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

    /// What is in the texts of a protobuf message, as far as it is one.
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

    /// All secrets, in order, none over another.
    fn find(&self, text: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        // Without escapes there is no keyword that was not there with them: none begins or ends within one.
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
        // The name of a more special rule says more.
        merged(found, |rule| self.rules.rules[usize::from(rule)].from_keywords)
    }

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

    /// Adds what the rules find in a text as it is; whether any rule was woken.
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

    /// Adds the match unless it is known to be none.
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

/// Quotes at either end, with the backslashes before them, are the text's, and no part of what they are around.
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

/// The strings of a text that may be JSON: from after a quote to before the next one without a backslash.
fn json_strings(text: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text.get(at..)?.iter().position(|byte| *byte == b'"')? + 1;
        let mut end = start;
        while *text.get(end)? != b'"' {
            end += if text[end] == b'\\' { 2 } else { 1 };
        }
        at = end + 1;
        Some((start, end))
    })
    .filter(|(start, end)| end - start >= TEXT_BYTES_MIN)
}

/// In order, overlapping ones as one, by the first rule that is not `general`.
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

/// Where the last word before a cut is.
fn at_cut(text: &str) -> Option<(usize, usize)> {
    let before = text.strip_suffix(CUT_MARKER)?.trim_end();
    let start = before
        .rfind(char::is_whitespace)
        .map_or(0, |at| text.ceil_char_boundary(at + 1));
    let word = &before[start..];
    (!word.is_empty() && !word.starts_with("[scrubbed:")).then_some((start, before.len()))
}

fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes)
        .is_ok_and(|text| !text.bytes().any(|byte| byte < 0x20 && !b"\n\r\t".contains(&byte)))
}

/// Without the backslashes before quotes, slashes and letters of white space; none where there is none.
fn unescaped(text: &[u8]) -> Option<Unescaped> {
    let stands_for = |byte: u8| match byte {
        b'n' | b'r' => Some(b'\n'),
        b't' => Some(b'\t'),
        b'"' | b'\'' | b'/' => Some(byte),
        _ => None,
    };
    let mut out: Option<Unescaped> = None;
    let mut at = 0;
    while let Some(next) = text[at..]
        .iter()
        .position(|byte| *byte == b'\\')
        .map(|next| at + next)
    {
        let run = text[next..].iter().take_while(|byte| **byte == b'\\').count();
        let meant = text.get(next + run).and_then(|byte| stands_for(*byte));
        if let (Some(meant), Ok(_)) = (meant, u32::try_from(text.len())) {
            let out = out.get_or_insert_with(|| Unescaped {
                bytes: Vec::with_capacity(text.len()),
                at: Vec::with_capacity(text.len()),
            });
            let copied = out.at.last().map_or(0, |last| *last as usize + 1);
            out.bytes.extend_from_slice(&text[copied..next]);
            out.at.extend(copied as u32..next as u32);
            out.bytes.push(meant);
            out.at.push((next + run) as u32);
        }
        at = next + run + 1;
        if at >= text.len() {
            break;
        }
    }
    let mut out = out?;
    let copied = out.at.last().map_or(0, |last| *last as usize + 1);
    out.bytes.extend_from_slice(&text[copied..]);
    out.at.extend(copied as u32..text.len() as u32);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made up here, so that no scanner finds it in this file.
    fn token() -> String {
        format!("gh{}_{}", "p", "a8Kd93hFq0Zx7Lw2Nb5Vt6Yc1Me4Rj8Su3Pg")
    }

    fn scrubbed(text: &str) -> String {
        Scrubber::shared()
            .scrub(text)
            .map_or_else(|| text.to_owned(), |(text, _)| text)
    }

    #[test]
    fn a_secret_goes_and_the_text_around_it_stays() {
        let text = format!("clone https://{}@host/é.git; echo done", token());
        assert_eq!(
            scrubbed(&text),
            "clone https://[scrubbed:github-pat]@host/é.git; echo done"
        );
        assert_eq!(
            Scrubber::shared().scrub("git status && cargo test --workspace"),
            None
        );
        let (_, rules) = Scrubber::shared().scrub(&format!("{0} {0}", token())).unwrap();
        assert_eq!(rules, ["github-pat"; 2]);
    }

    #[test]
    fn escapes_hide_nothing() {
        let value = "Zf3D0LXCM3EIMbgJpUNnkRtOfOueHznB";
        for text in [
            format!("{{\"cmd\":\"export API_TOKEN=\\\"{value}\\\"; run\"}}"),
            format!(
                "{{\"cmd\":\"bash -c \\\"echo \\\\\\\"client_secret\\\\\\\": \\\\\\\"{value}\\\\\\\"\\\"\"}}"
            ),
            format!("{{\"text\":\"a\\nAPI_TOKEN={value}\\nb\"}}"),
        ] {
            let after = scrubbed(&text);
            assert!(
                !after.contains(value) && after.contains("[scrubbed:generic-api-key]"),
                "{after}"
            );
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(&after)
                    .map(|_| ())
                    .map_err(|error| error.to_string()),
                Ok(()),
                "{after}"
            );
        }
        assert!(unescaped(b"no escape").is_none() && unescaped(b"\\d \\").is_none());
        let view = unescaped(b"a\\\\\"b\\/c\\x").unwrap();
        assert_eq!(
            (view.bytes.as_slice(), view.at.as_slice()),
            (&b"a\"b/c\\x"[..], &[0, 3, 4, 6, 7, 8, 9][..])
        );
    }

    #[test]
    fn the_word_at_a_cut_goes_and_so_does_a_key_without_its_end() {
        let half = &token()[..20];
        let text = format!("some words {half}\n{CUT_MARKER}");
        assert_eq!(
            scrubbed(&text),
            format!("some words [scrubbed:cut]\n{CUT_MARKER}")
        );
        assert_eq!(scrubbed(&scrubbed(&text)), scrubbed(&text));
        let body = "MIIEpAIBAAKCAQEA7bq98Jx2\n".repeat(8);
        for kind in ["RSA ", "", "OPENSSH "] {
            let text = format!("-----BEGIN {kind}PRIVATE {}-----\n{body}", "KEY");
            assert_eq!(
                scrubbed(&format!("before\n{text}")),
                "before\n[scrubbed:private-key-cut]",
                "{kind}"
            );
        }
    }

    #[test]
    fn a_mask_has_the_length_of_what_it_hides() {
        let mut message = Vec::new();
        crate::prepare::wire::put_len(
            &mut message,
            6,
            &crate::prepare::wire::text_attribute("note", &format!("key {}", token())),
        );
        // The tag of what follows is a digit, which no rule takes for an end.
        crate::prepare::wire::put_len(&mut message, 6, &crate::prepare::wire::text_attribute("k", "v"));
        let damaged = [&message[..], &[0xff, 0xff, 0x00], token().as_bytes()].concat();
        for bytes in [&message, &damaged] {
            let masked = Scrubber::shared().mask(bytes);
            assert_eq!(masked.bytes.len(), bytes.len());
            assert!(
                !masked
                    .bytes
                    .windows(20)
                    .any(|window| token().as_bytes().starts_with(window))
            );
            let changed = masked
                .bytes
                .iter()
                .zip(bytes.iter())
                .filter(|(after, before)| after != before)
                .count();
            assert_eq!(changed, masked.found as usize * token().len());
        }
        assert_eq!(
            Scrubber::shared().mask(&[0, 255, 7]),
            Masked {
                bytes: vec![0, 255, 7],
                found: 0
            }
        );
        let bare = Scrubber::shared()
            .scrub_bytes(&[&[255, 254][..], token().as_bytes()].concat())
            .unwrap();
        assert_eq!(
            (bare.0, bare.1),
            ([&[255, 254][..], &[b'*'; 40]].concat(), vec!["github-pat"])
        );
    }
}
