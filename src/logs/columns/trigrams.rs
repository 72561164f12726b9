//! The skip index for text search: which runs of three bytes ("trigrams") are in the messages of a row
//! group, without regard to case. A search whose pattern needs a text of three bytes or more skips the
//! groups that lack one of its trigrams. It may say that something can be there which is not; never
//! the other way round.
//!
//! Row groups' indexes lie between the data and the footer of a Parquet file, where other readers do not
//! look; the footer's key [`KEY`] says where. Files without it are searched whole.

use std::ops::Range;

use regex_syntax::hir::{Class, Hir, HirKind};

/// Key in the footer: `from-to from-to …`, byte ranges in the file, one for each row group.
pub const KEY: &str = "trainyard.trigrams";

/// Bits for each trigram that is there; so at most a quarter of them are set, and a text of n bytes is
/// found in a group that lacks it once in 4^(n - 2) times at the most.
const BITS: usize = 4;
/// Least and most bits of an index, as powers of two.
const POWERS: std::ops::RangeInclusive<u32> = 9..=19;

/// How [`KEY`] is written.
#[must_use]
pub fn write_ranges(ranges: &[Range<u64>]) -> String {
    let texts: Vec<_> = (ranges.iter())
        .map(|r| format!("{}-{}", r.start, r.end))
        .collect();
    texts.join(" ")
}

/// What [`write_ranges`] wrote; none where it is something else.
#[must_use]
pub fn read_ranges(text: &str) -> Vec<Range<u64>> {
    let range = |text: &str| {
        let (start, end) = text.split_once('-')?;
        let range = start.parse().ok()?..end.parse().ok()?;
        (range.start < range.end).then_some(range)
    };
    let ranges: Option<Vec<_>> = text.split_whitespace().map(range).collect();
    ranges.unwrap_or_default()
}

/// The messages in the form in which they are compared. Besides ASCII letters, only two characters are
/// the same as an ASCII letter without regard to case: ſ (s) and K, the Kelvin sign (k).
fn fold(message: &[u8], to: &mut Vec<u8>) {
    to.clear();
    let mut rest = message;
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match rest {
            [0xc5, 0xbf, after @ ..] => (b's', after),
            [0xe2, 0x84, 0xaa, after @ ..] => (b'k', after),
            _ => (first.to_ascii_lowercase(), after),
        };
        to.push(byte);
        rest = after;
    }
}

fn trigrams(folded: &[u8]) -> impl Iterator<Item = u32> + '_ {
    (folded.windows(3)).map(|t| u32::from(t[0]) << 16 | u32::from(t[1]) << 8 | u32::from(t[2]))
}

/// Collects the trigrams of one row group.
pub struct Builder {
    /// One bit for each of the 2^24.
    seen: Vec<u64>,
    /// The words of it that are not 0: in a small group only few are.
    touched: Vec<u32>,
    folded: Vec<u8>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            seen: vec![0; 1 << 18],
            touched: Vec::new(),
            folded: Vec::new(),
        }
    }
}

impl Builder {
    /// Takes in one message.
    pub fn add(&mut self, message: &[u8]) {
        fold(message, &mut self.folded);
        for t in trigrams(&self.folded) {
            let word = &mut self.seen[(t >> 6) as usize];
            if *word == 0 {
                self.touched.push(t >> 6);
            }
            *word |= 1 << (t & 63);
        }
    }

    /// The index of what was taken in; the builder is empty again.
    pub fn finish(&mut self) -> Vec<u8> {
        let ones = |at: &u32| self.seen[*at as usize].count_ones() as usize;
        let distinct: usize = self.touched.iter().map(ones).sum();
        let power = (distinct * BITS).next_power_of_two().trailing_zeros();
        let power = power.clamp(*POWERS.start(), *POWERS.end());
        let mut index = vec![0; 1 << (power - 3)];
        for at in self.touched.drain(..) {
            let word = &mut self.seen[at as usize];
            while *word != 0 {
                let t = at << 6 | word.trailing_zeros();
                *word &= *word - 1;
                let bit = place(t, power);
                index[bit >> 3] |= 1 << (bit & 7);
            }
        }
        index
    }
}

/// The bit of a trigram in an index of 2^`power` bits.
fn place(trigram: u32, power: u32) -> usize {
    (trigram.wrapping_mul(0x9e37_79b1) >> (32 - power)) as usize
}

/// What a message must contain to match a pattern, as far as an index can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Nothing in particular.
    Any,
    /// This text, in the form of [`fold`], and whether the pattern has it in just these letters.
    Text(Vec<u8>, bool),
    /// All of these.
    All(Vec<Query>),
    /// One of these, or more.
    One(Vec<Query>),
}

impl Query {
    /// For a pattern.
    #[must_use]
    pub fn of(hir: &Hir) -> Self {
        if let Some((text, exact)) = text(hir) {
            return Self::text(text, exact);
        }
        match hir.kind() {
            HirKind::Capture(capture) => Self::of(&capture.sub),
            HirKind::Repetition(repeated) if repeated.min > 0 => Self::of(&repeated.sub),
            HirKind::Concat(parts) => Self::concat(parts),
            HirKind::Alternation(parts) => {
                let parts: Vec<_> = parts.iter().map(Self::of).collect();
                if parts.contains(&Self::Any) {
                    Self::Any
                } else {
                    Self::One(parts)
                }
            }
            _ => Self::Any,
        }
    }

    fn text(text: Vec<u8>, exact: bool) -> Self {
        if text.is_empty() {
            Self::Any
        } else {
            Self::Text(text, exact)
        }
    }

    /// Texts that follow each other are one text.
    fn concat(parts: &[Hir]) -> Self {
        let mut needed = Vec::new();
        let mut run = (Vec::new(), true);
        for part in parts {
            if let Some((more, exact)) = text(part) {
                run.0.extend(more);
                run.1 &= exact;
                continue;
            }
            let (text, exact) = std::mem::replace(&mut run, (Vec::new(), true));
            needed.push(Self::text(text, exact));
            needed.push(Self::of(part));
        }
        needed.push(Self::text(run.0, run.1));
        needed.retain(|query| *query != Self::Any);
        match needed.len() {
            0 => Self::Any,
            1 => needed.remove(0),
            _ => Self::All(needed),
        }
    }

    /// Whether a group with this index can have a match.
    #[must_use]
    pub fn may_be_in(&self, index: &[u8]) -> bool {
        let bits = index.len() * 8;
        if !bits.is_power_of_two() || !POWERS.contains(&bits.trailing_zeros()) {
            return true;
        }
        let power = bits.trailing_zeros();
        match self {
            Self::Any => true,
            Self::Text(text, _) => trigrams(text).all(|t| {
                let bit = place(t, power);
                index[bit >> 3] & 1 << (bit & 7) != 0
            }),
            Self::All(parts) => parts.iter().all(|part| part.may_be_in(index)),
            Self::One(parts) => parts.iter().any(|part| part.may_be_in(index)),
        }
    }

    /// Whether an index can rule anything out.
    #[must_use]
    pub fn is_selective(&self) -> bool {
        match self {
            Self::Any => false,
            Self::Text(text, _) => text.len() >= 3,
            Self::All(parts) => parts.iter().any(Self::is_selective),
            Self::One(parts) => parts.iter().all(Self::is_selective),
        }
    }

    /// Texts of which one is in every match: the longest that there are. None where there are none.
    #[must_use]
    pub fn needles(&self) -> Option<Vec<(&[u8], bool)>> {
        let shortest = |needles: &Vec<(&[u8], bool)>| needles.iter().map(|(n, _)| n.len()).min();
        match self {
            Self::Any => None,
            Self::Text(text, exact) => Some(vec![(text, *exact)]),
            Self::All(parts) => parts.iter().filter_map(Self::needles).max_by_key(shortest),
            Self::One(parts) => {
                let parts: Option<Vec<_>> = parts.iter().map(Self::needles).collect();
                parts.map(|parts| parts.into_iter().flatten().collect())
            }
        }
    }
}

/// The one text that matches, folded; whether it matches in just these letters. None where it is not
/// one alone.
fn text(hir: &Hir) -> Option<(Vec<u8>, bool)> {
    match hir.kind() {
        HirKind::Empty => Some((Vec::new(), true)),
        HirKind::Literal(literal) => {
            let mut folded = Vec::new();
            fold(&literal.0, &mut folded);
            let exact = *folded == *literal.0;
            Some((folded, exact))
        }
        HirKind::Capture(capture) => text(&capture.sub),
        HirKind::Concat(parts) => {
            let mut all = (Vec::new(), true);
            for part in parts {
                let (more, exact) = text(part)?;
                all.0.extend(more);
                all.1 &= exact;
            }
            Some(all)
        }
        HirKind::Class(class) => Some((one_letter(class)?, false)),
        _ => None,
    }
}

/// What all members of a small class are when folded, where that is the same.
fn one_letter(class: &Class) -> Option<Vec<u8>> {
    let mut members: Vec<Vec<u8>> = Vec::new();
    match class {
        Class::Unicode(class) => {
            for range in class.ranges() {
                if range.len() > 4 {
                    return None;
                }
                members.extend((range.start()..=range.end()).map(|c| c.to_string().into_bytes()));
            }
        }
        Class::Bytes(class) => {
            for range in class.ranges() {
                if range.len() > 4 {
                    return None;
                }
                members.extend((range.start()..=range.end()).map(|b| vec![b]));
            }
        }
    }
    let mut letter: Option<Vec<u8>> = None;
    for member in members {
        let mut folded = Vec::new();
        fold(&member, &mut folded);
        if letter.get_or_insert_with(|| folded.clone()) != &folded {
            return None;
        }
    }
    letter
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(pattern: &str) -> Query {
        let parsed = regex_syntax::ParserBuilder::new().utf8(false).build();
        Query::of(&{ parsed }.parse(pattern).unwrap())
    }

    fn has(text: &str) -> Query {
        Query::Text(text.into(), true)
    }

    #[test]
    fn a_pattern_needs_the_texts_that_every_match_has() {
        assert_eq!(query("loss"), has("loss"));
        assert_eq!(query("(?i)Loss"), Query::Text("loss".into(), false));
        assert_eq!(query("NaN"), Query::Text("nan".into(), false));
        assert_eq!(
            query(r"step \d+ (loss|acc)$"),
            Query::All(vec![
                has("step "),
                has(" "),
                Query::One(vec![has("loss"), has("acc")])
            ])
        );
        for anything in ["", ".*", "(abc)?", "abc|.", "[a-z]+", "abc|", "(?i)é"] {
            assert!(!query(anything).is_selective(), "{anything}");
        }
        assert!(query("(abc)+x?").is_selective());
        assert!(!query("abc|de").is_selective());
        assert_eq!(query("a.*longest|b").needles().unwrap().len(), 2);
        let all = query("ab.*longest");
        assert_eq!(all.needles().unwrap(), [(b"longest".as_slice(), true)]);
    }

    #[test]
    fn ranges_come_back_and_nonsense_is_none() {
        let ranges = [4..9, 9..4000];
        assert_eq!(read_ranges(&write_ranges(&ranges)), ranges);
        for nonsense in ["x", "1-2 3", "5-4", "-1-2"] {
            assert_eq!(read_ranges(nonsense), [], "{nonsense}");
        }
        assert!(has("abc").may_be_in(&[0; 3]), "no index of ours");
    }

    #[test]
    fn what_is_not_there_is_nearly_always_ruled_out() {
        let mut builder = Builder::default();
        for n in 0..20_000u32 {
            let word = n.wrapping_mul(2_654_435_761);
            builder.add(format!("step {n} of trainer {word:x}: loss 0.{word}").as_bytes());
        }
        let index = builder.finish();
        assert!(index.len() <= 1 << 16, "{}", index.len());
        assert!(query("(?i)TRAINER .*: LOSS").may_be_in(&index));
        for absent in ["CUDA out of memory", "Traceback", "nccl", "ECC error"] {
            assert!(!query(absent).may_be_in(&index), "{absent}");
        }
        assert!(
            builder.finish().iter().all(|b| *b == 0),
            "it is empty again"
        );
    }
}
