//! Reads the rules of gitleaks, as far as their form counts here, and applies each to a text.

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind};
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use std::sync::OnceLock;

/// The rules of gitleaks, as vendored: see `rules/README.md`.
const GITLEAKS: &str = include_str!("../../../rules/gitleaks.toml");
/// Rules of our own.
const OWN: &str = include_str!("../../../rules/own.toml");
/// How many bytes a search by one rule may use for its automaton; a search that needs more is slower, not wrong.
const AUTOMATON_BYTES_MAX: usize = 1 << 20;
/// Largest compiled rule, in bytes.
const COMPILED_BYTES_MAX: usize = 32 << 20;
/// How many rules there may be.
pub(super) const RULES_MAX: usize = 256;
/// The rule that almost every text wakes. It is searched from its keywords on only.
const GENERIC: &str = "generic-api-key";
/// The pattern with which gitleaks begins a rule for a name, an operator and a value: up to 50 characters of a name before the
/// keyword.
const NAME_BEFORE: &str = r"[\w.-]{0,50}?";

/// A file of rules, as far as it is read.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    allowlist: Option<AllowText>,
    rules: Vec<RuleText>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleText {
    id: String,
    regex: Option<String>,
    #[serde(default)]
    secret_group: usize,
    #[serde(default)]
    entropy: f64,
    #[serde(default)]
    keywords: Vec<String>,
    #[serde(default)]
    allowlists: Vec<AllowText>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AllowText {
    #[serde(default)]
    condition: String,
    #[serde(default)]
    regex_target: String,
    #[serde(default)]
    regexes: Vec<String>,
    #[serde(default)]
    stopwords: Vec<String>,
    #[serde(default)]
    paths: Vec<String>,
}

/// A regex that is compiled at its first use.
struct Lazy {
    pattern: String,
    compiled: OnceLock<Regex>,
}

impl Lazy {
    fn new(pattern: String) -> Self {
        Self {
            pattern: braces_escaped(&pattern),
            compiled: OnceLock::new(),
        }
    }

    fn get(&self) -> &Regex {
        self.compiled
            .get_or_init(|| compile(&self.pattern).expect("a test compiles every vendored pattern"))
    }
}

/// Compiles a pattern with classes and boundaries of ASCII, as Go does.
fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .unicode(false)
        .dfa_size_limit(AUTOMATON_BYTES_MAX)
        .size_limit(COMPILED_BYTES_MAX)
        .build()
}

/// The pattern with a backslash before each opening brace that begins no repetition, which Go does not ask for.
fn braces_escaped(pattern: &str) -> String {
    let is_repetition = |rest: &str| {
        let numbers = rest.split_once('}').map_or("", |(numbers, _)| numbers);
        numbers.starts_with(|c: char| c.is_ascii_digit())
            && numbers.chars().all(|c| c.is_ascii_digit() || c == ',')
    };
    let (mut out, mut in_class, mut escaped) = (String::with_capacity(pattern.len() + 8), false, false);
    for (at, c) in pattern.char_indices() {
        match c {
            _ if escaped => {}
            '[' if !in_class => in_class = true,
            ']' if in_class && !pattern[..at].ends_with(['[', ':']) => in_class = false,
            '{' if !in_class && !is_repetition(&pattern[at + 1..]) => out.push('\\'),
            _ => {}
        }
        escaped = !escaped && c == '\\';
        out.push(c);
    }
    out
}

/// What the regexes of an allowlist are matched against.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Secret,
    Match,
    Line,
}

/// What makes a candidate no secret.
struct Allowlist {
    target: Target,
    /// Whether both a regex and a stop word must match.
    both: bool,
    regexes: Vec<Lazy>,
    /// The stop words, which match in any case.
    stopwords: Option<AhoCorasick>,
}

/// A match that may be a secret, as allowlists see it.
pub(super) struct Candidate<'a> {
    pub secret: &'a [u8],
    pub matched: &'a [u8],
    pub line: &'a [u8],
}

impl Allowlist {
    /// Reads an allowlist; none if it can't apply to texts, which have no path.
    fn new(text: AllowText) -> Option<Self> {
        let both = text.condition.eq_ignore_ascii_case("and");
        if (both && !text.paths.is_empty()) || (text.regexes.is_empty() && text.stopwords.is_empty()) {
            return None;
        }
        let target = match text.regex_target.as_str() {
            "match" => Target::Match,
            "line" => Target::Line,
            _ => Target::Secret,
        };
        let stopwords = (!text.stopwords.is_empty()).then(|| words(&text.stopwords));
        Some(Self {
            target,
            both,
            regexes: text.regexes.into_iter().map(Lazy::new).collect(),
            stopwords,
        })
    }

    fn allows(&self, candidate: &Candidate<'_>) -> bool {
        let target = match self.target {
            Target::Secret => candidate.secret,
            Target::Match => candidate.matched,
            Target::Line => candidate.line,
        };
        let by_word = || {
            self.stopwords
                .as_ref()
                .is_some_and(|words| words.is_match(candidate.secret))
        };
        let by_regex = || self.regexes.iter().any(|regex| regex.get().is_match(target));
        if self.both {
            (self.stopwords.is_none() || by_word()) && (self.regexes.is_empty() || by_regex())
        } else {
            by_word() || by_regex()
        }
    }
}

/// A search for words, in any case.
fn words(words: &[String]) -> AhoCorasick {
    let mut builder = AhoCorasickBuilder::new();
    let builder = builder
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::Standard)
        .kind(Some(AhoCorasickKind::ContiguousNFA));
    builder.build(words).expect("a test builds every list of words")
}

/// The rule for one kind of secret.
pub(super) struct Rule {
    pub id: String,
    /// The whole pattern. Of a rule that is searched from its keywords on, the part from the keyword on, anchored at the start.
    regex: Lazy,
    /// Whether the rule is searched from its keywords on only.
    pub from_keywords: bool,
    /// Whether the whole match is secret, and its groups only name parts of it.
    is_all_secret: bool,
    secret_group: usize,
    entropy: f64,
    allowlists: Vec<Allowlist>,
}

/// A match of a rule: its place in the text, and the places of what is secret in it, in bytes.
pub(super) struct Match {
    pub start: usize,
    pub end: usize,
    /// The part that entropy and allowlists are applied to.
    pub secret: (usize, usize),
    /// The part that is overwritten: from the first to the last group.
    pub covered: (usize, usize),
}

impl Rule {
    fn new(text: RuleText) -> Option<(Self, Vec<String>)> {
        let pattern = text.regex?;
        let from_keywords = text.id == GENERIC;
        let pattern = match pattern.split_once(NAME_BEFORE).filter(|_| from_keywords) {
            Some((flags, rest)) => format!("{flags}^(?:{rest})"),
            None => pattern,
        };
        let allowlists = text.allowlists.into_iter().filter_map(Allowlist::new).collect();
        let rule = Self {
            id: text.id,
            from_keywords,
            is_all_secret: pattern.contains("(?P<"),
            regex: Lazy::new(pattern),
            secret_group: text.secret_group,
            entropy: text.entropy,
            allowlists,
        };
        Some((rule, text.keywords))
    }

    /// The first match that begins at or after `from`.
    pub fn match_from(&self, text: &[u8], from: usize) -> Option<Match> {
        let groups = self.regex.get().captures_at(text, from)?;
        Some(self.groups(&groups, 0))
    }

    /// Whether the text has a match at all, which is faster than finding it.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.regex.get().is_match(text)
    }

    /// The match whose keyword begins at `at`, of a rule that is searched from its keywords on.
    pub fn match_at(&self, text: &[u8], at: usize) -> Option<Match> {
        let groups = self.regex.get().captures(&text[at..])?;
        let mut found = self.groups(&groups, at);
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
        found.start -= text[..at]
            .iter()
            .rev()
            .take(50)
            .take_while(|byte| is_name(byte))
            .count();
        Some(found)
    }

    fn groups(&self, groups: &regex::bytes::Captures<'_>, offset: usize) -> Match {
        let span = |found: regex::bytes::Match<'_>| (found.start() + offset, found.end() + offset);
        let whole = span(groups.get(0).expect("group 0 is the match"));
        let mut inner = groups
            .iter()
            .skip(1)
            .flatten()
            .map(span)
            .filter(|(start, end)| start < end);
        let (secret, covered) = match self.secret_group {
            0 if self.is_all_secret => (inner.next().unwrap_or(whole), whole),
            0 => match inner.next() {
                Some(first) => (
                    first,
                    inner.fold(first, |all, one| (all.0.min(one.0), all.1.max(one.1))),
                ),
                None => (whole, whole),
            },
            group => groups
                .get(group)
                .map(span)
                .map_or((whole, whole), |secret| (secret, secret)),
        };
        Match {
            start: whole.0,
            end: whole.1,
            secret,
            covered,
        }
    }

    /// Whether a candidate is no secret: too regular, or allowed by a list.
    pub fn refuses(&self, candidate: &Candidate<'_>, everywhere: &Global) -> bool {
        (self.entropy > 0.0 && entropy(candidate.secret) <= self.entropy)
            || everywhere
                .0
                .iter()
                .chain(&self.allowlists)
                .any(|list| list.allows(candidate))
    }
}

/// Shannon entropy of the bytes, in bits a byte.
fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let length = bytes.len() as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / length)
        .map(|part| -part * part.log2())
        .sum()
}

/// The allowlists that apply under every rule.
pub(super) struct Global(Vec<Allowlist>);

/// The rules, and the keywords that wake them.
pub(super) struct Rules {
    pub rules: Vec<Rule>,
    pub global: Global,
    pub keywords: AhoCorasick,
    /// The indexes of the rules that a keyword wakes, by the keyword's number.
    pub wakes: Vec<Vec<u16>>,
}

impl Rules {
    /// Reads the vendored files of rules.
    ///
    /// # Panics
    /// Never, since a test reads the same files.
    pub fn read() -> Self {
        let read = |text: &str| toml::from_str::<File>(text).expect("a test reads the vendored rules");
        let (gitleaks, own) = (read(GITLEAKS), read(OWN));
        let global = Global(gitleaks.allowlist.and_then(Allowlist::new).into_iter().collect());
        let (mut rules, mut names, mut wakes) = (Vec::new(), Vec::<String>::new(), Vec::<Vec<u16>>::new());
        for (rule, keywords) in gitleaks.rules.into_iter().chain(own.rules).filter_map(Rule::new) {
            let number = u16::try_from(rules.len()).expect("there are some hundred rules");
            rules.push(rule);
            for keyword in keywords.into_iter().map(|keyword| keyword.to_ascii_lowercase()) {
                let place = names.iter().position(|name| *name == keyword).unwrap_or_else(|| {
                    names.push(keyword);
                    wakes.push(Vec::new());
                    names.len() - 1
                });
                wakes[place].push(number);
            }
        }
        assert!(rules.len() <= RULES_MAX, "too many rules: a test counts them");
        let mut builder = AhoCorasickBuilder::new();
        let builder = builder
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::DFA));
        Self {
            rules,
            global,
            keywords: builder.build(&names).expect("a test builds the keywords"),
            wakes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_compiles_and_every_rule_has_a_keyword() {
        let rules = Rules::read();
        assert_eq!(rules.rules.len(), 222, "221 of gitleaks, one of ours");
        for (number, rule) in rules.rules.iter().enumerate() {
            compile(&rule.regex.pattern).unwrap_or_else(|error| panic!("{}: {error}", rule.id));
            for pattern in rule
                .allowlists
                .iter()
                .chain(&rules.global.0)
                .flat_map(|list| &list.regexes)
            {
                compile(&pattern.pattern).unwrap_or_else(|error| panic!("{}: {error}", rule.id));
            }
            assert!(
                rules.wakes.iter().any(|woken| woken.contains(&(number as u16))),
                "{} is never woken",
                rule.id
            );
        }
        assert_eq!(
            rules
                .rules
                .iter()
                .filter(|rule| rule.from_keywords && rule.regex.pattern.starts_with("(?i)^"))
                .count(),
            1
        );
    }

    #[test]
    fn only_braces_that_repeat_nothing_get_a_backslash() {
        for (go, rust) in [
            (r"a{2}b{3,}c{4,5}", r"a{2}b{3,}c{4,5}"),
            (r"^\$(?:\d+|{\d+})$", r"^\$(?:\d+|\{\d+})$"),
            (r"^\${x}\{[{[:alpha:]]{1}", r"^\$\{x}\{[{[:alpha:]]{1}"),
        ] {
            assert_eq!(braces_escaped(go), rust);
        }
    }

    #[test]
    fn entropy_is_in_bits_a_byte() {
        for (bytes, bits) in [(&b"aaaa"[..], 0.0), (b"abab", 1.0), (b"abcd", 2.0)] {
            assert!((entropy(bytes) - bits).abs() < 1e-9, "{bytes:?}");
        }
    }
}
