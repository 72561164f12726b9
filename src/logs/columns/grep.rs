//! What is searched for: a regular expression that takes linear time whatever it is and whatever it is
//! searched in, and what can be told of it without looking at every line.

use regex::bytes::{Regex, RegexBuilder};

use super::trigrams::Query;

/// Longer patterns are refused.
const MAX_PATTERN: usize = 4096;
/// Bytes that a compiled pattern may take.
const MAX_COMPILED: usize = 2 * 1024 * 1024;

/// A pattern.
#[derive(Clone, Debug)]
pub struct Grep {
    regex: Regex,
    query: Query,
    /// Finds a text that is in every match, or the match itself, in several lines together.
    needle: Option<Regex>,
}

impl Grep {
    /// From its text.
    ///
    /// # Errors
    /// Where it is none, or too large; the message is for the person who wrote it.
    pub fn new(pattern: &str) -> Result<Self, String> {
        if pattern.len() > MAX_PATTERN {
            return Err(format!("grep: it has more than {MAX_PATTERN} bytes"));
        }
        let regex = compile(pattern).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                "grep: this pattern is too large; take smaller repetitions".to_owned()
            }
            error => format!("grep: {error}"),
        })?;
        let mut parser = regex_syntax::ParserBuilder::new().utf8(false).build();
        let parsed = parser.parse(pattern).ok();
        let query = parsed.as_ref().map_or(Query::Any, Query::of);
        // A pattern that does not ask what is around a match also finds it among other lines.
        let anywhere = parsed.is_some_and(|hir| hir.properties().look_set().is_empty());
        let needle = needle(&query).or_else(|| anywhere.then(|| regex.clone()));
        Ok(Self {
            regex,
            query,
            needle,
        })
    }

    /// Whether a line's message has it.
    #[must_use]
    pub fn matches(&self, message: &[u8]) -> bool {
        self.regex.is_match(message)
    }

    /// What an index can say about it.
    #[must_use]
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// Whether one of several messages, in whatever lies between them, may have it.
    #[must_use]
    pub fn may_be_in(&self, messages: &[u8]) -> bool {
        (self.needle.as_ref()).is_none_or(|needle| needle.is_match(messages))
    }

    /// Whether [`Grep::may_be_in`] ever says no.
    #[must_use]
    pub fn has_needle(&self) -> bool {
        self.needle.is_some()
    }
}

fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .size_limit(MAX_COMPILED)
        .dfa_size_limit(MAX_COMPILED)
        .build()
}

fn needle(query: &Query) -> Option<Regex> {
    let mut alternatives = Vec::new();
    for (text, exact) in query.needles()? {
        let text = regex::escape(std::str::from_utf8(text).ok()?);
        alternatives.push(if exact { text } else { format!("(?i:{text})") });
    }
    compile(&alternatives.join("|")).ok()
}

impl PartialEq for Grep {
    fn eq(&self, other: &Self) -> bool {
        self.regex.as_str() == other.regex.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_would_eat_the_memory_is_refused_in_words() {
        let large = Grep::new(r"(\pL{1000}){1000}").unwrap_err();
        assert!(large.contains("too large"), "{large}");
        assert!(Grep::new(&"x".repeat(5000)).unwrap_err().contains("4096"));
        assert!(Grep::new("(").unwrap_err().contains("unclosed group"));
    }

    #[test]
    fn the_needle_is_in_every_match_and_missing_in_most_of_the_rest() {
        let grep = Grep::new(r"(?i)cuda (error|oom): \d+").unwrap();
        assert!(grep.matches(b"x CUDA OOM: 7 y"));
        assert!(grep.may_be_in(b"\x10\0\0\0x CUDA OOM: 7 y\x05\0\0\0hello"));
        assert!(!grep.may_be_in(b"\x10\0\0\0x CUDB OOM: 7 y\x05\0\0\0hello"));
        assert!(!Grep::new(r"^\d+").unwrap().has_needle());
        let digits = Grep::new(r"\d{3}").unwrap();
        assert!(digits.may_be_in(b"ab\x01cd 123"));
        assert!(!digits.may_be_in(b"ab\x01cd 12"));
    }
}
