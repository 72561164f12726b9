//! Lines that show a program at work: steps, epochs, progress bars.
//!
//! They matter only after something went wrong: a program that goes on has recovered from it.

use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder};

/// How far the program says it is. Two equal ones are the same line printed twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress(Vec<u8>);

static STEP: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let step = r#"(?i)(?:^|[^a-z])(?:global_?step|step|steps|iter|iters|iteration|epoch|batch|it)s?['"]?[ \]:=/#\[\(]{0,4}(\d+(?:/\d+)?)"#;
    let bar = r"(\d{1,3}%\|[^|]{0,200}\| *\d+/\d+)";
    let count = r"^ *(\d+/\d+) \[[=>. -]+\]";
    RegexBuilder::new(&format!("{step}|{bar}|{count}"))
        .unicode(false)
        .build()
        .ok()
});

/// What the line says of the program's progress. A summary that is printed at the end, such as that of
/// Weights & Biases, is none.
pub(super) fn of(text: &[u8]) -> Option<Progress> {
    let start = text.trim_ascii_start();
    if start.starts_with(b"wandb:") || start.starts_with(b"mlflow") {
        return None;
    }
    let captures = STEP.as_ref()?.captures(text)?;
    let found = captures.iter().skip(1).flatten().next()?;
    Some(Progress(found.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_bars_are_progress_and_other_numbers_are_none() {
        for (line, expected) in [
            ("step 12 loss 0.3", Some("12")),
            ("[Epoch 3/10] loss=0.1", Some("3/10")),
            ("iter: 100, loss: 3", Some("100")),
            ("{'loss': 0.3, 'epoch': 1.2}", Some("1")),
            ("global_step=77", Some("77")),
            (
                " 12%|###   | 12/100 [00:01<00:10, 3.2it/s]",
                Some("12%|###   | 12/100"),
            ),
            ("32/100 [======>....] - loss: 0.3", Some("32/100")),
            ("wandb: step 12", None),
            ("Connection refused on port 29500", None),
            ("loading 12 files", None),
        ] {
            assert_eq!(
                of(line.as_bytes()),
                expected.map(|e| Progress(e.as_bytes().to_vec())),
                "{line}"
            );
        }
    }
}
