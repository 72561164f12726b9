//! Each case of tests/corpus through `diagnose`: prints the confusion table, and fails where the classes
//! are found too seldom or a user's error would be retried.

mod case;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use case::Case;
use trainyard::api::{FailureAction, FailureClass};

/// What `diagnose` says of a case.
struct Verdict {
    class: FailureClass,
    rule: String,
    retry: bool,
    rank: Option<i32>,
    line: String,
}

/// TRAINYARD_CORPUS names another folder of cases, such as one that stays private.
fn folder() -> PathBuf {
    std::env::var_os("TRAINYARD_CORPUS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus"),
        PathBuf::from,
    )
}

fn cases() -> Vec<Case> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("case.yaml").exists())
        .collect();
    folders.sort();
    folders.into_iter().map(|f| Case::read(&f)).collect()
}

fn judge(case: &Case) -> Verdict {
    let found = case.diagnose();
    Verdict {
        class: found.as_ref().map_or(FailureClass::Unknown, |d| d.class),
        rule: found
            .as_ref()
            .and_then(|d| d.rule.clone())
            .unwrap_or_else(|| "-".into()),
        retry: found
            .as_ref()
            .is_some_and(|d| d.policy.action != FailureAction::Fail),
        rank: found.as_ref().and_then(|d| d.root_cause.rank),
        line: found.map(|d| d.root_cause.message).unwrap_or_default(),
    }
}

#[test]
fn the_classes_of_the_corpus_are_found() {
    let cases = cases();
    let mut table: BTreeMap<FailureClass, BTreeMap<FailureClass, usize>> = BTreeMap::new();
    let mut retried_user_errors = Vec::new();
    let (mut lines, mut right_lines, mut ranks, mut right_ranks, mut right_retries) =
        (0, 0, 0, 0, 0);
    for case in &cases {
        let said = judge(case);
        let expected = &case.expect;
        let fine = expected.unknown_is_fine && said.class == FailureClass::Unknown;
        let class = if fine { expected.class } else { said.class };
        *table
            .entry(expected.class)
            .or_default()
            .entry(class)
            .or_default() += 1;
        let mut wrong = Vec::new();
        if class != expected.class {
            wrong.push(format!("class {} ({})", said.class, said.rule));
        }
        if said.retry == expected.retry || fine {
            right_retries += 1;
        } else {
            wrong.push(format!("retry {}", said.retry));
        }
        if let Some(rank) = expected.rank {
            ranks += 1;
            if said.rank == Some(rank) {
                right_ranks += 1;
            } else {
                wrong.push(format!("rank {:?}", said.rank));
            }
        }
        if let Some(line) = &expected.line {
            lines += 1;
            if case::same_line(line, &said.line) {
                right_lines += 1;
            } else {
                wrong.push(format!("line {:?}", said.line));
            }
        }
        let retryable = said.retry && said.class != FailureClass::Unknown;
        let told_apart = expected.looks_like != Some(said.class);
        if expected.class == FailureClass::UserError && retryable && told_apart {
            retried_user_errors.push(case.name.clone());
        }
        if !wrong.is_empty() {
            println!(
                "{}: expected {:?}; {}",
                case.name,
                expected,
                wrong.join(", ")
            );
        }
    }
    let f1 = print(&table);
    println!(
        "{} cases: retry {right_retries} right, rank {right_ranks} of {ranks}, line {right_lines} of {lines}; macro-F1 {f1:.4}",
        cases.len()
    );
    assert!(
        retried_user_errors.is_empty(),
        "would be retried: {retried_user_errors:?}"
    );
    assert!(f1 >= 0.97, "macro-F1 is {f1:.4}, and must be 0.97");
}

/// Prints the confusion table and returns the mean of the classes' F1.
fn print(table: &BTreeMap<FailureClass, BTreeMap<FailureClass, usize>>) -> f64 {
    let said: BTreeSet<FailureClass> = table.values().flat_map(|row| row.keys().copied()).collect();
    let all: BTreeSet<FailureClass> = said.iter().copied().chain(table.keys().copied()).collect();
    println!("\nexpected \\ said, recall; precision below");
    let short = |class: &FailureClass| class.to_string().chars().take(9).collect::<String>();
    print!("{:16}", "");
    for class in &said {
        print!(" {:>9}", short(class));
    }
    println!();
    let cell = |row: &FailureClass, column: &FailureClass| {
        table
            .get(row)
            .and_then(|r| r.get(column))
            .copied()
            .unwrap_or(0)
    };
    let mut scores = Vec::new();
    for row in &all {
        let total: usize = all.iter().map(|c| cell(row, c)).sum();
        let called: usize = all.iter().map(|r| cell(r, row)).sum();
        let right = cell(row, row);
        if total > 0 {
            #[allow(clippy::cast_precision_loss)]
            scores.push(2.0 * right as f64 / (total + called) as f64);
            print!("{:16}", row.to_string());
            for column in &said {
                match cell(row, column) {
                    0 => print!(" {:>9}", "."),
                    n => print!(" {n:>9}"),
                }
            }
            println!("  {right}/{total}");
        }
    }
    #[allow(clippy::cast_precision_loss)]
    let mean = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
    mean
}
