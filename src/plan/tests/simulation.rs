//! The planner in a small world where everything goes wrong: seeded, so that a failure can be
//! repeated (`SIMULATION_SEED=n`), and checked after every step (`SIMULATION_RUNS=20000` for a night).

use std::collections::BTreeSet;

use serde_json::json;

use super::builders::{Scene, at, job, pod};
use crate::{
    api::MAX_LEDGER,
    plan::{Answers, Effect, Phase, PodFacts, plan},
};

/// splitmix64: enough to choose what happens next.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let n = u64::try_from(from.len()).unwrap();
        (n > 0).then(|| from[usize::try_from(self.below(n)).unwrap()])
    }
}

struct World {
    dice: Dice,
    now: i64,
    scene: Scene,
    /// The pods that exist.
    pods: Vec<PodFacts>,
    /// Pods whose creation went through but was not answered, and that no watch has shown yet.
    unseen: BTreeSet<(i32, i32)>,
    /// All pods that have ever existed.
    ever: BTreeSet<(i32, i32)>,
    /// Pods that have ended with 0 without anyone asking them to.
    honest: BTreeSet<(i32, i32)>,
    /// Uids on nodes that never answer again.
    dead: BTreeSet<String>,
    history: Vec<String>,
    /// No request fails any more.
    calm: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let nodes = i32::try_from(1 + dice.below(3)).unwrap();
        let mut spec = json!({
            "backoffLimit": dice.below(6),
            "failurePolicy": {"backoffBaseSeconds": dice.below(30)},
            "suspend": dice.below(5) == 0,
        });
        if dice.below(4) == 0 {
            spec["activeDeadlineSeconds"] = json!(200 + dice.below(400));
        }
        if dice.below(4) == 0 {
            spec["startDeadlineSeconds"] = json!(30 + dice.below(90));
        }
        if dice.below(4) == 0 {
            spec["progressTimeoutSeconds"] = json!(30 + dice.below(300));
        }
        Self {
            dice,
            now: 0,
            scene: Scene::new(job(nodes, spec)),
            pods: vec![],
            unseen: BTreeSet::new(),
            ever: BTreeSet::new(),
            honest: BTreeSet::new(),
            dead: BTreeSet::new(),
            history: vec![],
            calm: false,
        }
    }

    fn finished(&self) -> bool {
        self.scene.job.status.as_ref().is_some_and(|s| s.finished())
    }

    /// Someone or something does something.
    fn happen(&mut self, chaos: bool) {
        let end = self.dice.below(3);
        let living: Vec<usize> = (0..self.pods.len())
            .filter(|&i| !self.pods[i].terminal() && !self.dead.contains(&self.pods[i].uid))
            .collect();
        let one = self.dice.pick(&living);
        match (self.dice.below(if chaos { 12 } else { 5 }), one) {
            (0, _) => self.now += 1 + i64::try_from(self.dice.below(40)).unwrap(),
            (1 | 2, Some(i)) if self.pods[i].phase == Phase::Pending => {
                self.pods[i] = self.pods[i].clone().running();
            }
            (1..=3, Some(i)) => self.end(i, end == 0),
            // The API server lets go of a pod that was deleted and has ended.
            (4, _) => self.pods.retain(|p| p.deletion.is_none() || !p.terminal()),
            (5, _) => {
                // The operator restarts: it forgets what it did and sees what is there.
                self.scene.seen.opened_here = false;
                self.scene.seen.created.clear();
                self.scene.seen.answers = Answers::default();
                self.unseen.clear();
            }
            (6, _) => self.scene.job.spec.suspend ^= true,
            (7, _) => self.show(),
            (8, Some(i)) if !self.hidden(i) => self.delete(i),
            (9, Some(i)) if !self.hidden(i) => {
                // Its node is lost; later the node controller deletes it, and nobody answers.
                self.dead.insert(self.pods[i].uid.clone());
                self.delete(i);
            }
            (10, Some(i)) => {
                self.pods[i] = self.pods[i].clone().disrupted("PreemptionByScheduler", "");
                self.delete(i);
            }
            (11, _) => {
                // Someone removes an ended pod.
                let ended: Vec<usize> = (0..self.pods.len())
                    .filter(|&i| self.pods[i].terminal() && !self.hidden(i))
                    .collect();
                if let Some(i) = self.dice.pick(&ended) {
                    self.pods.remove(i);
                }
            }
            _ => self.now += 1,
        }
    }

    /// The watch shows what was created without an answer. What it has shown once is remembered, or
    /// a pod that comes and goes between two looks would be created a second time.
    fn show(&mut self) {
        let status = self.scene.job.status.as_ref();
        let open = status.and_then(|s| s.open_attempt()).map(|a| a.number);
        for (attempt, rank) in std::mem::take(&mut self.unseen) {
            if Some(attempt) == open {
                self.scene.seen.created.insert(rank);
            }
        }
    }

    fn end(&mut self, i: usize, fails: bool) {
        let pod = self.pods[i].clone();
        let untouched = pod.deletion.is_none() && pod.disruption.is_none();
        if untouched && !fails {
            self.honest.insert((pod.attempt, pod.rank));
        }
        let code = if fails { 1 } else { 0 };
        self.pods[i] = pod.ended(code, "boom", self.now);
    }

    fn delete(&mut self, i: usize) {
        if self.pods[i].deletion.is_none() {
            self.pods[i] = self.pods[i].clone().deleted(self.now);
        }
    }

    fn hidden(&self, i: usize) -> bool {
        self.unseen
            .contains(&(self.pods[i].attempt, self.pods[i].rank))
    }

    /// The operator looks, records and acts until it has nothing more to do.
    fn settle(&mut self) {
        for _ in 0..12 {
            let status = self.scene.job.status.clone().unwrap_or_default();
            let now = at(self.now);
            if status.open_attempt().is_some_and(|a| a.start_time.0 > now) {
                self.scene.seen.opened_here = true; // it vouches: see operator::memory
            }
            self.scene.seen.pods = (0..self.pods.len())
                .filter(|&i| !self.hidden(i))
                .map(|i| self.pods[i].clone())
                .collect();
            let plan = plan(&self.scene.job, &self.scene.seen, now);
            if let [Effect::Ask(question)] = plan.effects.as_slice() {
                self.scene.answer(question.clone(), self.now);
                continue;
            }
            let Some(record) = plan.record else {
                for effect in plan.effects {
                    self.act(effect);
                    if self.calm || self.dice.below(8) > 0 {
                        continue;
                    }
                    return; // the request after this one fails, or the operator does
                }
                self.no_strays(status.open_attempt().map(|a| a.number));
                return;
            };
            assert!(plan.effects.is_empty(), "records and acts");
            let new = record.status;
            let limit = self.scene.job.spec.backoff_limit;
            assert!((status.retries..=limit).contains(&new.retries), "retries");
            assert!(new.retries_ignored >= status.retries_ignored, "ignored");
            assert!(!status.finished(), "a finished job's status was written");
            assert!(new.attempts.len() <= MAX_LEDGER, "ledger");
            let numbers = new.attempts.windows(2);
            assert!(
                numbers.into_iter().all(|w| w[0].number < w[1].number),
                "numbers"
            );
            if new
                .condition("Succeeded")
                .is_some_and(|c| c.status == "True")
            {
                let number = new.attempts.last().unwrap().number;
                let ranks = 0..self.scene.job.spec.num_nodes;
                for rank in ranks {
                    assert!(
                        self.honest.contains(&(number, rank)),
                        "a success that is none"
                    );
                }
            }
            let opened = |s: &crate::api::TrainingJobStatus| s.open_attempt().map(|a| a.number);
            if opened(&new).is_some() && opened(&new) != opened(&status) {
                self.scene.seen.opened_here = true;
                self.scene.seen.created.clear();
                self.scene.seen.answers = Answers::default();
            }
            self.history.push(format!(
                "{}: {:?}",
                self.now,
                new.condition("Succeeded").map(|c| &c.message)
            ));
            let json = serde_json::to_value(&new).unwrap();
            self.scene.job.status = Some(serde_json::from_value(json).unwrap());
        }
        panic!("the planner does not come to rest");
    }

    /// No pod that is known keeps its GPUs beside the open attempt, or after the last.
    fn no_strays(&self, open: Option<i32>) {
        for (i, p) in self.pods.iter().enumerate() {
            let stray = Some(p.attempt) != open && !p.terminal() && p.deletion.is_none();
            assert!(!stray || self.hidden(i), "{} is never stopped", p.name);
        }
    }

    fn act(&mut self, effect: Effect) {
        self.history.push(format!("{}: {effect:?}", self.now));
        match effect {
            Effect::CreatePod { attempt, rank } => {
                for (i, p) in self.pods.iter().enumerate() {
                    let beside = p.attempt != attempt && p.alive(at(self.now));
                    assert!(
                        !beside || self.hidden(i),
                        "two attempts at once: {}",
                        p.name
                    );
                }
                assert!(!self.finished(), "a finished job starts again");
                if self.unseen.contains(&(attempt, rank)) {
                    // It asks again and is told that the pod is there.
                    self.unseen.remove(&(attempt, rank));
                    self.scene.seen.created.insert(rank);
                    return;
                }
                assert!(
                    self.ever.insert((attempt, rank)),
                    "a second pod for {attempt}-{rank}"
                );
                let mut new = pod(attempt, rank);
                new.accepted = Some(at(self.now));
                self.pods.push(new);
                if self.dice.below(4) == 0 {
                    self.unseen.insert((attempt, rank)); // the answer got lost
                } else {
                    self.scene.seen.created.insert(rank);
                }
            }
            Effect::DeletePod { uid, .. } => {
                let i = self.pods.iter().position(|p| p.uid == uid).unwrap();
                self.delete(i);
            }
            Effect::CreateService => {}
            Effect::Ask(_) => panic!("a question among other effects"),
            Effect::DeleteJob => panic!("no ttl is set"),
            Effect::StopPod { .. } | Effect::ReleasePod { .. } => panic!("nobody collects logs"),
        }
    }

    fn live(&mut self) {
        for _ in 0..80 {
            // The operator may be away, or slow, while several things happen.
            for _ in 0..=self.dice.below(4) {
                self.happen(true);
            }
            self.settle();
        }
        // Calm at last: pods end, deletions go through, nobody suspends.
        self.scene.job.spec.suspend = false;
        self.calm = true;
        self.unseen.clear();
        for _ in 0..3000 {
            self.settle();
            if self.finished() {
                return;
            }
            self.happen(false);
        }
        panic!("the job does not end");
    }
}

#[test]
fn whatever_happens_no_job_runs_twice_at_once_or_for_ever_or_succeeds_without_having() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATION_RUNS").unwrap_or(300),
    };
    for seed in seeds {
        let mut world = World::new(seed);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.live()));
        if result.is_err() {
            let tail = world.history.len().saturating_sub(12);
            panic!(
                "SIMULATION_SEED={seed} at {}:\n{}",
                world.now,
                world.history[tail..].join("\n")
            );
        }
    }
}
