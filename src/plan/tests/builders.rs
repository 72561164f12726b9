//! Small jobs, pods and a planner run to its fixpoint.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use crate::{
    api::{RuntimeSnapshot, TrainingJob, TrainingJobStatus, conditions},
    diagnose::{NodeFacts, Tail},
    plan::{
        Answers, Effect, Event, Observed, Phase, Plan, PodFacts, Progress, Question, Reason,
        StartAnswer, TailAnswer, Terminated, Waiting, plan,
    },
};

/// Noon of a day, plus seconds.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

pub(super) fn runtime() -> RuntimeSnapshot {
    serde_json::from_value(serde_json::json!({
        "kind": "ClusterTrainingRuntime", "name": "pytorch", "generation": 4,
        "spec": {"image": "registry.example.com/pytorch:2.6", "launcher": "torchrun"},
    }))
    .unwrap()
}

/// Job `ddp` of `nodes` nodes, with further fields of its spec.
pub(super) fn job(nodes: i32, spec: serde_json::Value) -> TrainingJob {
    let mut all = serde_json::json!({
        "runtimeRef": {"name": "pytorch"}, "command": ["python", "train.py"], "numNodes": nodes,
    });
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    serde_json::from_value(serde_json::json!({
        "apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingJob",
        "metadata": {"name": "ddp", "namespace": "ml", "uid": "uid-1", "generation": 1},
        "spec": all,
    }))
    .unwrap()
}

pub(super) fn pod(attempt: i32, rank: i32) -> PodFacts {
    PodFacts {
        name: format!("ddp-{attempt}-{rank}"),
        uid: format!("pod-{attempt}-{rank}"),
        attempt,
        rank,
        node: Some(format!("gpu-{rank}")),
        accepted: Some(at(0)),
        ..PodFacts::default()
    }
}

impl PodFacts {
    pub(super) fn running(mut self) -> Self {
        self.phase = Phase::Running;
        self.ready = true;
        self
    }

    pub(super) fn ended(mut self, exit_code: i32, message: &str, finished: i64) -> Self {
        self.ready = false;
        self.phase = if exit_code == 0 {
            Phase::Succeeded
        } else {
            Phase::Failed
        };
        self.terminated = Some(Terminated {
            container: "trainer".into(),
            exit_code,
            reason: if exit_code == 0 { "Completed" } else { "Error" }.into(),
            message: message.into(),
            finished: Some(at(finished)),
        });
        self
    }

    pub(super) fn because(mut self, reason: &str) -> Self {
        self.terminated.as_mut().unwrap().reason = reason.into();
        self
    }

    /// Deleted at `asked` with 30 seconds of grace.
    pub(super) fn deleted(mut self, asked: i64) -> Self {
        self.deletion_requested = Some(at(asked));
        self.deletion = Some(at(asked + 30));
        self
    }

    pub(super) fn disrupted(mut self, reason: &str, message: &str) -> Self {
        self.disruption = Some(Reason {
            reason: reason.into(),
            message: message.into(),
        });
        self
    }

    pub(super) fn waits(mut self, reason: &str, message: &str) -> Self {
        self.waiting = Some(Waiting {
            container: "trainer".into(),
            reason: reason.into(),
            message: message.into(),
        });
        self
    }

    pub(super) fn unschedulable(mut self, message: &str) -> Self {
        self.node = None;
        self.accepted = None;
        self.unschedulable = Some(message.into());
        self
    }
}

/// A job and its surroundings, as this process sees them.
pub struct Scene {
    pub job: TrainingJob,
    pub seen: Observed,
    pub events: Vec<Event>,
    /// What there is to read of the ranks' logs.
    pub logs: BTreeMap<i32, Vec<u8>>,
    /// What the cluster's nodes say.
    pub nodes: BTreeMap<String, NodeFacts>,
    /// Time of the newest log line of any rank.
    pub newest_line: Option<i64>,
    /// What is found out about pods that do not start.
    pub start_problem: Option<Reason>,
    /// The questions that were asked.
    pub asked: Vec<Question>,
}

impl Scene {
    pub(super) fn new(job: TrainingJob) -> Self {
        let seen = Observed {
            runtime: Some(runtime()),
            ..Observed::default()
        };
        Self {
            job,
            seen,
            events: vec![],
            logs: BTreeMap::new(),
            nodes: BTreeMap::new(),
            newest_line: None,
            start_problem: None,
            asked: vec![],
        }
    }

    /// Started at 0 by this process, no pod created yet.
    pub(super) fn started(nodes: i32, spec: serde_json::Value) -> Self {
        let mut scene = Self::new(job(nodes, spec));
        scene.seen.opened_here = true;
        scene.look(0);
        scene
    }

    /// Started at 0; all pods of attempt 1 run and have been recorded so.
    pub(super) fn running(nodes: i32, spec: serde_json::Value) -> Self {
        let mut scene = Self::started(nodes, spec);
        scene.all(1, PodFacts::running);
        scene.look(0);
        assert_eq!(scene.reason(), "Running");
        scene
    }

    /// The pods of an attempt are these, of other attempts none.
    pub(super) fn pods(&mut self, pods: impl IntoIterator<Item = PodFacts>) {
        self.seen.pods = pods.into_iter().collect();
    }

    pub(super) fn all(&mut self, attempt: i32, f: impl Fn(PodFacts) -> PodFacts) {
        let nodes = self.job.spec.num_nodes;
        self.pods((0..nodes).map(|rank| f(pod(attempt, rank))));
    }

    /// Finds out what a plan asks, as operator::ask does.
    pub(super) fn answer(&mut self, question: Question, now: i64) {
        let answers = &mut self.seen.answers;
        match &question {
            Question::Evidence { ranks, nodes } => {
                answers.failure_seen.get_or_insert(at(now));
                let facts = |name: &String| (name.clone(), self.nodes.get(name).cloned());
                answers.nodes.extend(nodes.iter().map(facts));
                for rank in ranks {
                    let bytes = self.logs.get(rank).cloned();
                    let tail = bytes.map(|bytes| Tail {
                        bytes,
                        stamped: false,
                    });
                    let pod = self.seen.pods.iter().rfind(|p| p.rank == *rank);
                    let answer = TailAnswer {
                        tail: tail.map(Arc::new),
                        ended: pod.is_none_or(PodFacts::terminal),
                    };
                    answers.tails.insert(*rank, answer);
                }
            }
            Question::Progress { .. } => {
                answers.progress = Some(Progress {
                    last: self.newest_line.map(at),
                    checked: at(now),
                });
            }
            Question::Start { rank } => {
                let answer = StartAnswer {
                    found: self.start_problem.clone(),
                    asked: at(now),
                };
                answers.start.insert(*rank, answer);
            }
        }
        self.asked.push(question);
    }

    /// Records what there is to record until there is nothing more; returns the last plan, which
    /// only acts. That this takes few steps, and that the last does not record, is "quiet at rest".
    pub(super) fn look(&mut self, now: i64) -> Plan {
        for _ in 0..=8 {
            let plan = plan(&self.job, &self.seen, at(now));
            if let [Effect::Ask(question)] = plan.effects.as_slice() {
                self.answer(question.clone(), now);
                continue;
            }
            let Some(record) = plan.record else {
                self.quiet(now);
                return plan;
            };
            assert!(plan.effects.is_empty(), "a plan either records or acts");
            self.events.extend(record.event);
            // What the API server gives back: times are cut to the second, defaults are filled in.
            let opened = record.status.open_attempt().map(|a| a.number);
            let before = self.job.status.as_ref().and_then(|s| s.open_attempt());
            if opened.is_some() && opened != before.map(|a| a.number) {
                self.seen.opened_here = true; // as operator::memory remembers it
                self.seen.created.clear();
                self.seen.answers = Answers::default();
            }
            let json = serde_json::to_value(&record.status).unwrap();
            self.job.status = Some(serde_json::from_value(json).unwrap());
        }
        panic!("no fixpoint: {:#?}", self.job.status);
    }

    /// Nothing is written only because time has passed, unless a wait planned for is over.
    fn quiet(&self, now: i64) {
        let rest = plan(&self.job, &self.seen, at(now)).requeue;
        if rest.is_none_or(|r| r.as_secs() > 1) {
            let later = plan(&self.job, &self.seen, at(now + 1));
            assert_eq!(later.record, None, "a write where nothing has changed");
        }
    }

    pub(super) fn status(&self) -> &TrainingJobStatus {
        self.job.status.as_ref().unwrap()
    }

    pub(super) fn reason(&self) -> &str {
        &self
            .status()
            .condition(conditions::SUCCEEDED)
            .unwrap()
            .reason
    }

    pub(super) fn message(&self) -> &str {
        &self
            .status()
            .condition(conditions::SUCCEEDED)
            .unwrap()
            .message
    }

    /// Status of a condition, "-" where there is none.
    pub(super) fn is(&self, kind: &str) -> &str {
        self.status()
            .condition(kind)
            .map_or("-", |c| c.status.as_str())
    }

    /// Number, end and decision of each attempt.
    pub(super) fn ledger(&self) -> Vec<(i32, bool, Option<&str>)> {
        let attempts = self.status().attempts.iter();
        attempts
            .map(|a| (a.number, a.end_time.is_some(), a.decision.as_deref()))
            .collect()
    }

    pub(super) fn next_start(&self) -> i64 {
        let Time(start) = self.status().open_attempt().unwrap().start_time;
        start.as_second() - at(0).as_second()
    }
}

pub(super) fn create(attempt: i32, rank: i32) -> Effect {
    Effect::CreatePod { attempt, rank }
}

pub(super) fn delete(attempt: i32, rank: i32) -> Effect {
    Effect::DeletePod {
        name: format!("ddp-{attempt}-{rank}"),
        uid: format!("pod-{attempt}-{rank}"),
    }
}
