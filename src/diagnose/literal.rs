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
/// Most texts that a sequence of parts is spelt out into.
const JOINED: usize = 16;
/// Words of lines in which all is well.
const COMMON: [&[u8]; 16] = [
    b"loss",
    b"grad_norm",
    b"error rate",
    b"gradient",
    b"samples",
    b"training",
    b"epoch",
    b"steps",
    b"info",
    b"time",
    b"validation",
    b"learning rate",
    b"batches",
    b"checkpoint",
    b"0 failed ",
    b"://",
];

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
        HirKind::Literal(_) => long_enough(&exact(hir)?),
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

/// The best part of a sequence: the one whose shortest text is longest. Neighbours of which all texts
/// are known are taken together.
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
    let mut run: Vec<Vec<u8>> = vec![Vec::new()];
    for part in parts {
        match exact(part).and_then(|texts| joined(&run, &texts)) {
            Some(longer) => run = longer,
            None => {
                better(long_enough(&run));
                run = exact(part).unwrap_or_else(|| vec![Vec::new()]);
                better(of(part));
            }
        }
    }
    better(long_enough(&run));
    best
}

/// All texts that `hir` can match, in lower case, where they are few.
fn exact(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    let found = match hir.kind() {
        HirKind::Literal(literal) => vec![literal.0.to_ascii_lowercase()],
        HirKind::Class(Class::Bytes(class)) => letters(
            class
                .iter()
                .map(|r| (u32::from(r.start()), u32::from(r.end()))),
        )?,
        HirKind::Class(Class::Unicode(class)) => letters(
            class
                .iter()
                .map(|r| (u32::from(r.start()), u32::from(r.end()))),
        )?,
        HirKind::Capture(capture) => exact(&capture.sub)?,
        HirKind::Repetition(r) if r.min == 0 && r.max == Some(1) => {
            let mut texts = exact(&r.sub)?;
            texts.push(Vec::new());
            texts
        }
        HirKind::Concat(parts) => parts
            .iter()
            .try_fold(vec![Vec::new()], |run, part| joined(&run, &exact(part)?))?,
        HirKind::Alternation(parts) => {
            let mut texts = Vec::new();
            for part in parts {
                texts.extend(exact(part)?);
            }
            texts
        }
        _ => return None,
    };
    (found.len() <= JOINED).then_some(found)
}

/// Each of `run` with each of `texts` behind it.
fn joined(run: &[Vec<u8>], texts: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    if run.len() * texts.len() > JOINED {
        return None;
    }
    let mut all: Vec<Vec<u8>> = run
        .iter()
        .flat_map(|start| texts.iter().map(|end| [start.as_slice(), end].concat()))
        .collect();
    all.sort();
    all.dedup();
    Some(all)
}

/// `[Aa]` → a. Other characters that Unicode takes for the same (the Kelvin sign) make it no letter.
fn letters(ranges: impl Iterator<Item = (u32, u32)>) -> Option<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for (start, end) in ranges {
        if end - start > 3 {
            return None;
        }
        for letter in start..=end {
            let letter = u8::try_from(letter).ok().filter(u8::is_ascii)?;
            found.push(vec![letter.to_ascii_lowercase()]);
        }
    }
    found.sort();
    found.dedup();
    (!found.is_empty() && found.len() <= 4).then_some(found)
}

fn long_enough(texts: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    let fine = texts.len() <= MAX && texts.iter().all(|t| t.len() >= MIN);
    fine.then(|| texts.to_vec())
}

fn worth(texts: &[Vec<u8>]) -> (bool, usize, std::cmp::Reverse<usize>) {
    let shortest = texts.iter().map(Vec::len).min().unwrap_or(0);
    let rare = !texts.iter().any(|t| common(t));
    (rare, shortest.min(12), std::cmp::Reverse(texts.len()))
}

/// Whether lines of a training in good health are full of it.
fn common(text: &[u8]) -> bool {
    COMMON
        .iter()
        .any(|word| memchr::memmem::find(word, text).is_some())
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
            (r"^(foo|barbaz): \d+", Some(vec!["barbaz: ", "foo: "])),
            (r"(?i)nccl warn .*timeout", Some(vec!["nccl warn "])),
            (r"\[Errno 5\] .*'(.*)'", Some(vec!["[errno 5] "])),
            (r"(abc)?def+", None),
            (
                r"x (?i:timed out|timeout)\b",
                Some(vec!["x timed out", "x timeout"]),
            ),
            (r"loss.*(?:stop|abort)", Some(vec!["abort", "stop"])),
            (
                r"[Nn]o (?:room|space)? left",
                Some(vec!["no  left", "no room left", "no space left"]),
            ),
            (r"\d+ at \w+", Some(vec![" at "])),
            (r"a|longer", None),
            (r".*", None),
        ] {
            let expected = expected.map(|e| e.into_iter().map(str::to_owned).collect::<Vec<_>>());
            let mut found = texts(pattern);
            if let Some(f) = &mut found {
                f.sort();
            }
            assert_eq!(found, expected, "{pattern}");
        }
    }
}
