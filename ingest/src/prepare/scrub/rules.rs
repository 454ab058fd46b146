//! The rules as data: what of gitleaks' form counts here, read once.

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind};
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use std::sync::OnceLock;

/// gitleaks' rules, as vendored: see `rules/README.md`.
const GITLEAKS: &str = include_str!("../../../rules/gitleaks.toml");
/// Rules of our own.
const OWN: &str = include_str!("../../../rules/own.toml");
/// What one search of one rule may use for its automaton, bytes; beyond that it is slower, not wrong.
const AUTOMATON_BYTES_MAX: usize = 1 << 20;
/// The largest compiled rule, bytes.
const COMPILED_BYTES_MAX: usize = 32 << 20;
/// There are at most so many rules.
pub(super) const RULES_MAX: usize = 256;
/// The rule that almost every text wakes: it is searched from its keywords on only.
const GENERIC: &str = "generic-api-key";
/// How gitleaks begins a rule that looks for a name, an operator and a value: up to so much of a name before the keyword.
const NAME_BEFORE: &str = r"[\w.-]{0,50}?";

/// The file's form, as far as it is read.
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

/// A regex that is compiled when it is first wanted.
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

/// As Go does it: classes and boundaries of ASCII.
fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .unicode(false)
        .dfa_size_limit(AUTOMATON_BYTES_MAX)
        .size_limit(COMPILED_BYTES_MAX)
        .build()
}

/// The pattern with a backslash before each brace that is a brace, and no repetition: Go does not ask for one.
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

/// What an allowlist's regexes are held against.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Secret,
    Match,
    Line,
}

struct Allowlist {
    target: Target,
    /// Whether regexes and stop words must both say so.
    both: bool,
    regexes: Vec<Lazy>,
    /// In lower case.
    stopwords: Option<AhoCorasick>,
}

/// What a candidate is judged by.
pub(super) struct Candidate<'a> {
    pub secret: &'a [u8],
    pub matched: &'a [u8],
    pub line: &'a [u8],
}

impl Allowlist {
    /// None: one that can't apply to texts without a path.
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

fn words(words: &[String]) -> AhoCorasick {
    let mut builder = AhoCorasickBuilder::new();
    let builder = builder
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::Standard)
        .kind(Some(AhoCorasickKind::ContiguousNFA));
    builder.build(words).expect("a test builds every list of words")
}

/// One kind of secret.
pub(super) struct Rule {
    pub id: String,
    /// The whole pattern; for a rule that is searched from its keywords on, what follows the name before, at the start.
    regex: Lazy,
    /// Whether it is searched from its keywords on only.
    pub from_keywords: bool,
    /// Whether its groups are names for parts of the secret, and not the secret.
    is_all_secret: bool,
    secret_group: usize,
    entropy: f64,
    allowlists: Vec<Allowlist>,
}

/// A match: the whole of it, and of that the part that is secret.
pub(super) struct Match {
    pub start: usize,
    pub end: usize,
    /// The group that is judged.
    pub secret: (usize, usize),
    /// All that is overwritten: from the first to the last group.
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

    /// The first match at or after `from`.
    pub fn match_from(&self, text: &[u8], from: usize) -> Option<Match> {
        let groups = self.regex.get().captures_at(text, from)?;
        Some(self.groups(&groups, 0))
    }

    /// Whether there is a match at all.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.regex.get().is_match(text)
    }

    /// The match whose keyword begins at `at`.
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

    /// Whether a candidate is too regular for a secret, or known to be none.
    pub fn refuses(&self, candidate: &Candidate<'_>, everywhere: &Global) -> bool {
        (self.entropy > 0.0 && entropy(candidate.secret) <= self.entropy)
            || everywhere
                .0
                .iter()
                .chain(&self.allowlists)
                .any(|list| list.allows(candidate))
    }
}

/// Shannon's entropy of the bytes, in bits a byte.
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

/// What is no secret under any rule.
pub(super) struct Global(Vec<Allowlist>);

/// The rules, and the keywords that wake them.
pub(super) struct Rules {
    pub rules: Vec<Rule>,
    pub global: Global,
    pub keywords: AhoCorasick,
    /// By keyword: the rules that it wakes.
    pub wakes: Vec<Vec<u16>>,
}

impl Rules {
    /// Reads the vendored files.
    ///
    /// # Panics
    /// Never: a test reads them.
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
