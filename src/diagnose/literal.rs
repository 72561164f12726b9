//! Which texts a line must contain before a regular expression can match it.
//!
//! Some hundred patterns are far too many to try on each line of a log. Nearly all of them can only
//! match a line that contains one of a few literals, so one Aho-Corasick pass over the line says which
//! patterns are worth trying, and on most lines none is.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Shorter texts are in too many lines to sort anything out.
const MIN: usize = 3;
/// More alternatives than this would make the automaton large.
const MAX: usize = 64;

/// Texts of which a line that matches `pattern` has at least one, in any mix of upper and lower case;
/// None where no such texts are known.
pub(super) fn required(pattern: &str, unicode: bool) -> Option<Vec<Vec<u8>>> {
    let hir = regex_syntax::ParserBuilder::new()
        .unicode(unicode)
        .utf8(false)
        .build()
        .parse(pattern)
        .ok()?;
    of(&hir).filter(|found| found.len() <= MAX)
}

fn of(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    match hir.kind() {
        HirKind::Literal(literal) => long_enough(literal.0.to_ascii_lowercase()),
        HirKind::Capture(capture) => of(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min >= 1 => of(&repetition.sub),
        HirKind::Concat(parts) => concat(parts),
        HirKind::Alternation(parts) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(of(part)?);
            }
            all.sort();
            all.dedup();
            Some(all)
        }
        _ => None,
    }
}

/// The best part of a sequence: the one whose shortest text is longest. Single characters in both
/// cases, as `(?i)` makes them, join their neighbours.
fn concat(parts: &[Hir]) -> Option<Vec<Vec<u8>>> {
    let mut best: Option<Vec<Vec<u8>>> = None;
    let mut better = |found: Option<Vec<Vec<u8>>>| {
        let Some(found) = found.filter(|f| f.len() <= MAX) else {
            return;
        };
        if best.as_ref().is_none_or(|b| worth(&found) > worth(b)) {
            best = Some(found);
        }
    };
    let mut run = Vec::new();
    for part in parts {
        if let Some(text) = letter(part) {
            run.extend(text);
        } else {
            better(long_enough(std::mem::take(&mut run)));
            better(of(part));
        }
    }
    better(long_enough(run));
    best
}

/// A fixed text of a sequence, in lower case.
fn letter(hir: &Hir) -> Option<Vec<u8>> {
    match hir.kind() {
        HirKind::Literal(literal) => Some(literal.0.to_ascii_lowercase()),
        HirKind::Class(Class::Bytes(class)) => both_cases(
            class
                .iter()
                .map(|r| (u32::from(r.start()), u32::from(r.end()))),
        ),
        HirKind::Class(Class::Unicode(class)) => both_cases(
            class
                .iter()
                .map(|r| (u32::from(r.start()), u32::from(r.end()))),
        ),
        _ => None,
    }
}

/// `[Aa]` → a. Other characters that Unicode takes for the same (the Kelvin sign) make it no letter.
fn both_cases(ranges: impl Iterator<Item = (u32, u32)>) -> Option<Vec<u8>> {
    let mut found = None;
    for (start, end) in ranges {
        let letter = u8::try_from(start).ok()?.to_ascii_lowercase();
        if start != end || found.is_some_and(|f| f != letter) {
            return None;
        }
        found = Some(letter);
    }
    found.map(|l| vec![l])
}

fn long_enough(text: Vec<u8>) -> Option<Vec<Vec<u8>>> {
    (text.len() >= MIN).then(|| vec![text])
}

fn worth(texts: &[Vec<u8>]) -> (usize, std::cmp::Reverse<usize>) {
    let shortest = texts.iter().map(Vec::len).min().unwrap_or(0);
    (shortest.min(12), std::cmp::Reverse(texts.len()))
}

#[cfg(test)]
mod tests {
    use super::required;

    fn texts(pattern: &str) -> Option<Vec<String>> {
        let found = required(pattern, false)?;
        Some(
            found
                .into_iter()
                .map(|t| String::from_utf8(t).unwrap())
                .collect(),
        )
    }

    #[test]
    fn a_match_contains_what_is_required() {
        for (pattern, expected) in [
            ("CUDA out of memory", Some(vec!["cuda out of memory"])),
            (r"^(foo|barbaz): \d+", Some(vec!["barbaz", "foo"])),
            (r"(?i)nccl warn .*timeout", Some(vec!["nccl warn "])),
            (r"\[Errno 5\] .*'(.*)'", Some(vec!["[errno 5] "])),
            (r"(abc)?def+", Some(vec!["def"])),
            (r"\d+ at \w+", Some(vec![" at "])),
            (r"a|longer", None),
            (r".*", None),
        ] {
            let expected = expected.map(|e| e.into_iter().map(str::to_owned).collect::<Vec<_>>());
            let mut found = texts(pattern);
            if let Some(f) = &mut found {
                f.sort();
            }
            if pattern == "(abc)?def+" {
                // "de" and a repeated "f": too short to be worth anything.
                assert_eq!(found, None, "{pattern}");
            } else {
                assert_eq!(found, expected, "{pattern}");
            }
        }
    }
}
