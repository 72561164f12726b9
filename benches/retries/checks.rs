//! Before anything is measured: does the replay do what it says?

use trainyard::{
    api::FailureClass,
    diagnose::{RankEvidence, RuleBook},
    plan::{Effect, Observed, Phase, TailAnswer, plan},
};

use crate::{
    dice::Dice,
    evidence::{Evidence, Stage, at, pod},
    policies::{LIMIT, Policy},
    replay::Replay,
    tables::Hint,
    texts::Library,
    trainyard::{Template, Trainyard},
    world::{Sweep, World},
};

const HOPELESS: Sweep = Sweep {
    helps: 0.0,
    sticks: 0.0,
};

/// Panics where something is wrong.
pub fn run(worlds: &[World]) {
    for world in worlds {
        simple_policies(world);
        same_luck(world);
        sticking(world);
    }
    by_hand(&worlds[0]);
    eprintln!("the replay's own checks passed");
}

/// A fault that no retry fixes costs none: one attempt; blind: four.
fn simple_policies(world: &World) {
    let mut replay = Replay::new(world);
    for (cause, published) in world.source.causes.iter().enumerate() {
        let job = world.failing(cause, [1, cause as u64], &mut Dice::of(&[cause as u64]));
        let hopeless = published.hint == Hint::Deterministic;
        assert_eq!(job.hopeless(world), hopeless);
        let none = replay.job(Policy::None, &job, HOPELESS);
        assert_eq!((none.attempts, none.failed), (1, true));
        let blind = replay.job(Policy::Blind, &job, HOPELESS);
        if published.hint != Hint::Ambiguous {
            assert_eq!((blind.attempts, blind.useless), (1 + LIMIT, LIMIT));
            assert!(blind.failed);
        }
        let code = replay.job(Policy::ExitCode, &job, HOPELESS);
        assert!((1..=1 + LIMIT).contains(&code.attempts));
        let ours = replay.job(Policy::Trainyard, &job, HOPELESS);
        assert!(ours.failed || published.hint == Hint::Ambiguous);
        assert!(ours.attempts <= 51, "a ceiling for every class");
    }
}

/// The same seed is the same everywhere; a story that is not replayed anew is what it would be anew.
fn same_luck(world: &World) {
    let sweeps = [(0.3, 0.0), (0.6, 0.5), (0.9, 0.5), (1.0, 0.0)]
        .map(|(helps, sticks)| Sweep { helps, sticks });
    for seed in 0..5 {
        let together = Replay::new(world).seed(seed, &sweeps);
        let apart: Vec<_> = sweeps
            .iter()
            .flat_map(|sweep| Replay::new(world).seed(seed, &[*sweep]))
            .collect();
        assert_eq!(format!("{together:?}"), format!("{apart:?}"));
        let sure = together.last().expect("a row");
        assert!(
            sure[1].failed <= sure[0].failed,
            "a retry harms nobody's verdict"
        );
    }
}

/// A fault that sticks to its node is gone on another, and stays where there is no other.
fn sticking(world: &World) {
    let Some(cause) = world
        .source
        .causes
        .iter()
        .position(|c| c.hint == Hint::Node)
    else {
        return;
    };
    let sweep = Sweep {
        helps: 1.0,
        sticks: 1.0,
    };
    let job = world.failing(cause, [3, 3], &mut Dice::of(&[3]));
    let mut life = job.live(world, sweep);
    life.place(&[]);
    let fault = life.run().fault.expect("the first attempt fails");
    let bad = life.nodes[fault.rank];
    let mut again = 0;
    for _ in 0..50 {
        life.place(&[]);
        let there = life.nodes.contains(&bad);
        let ending = life.run();
        assert_eq!(
            ending.repeated, there,
            "it fails again where, and only where, it runs there again"
        );
        if ending.fault.is_none() || !ending.repeated {
            break;
        }
        again += 1;
    }
    assert!(again < 50, "other nodes are free at times");
}

/// The driver decides what [`plan`] decides when it is driven by hand, for every text of a source.
fn by_hand(world: &World) {
    let library: &Library = world.library;
    for cause in 0..world.source.causes.len() {
        let job = world.failing(cause, [5, cause as u64], &mut Dice::of(&[9, cause as u64]));
        let mut life = job.live(world, HOPELESS);
        life.place(&[]);
        let fault = life.run().fault.expect("the first attempt fails");
        if library.texts[fault.text].silent {
            continue;
        }
        let stage = Stage {
            attempt: 1,
            nodes: &life.nodes,
            started: 0,
        };
        let show = || Evidence::of(&fault, &stage, 900, library, &mut life.evidence_dice());

        let mut driven = Trainyard::new(&Template::new(), job.nodes, job.gpus, "u".into());
        let mut bare = driven.job_and_surroundings();
        driven.start(&life.nodes, 0);
        let verdict = driven.fail(show());

        let (hand, seen) = (&mut bare.0, &mut bare.1);
        seen.pods = (0..job.nodes).map(|r| pod(&stage, r)).collect();
        hand.status = plan(hand, seen, at(0)).record.map(|r| r.status);
        let evidence = show();
        let failed: Vec<usize> = (0..job.nodes)
            .filter(|&r| evidence.pods[r].phase == Phase::Failed)
            .collect();
        read(seen, &evidence, 0..job.nodes);
        seen.pods = evidence.pods;
        let now = if plan(hand, seen, at(905)).record.is_some() {
            905
        } else {
            910
        };
        let last = plan(hand, seen, at(now));
        assert!(
            !last.effects.iter().any(|e| matches!(e, Effect::Ask(_))),
            "all has been read: {failed:?}"
        );
        let status = last.record.expect("a verdict").status;
        let (is, should) = (
            driven.status().attempts[0].clone(),
            status.attempts[0].clone(),
        );
        assert_eq!(
            (is.class, is.decision, is.root_cause),
            (should.class, should.decision, should.root_cause)
        );
        assert_eq!(verdict.again.is_none(), status.finished());
    }
}

fn read(seen: &mut Observed, evidence: &Evidence, ranks: std::ops::Range<usize>) {
    seen.answers.failure_seen = Some(at(905));
    let nodes = evidence.nodes.iter();
    seen.answers.nodes = nodes.map(|(n, f)| (n.clone(), Some(f.clone()))).collect();
    for rank in ranks {
        let answer = TailAnswer {
            tail: Some(evidence.tails[rank].clone()),
            ended: true,
        };
        seen.answers
            .tails
            .insert(i32::try_from(rank).unwrap_or_default(), answer);
    }
}

/// What diagnose says of each text alone, on one node: a blind test of its rules. Texts that are wrong,
/// with what was found and what is right.
pub fn blind_test(library: &Library) -> (usize, Vec<(String, FailureClass, Vec<FailureClass>)>) {
    let book = RuleBook::new(&[]).0;
    let mut wrong = Vec::new();
    for (index, text) in library.texts.iter().enumerate() {
        if text.silent {
            continue;
        }
        for variant in 0..2 {
            let stage = Stage {
                attempt: 1,
                nodes: &[7],
                started: 0,
            };
            let fault = crate::world::Fault::plain(index, variant);
            let evidence = Evidence::of(&fault, &stage, 900, library, &mut Dice::of(&[1]));
            let rank = RankEvidence {
                tail: Some(&evidence.tails[0]),
                node: evidence.nodes.get("gpu-7"),
                ..RankEvidence::of(&evidence.pods[0])
            };
            let Some(found) = trainyard::diagnose::failure(&[rank], &book) else {
                continue;
            };
            if !text.right.contains(&found.class) {
                let how = if variant == 1 {
                    " (under its launcher)"
                } else {
                    ""
                };
                wrong.push((format!("{}{how}", text.id), found.class, text.right.clone()));
            }
        }
    }
    (library.texts.len() * 2, wrong)
}
