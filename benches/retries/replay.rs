//! One job under one policy, from its first attempt to its end.

use std::collections::BTreeMap;

use trainyard::api::FailureClass;

use crate::{
    evidence::{Evidence, Stage},
    policies::Policy,
    tables::Hint,
    tally::{Row, Tally},
    trainyard::{Template, Trainyard, Verdict},
    world::{Ending, Fault, Holds, Job, Life, SILENCE, Sweep, World},
};

/// How often diagnose found a class and blamed a rank, by text.
#[derive(Debug, Default)]
pub struct Judged {
    /// By cause, text and class.
    pub classes: BTreeMap<(usize, usize, FailureClass), u64>,
    /// Failures of gangs of several nodes where one rank was to blame.
    pub gangs: u64,
    /// Of these, those where that rank was blamed.
    pub right_rank: u64,
    /// Deterministic failures, and of these those that were retried.
    pub hopeless: [u64; 2],
    /// First failures that a retry might have mended, and of these those that were not retried.
    pub mendable: [u64; 2],
}

/// Jobs under all policies.
pub struct Replay<'a> {
    /// Where they live.
    pub world: &'a World<'a>,
    /// What trainyard's jobs are made from.
    pub template: Template,
    /// What diagnose said.
    pub judged: Judged,
}

/// What happened to a job.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// It ended failed.
    pub failed: bool,
    /// Its attempts.
    pub attempts: i32,
    /// Attempts that failed of the fault before.
    pub useless: i32,
    /// A node was to be avoided.
    avoided: bool,
    /// Where in the sweep it goes this way.
    holds: Option<Holds>,
    lost: f64,
    useless_lost: f64,
    weight: f64,
    verdict: f64,
}

impl<'a> Replay<'a> {
    /// Nothing has been replayed yet.
    pub fn new(world: &'a World<'a>) -> Self {
        Self {
            world,
            template: Template::new(),
            judged: Judged::default(),
        }
    }

    /// The jobs of a seed under every policy, at each point of the sweep. A story that goes the same way at
    /// several points is replayed once.
    pub fn seed(&mut self, seed: u64, sweeps: &[Sweep]) -> Vec<Row> {
        let mut rows = vec![Row::default(); sweeps.len()];
        for index in 0..self.world.source.assumed.jobs {
            let job = self.world.job(seed, index);
            let hopeless = job.as_ref().is_some_and(|j| j.hopeless(self.world));
            let mut known: [Vec<Story>; 5] = Default::default();
            for (sweep, row) in sweeps.iter().zip(&mut rows) {
                for tally in row.iter_mut() {
                    tally.jobs += 1.0;
                    tally.fixable += f64::from(!hopeless);
                }
                let Some(job) = &job else { continue };
                // The last one first: where nothing was avoided, the other trainyard's story is the same.
                for (i, policy) in Policy::ALL.into_iter().enumerate().rev() {
                    let same = |s: &&Story| s.holds.is_some_and(|h| h.at(*sweep));
                    let twin = known[4].iter().find(|s| same(s) && !s.avoided);
                    let twin = twin.filter(|_| policy == Policy::Trainyard);
                    let story = match known[i].iter().find(same).or(twin) {
                        Some(story) => story.clone(),
                        None => self.job(policy, job, *sweep),
                    };
                    count(&mut row[i], &story, hopeless);
                    if !known[i].iter().any(|s| same(&s)) {
                        known[i].push(story);
                    }
                }
            }
        }
        rows
    }

    /// One job under one policy.
    pub fn job(&mut self, policy: Policy, job: &Job, sweep: Sweep) -> Story {
        let mut life = job.live(self.world, sweep);
        let story = match policy {
            Policy::Trainyard | Policy::Avoiding => self.classified(policy, job, &mut life),
            _ => self.simple(policy, job, &mut life),
        };
        Story {
            holds: Some(life.holds),
            ..story
        }
    }

    fn simple(&self, policy: Policy, job: &Job, life: &mut Life) -> Story {
        let mut story = Story::default();
        let mut clock = Clock::default();
        loop {
            life.place(&[]);
            let ending = life.run();
            let Some(fault) = story.ran(&ending, job, &mut clock) else {
                return story;
            };
            let evidence = self.evidence(&fault, life, story.attempts, &clock);
            let decided = clock.now + if evidence.silent { SILENCE } else { 5 };
            let Some(wait) = policy.simple(&evidence, story.attempts - 1) else {
                return story.over(&clock, decided);
            };
            clock.started = decided + wait;
        }
    }

    fn classified(&mut self, policy: Policy, job: &Job, life: &mut Life) -> Story {
        let mut story = Story::default();
        let mut clock = Clock::default();
        let uid = job.uid();
        let mut trainyard = Trainyard::new(&self.template, job.nodes, job.gpus, uid);
        let mut avoided = Vec::new();
        loop {
            life.place(if policy == Policy::Avoiding {
                &avoided
            } else {
                &[]
            });
            trainyard.start(&life.nodes, clock.started);
            let number = trainyard.attempt();
            let ending = life.run();
            let Some(fault) = story.ran(&ending, job, &mut clock) else {
                trainyard.succeed(clock.now);
                return story;
            };
            let verdict = trainyard.fail(self.evidence(&fault, life, number, &clock));
            if policy == Policy::Avoiding {
                self.judge(&fault, job, &verdict, story.attempts == 1);
            }
            let Some(again) = verdict.again else {
                return story.over(&clock, verdict.decided);
            };
            clock.started = again;
            avoided = verdict.avoided;
            story.avoided |= !avoided.is_empty();
        }
    }

    fn evidence(&self, fault: &Fault, life: &Life, attempt: i32, clock: &Clock) -> Evidence {
        let stage = Stage {
            attempt,
            nodes: &life.nodes,
            started: clock.started,
        };
        let dice = &mut life.evidence_dice();
        Evidence::of(fault, &stage, clock.now, self.world.library, dice)
    }

    /// Keeps what diagnose said; of one of the two trainyards, for they see the same.
    fn judge(&mut self, fault: &Fault, job: &Job, verdict: &Verdict, first: bool) {
        let judged = &mut self.judged;
        let key = (fault.cause, fault.text, verdict.class);
        *judged.classes.entry(key).or_default() += 1;
        if self.world.source.causes[fault.cause].hint == Hint::Deterministic {
            judged.hopeless[0] += 1;
            judged.hopeless[1] += u64::from(verdict.again.is_some());
        } else if first {
            judged.mendable[0] += 1;
            judged.mendable[1] += u64::from(verdict.again.is_none());
        }
        let text = &self.world.library.texts[fault.text];
        if job.nodes > 1 && !text.everywhere && !text.silent {
            judged.gangs += 1;
            let right = verdict.rank.and_then(|r| usize::try_from(r).ok()) == Some(fault.rank);
            judged.right_rank += u64::from(right);
        }
    }
}

/// Simulated seconds.
#[derive(Debug, Default)]
struct Clock {
    started: i64,
    now: i64,
    first_failure: Option<i64>,
}

impl Story {
    /// Another attempt ran; what it failed of.
    fn ran(&mut self, ending: &Ending, job: &Job, clock: &mut Clock) -> Option<Fault> {
        let gpus = f64::from(job.gpus);
        self.attempts += 1;
        clock.now = clock.started + (ending.hours * 3600.0) as i64;
        let fault = ending.fault?;
        if clock.first_failure.is_none() {
            clock.first_failure = Some(clock.now);
            self.weight = ending.hours * gpus;
        }
        self.lost += ending.lost * gpus;
        if ending.repeated {
            self.useless += 1;
            self.useless_lost += ending.lost * gpus;
        }
        Some(fault)
    }

    /// The job has failed for good.
    fn over(mut self, clock: &Clock, decided: i64) -> Self {
        self.failed = true;
        let first = clock.first_failure.unwrap_or(decided);
        self.verdict = (decided - first) as f64 / 3600.0;
        self
    }
}

fn count(tally: &mut Tally, story: &Story, hopeless: bool) {
    tally.restarts += f64::from(story.attempts - 1);
    tally.useless += f64::from(story.useless);
    tally.lost += story.lost;
    tally.useless_lost += story.useless_lost;
    if story.failed {
        tally.failed += 1.0;
        tally.fixable_failed += f64::from(!hopeless);
        tally.failed_weight += story.weight;
        tally.verdict += story.verdict;
    }
}
