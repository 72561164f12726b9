//! trainyard as a policy: the operator's part around the real [`plan`], as short as it can be. It records
//! what a plan records, answers what it asks, and does what it says; it judges nothing.

use std::sync::Arc;

use trainyard::{
    api::{FailureClass, RuntimeSnapshot, TrainingJob, TrainingJobStatus, conditions, names},
    plan::{
        Answers, Effect, Observed, Phase, Plan, PodFacts, Progress, Question, TailAnswer, plan,
    },
};

use crate::{
    evidence::{Evidence, Stage, at, pod},
    world::SILENCE,
};

/// A job that trainyard looks after.
pub struct Trainyard {
    job: TrainingJob,
    seen: Observed,
    /// What there is to read of the failed attempt.
    evidence: Option<Evidence>,
    now: i64,
}

/// What trainyard made of a failed attempt.
#[derive(Debug)]
pub struct Verdict {
    /// The class that it found.
    pub class: FailureClass,
    /// The rank that it blames.
    pub rank: Option<i32>,
    /// When the next attempt's pods are created; None where the job has failed for good.
    pub again: Option<i64>,
    /// When that was decided.
    pub decided: i64,
    /// The nodes that the next attempt avoids.
    pub avoided: Vec<u32>,
}

impl Trainyard {
    /// The job is there and its first attempt waits for its pods.
    pub fn new(template: &Template, nodes: usize, gpus: i32, uid: String) -> Self {
        let mut job = template.job.clone();
        job.spec.num_nodes = i32::try_from(nodes).unwrap_or(1);
        job.spec.gpus_per_node = gpus.min(8);
        job.metadata.uid = Some(uid);
        let seen = Observed {
            runtime: Some(template.runtime.clone()),
            ..Observed::default()
        };
        let mut new = Self {
            job,
            seen,
            evidence: None,
            now: 0,
        };
        new.until_created();
        new
    }

    /// The pods of the open attempt are created on these nodes and run.
    pub fn start(&mut self, nodes: &[u32], now: i64) {
        self.now = now;
        let stage = Stage {
            attempt: self.attempt(),
            nodes,
            started: now,
        };
        self.seen.pods = (0..nodes.len()).map(|rank| pod(&stage, rank)).collect();
        self.seen.created = self.seen.pods.iter().map(|p| p.rank).collect();
        self.settle();
        let succeeded = self.status().condition(conditions::SUCCEEDED);
        assert_eq!(
            succeeded.map(|c| c.reason.as_str()),
            Some("Running"),
            "the gang runs"
        );
    }

    /// All ranks of the open attempt have succeeded.
    pub fn succeed(&mut self, now: i64) {
        self.now = now;
        for pod in &mut self.seen.pods {
            pod.phase = Phase::Succeeded;
        }
        self.settle();
        let succeeded = self.status().condition(conditions::SUCCEEDED);
        assert_eq!(
            succeeded.map(|c| c.status.as_str()),
            Some("True"),
            "the job is done"
        );
    }

    /// The open attempt has failed.
    pub fn fail(&mut self, evidence: Evidence) -> Verdict {
        let number = self.attempt();
        self.seen.pods.clone_from(&evidence.pods);
        self.now = evidence.failed + if evidence.silent { SILENCE } else { 5 };
        self.evidence = Some(evidence);
        while self.open() == Some(number) {
            let wait = self.settle().requeue;
            if self.open() == Some(number) {
                let wait = wait.expect("a plan that waits for a failed gang says until when");
                self.now += i64::try_from(wait.as_secs()).unwrap_or(i64::MAX).max(1);
            }
        }
        let decided = self.now;
        let again = self.open().map(|_| self.until_created());
        let status = self.status();
        let failed = status
            .attempts
            .iter()
            .rfind(|a| a.number == number)
            .expect("in the ledger");
        let avoided = status
            .avoided_nodes
            .iter()
            .filter_map(|n| n.name.strip_prefix("gpu-")?.parse().ok());
        Verdict {
            class: failed.class.expect("a failed attempt has a class"),
            rank: failed.root_cause.as_ref().and_then(|c| c.rank),
            again,
            decided,
            avoided: avoided.collect(),
        }
    }

    /// A copy of all that a plan is made from, to drive it by hand.
    pub fn job_and_surroundings(&self) -> (TrainingJob, Observed) {
        (self.job.clone(), self.seen.clone())
    }

    /// The job's status.
    pub fn status(&self) -> &TrainingJobStatus {
        self.job.status.as_ref().expect("a plan has been recorded")
    }

    fn open(&self) -> Option<i32> {
        self.status().open_attempt().map(|a| a.number)
    }

    /// Number of the open attempt.
    pub fn attempt(&self) -> i32 {
        self.open().expect("an attempt is open")
    }

    /// Waits until the open attempt's pods are to be created; says when.
    fn until_created(&mut self) -> i64 {
        loop {
            let plan = self.settle();
            if plan
                .effects
                .iter()
                .any(|e| matches!(e, Effect::CreatePod { .. }))
            {
                return self.now;
            }
            if plan.effects.is_empty() {
                let wait = plan.requeue.expect("an attempt that waits says until when");
                self.now += i64::try_from(wait.as_secs()).unwrap_or(i64::MAX).max(1);
            }
            // Whoever is deleted is gone within its grace period.
            let deleted = |p: &PodFacts| {
                plan.effects
                    .iter()
                    .any(|e| matches!(e, Effect::DeletePod { uid, .. } if *uid == p.uid))
            };
            self.seen.pods.retain(|p| !deleted(p));
        }
    }

    /// Records and answers until a plan only acts or waits.
    fn settle(&mut self) -> Plan {
        for _ in 0..16 {
            let plan = plan(&self.job, &self.seen, at(self.now));
            if let [Effect::Ask(question)] = plan.effects.as_slice() {
                self.answer(question);
                continue;
            }
            let Some(record) = plan.record else {
                return plan;
            };
            let before = self
                .job
                .status
                .as_ref()
                .and_then(|s| s.open_attempt())
                .map(|a| a.number);
            let opened = record.status.open_attempt().map(|a| a.number);
            if opened.is_some() && opened != before {
                self.seen.opened_here = true;
                self.seen.created.clear();
                self.seen.answers = Answers::default();
            }
            self.job.status = Some(record.status);
        }
        panic!("the planner does not come to rest: {:#?}", self.job.status);
    }

    fn answer(&mut self, question: &Question) {
        let Some(evidence) = &self.evidence else {
            panic!("asked for {question:?} of an attempt that has not failed");
        };
        let answers = &mut self.seen.answers;
        match question {
            Question::Evidence { ranks, .. } => {
                answers.failure_seen.get_or_insert(at(self.now));
                let nodes = evidence.nodes.iter();
                answers.nodes = nodes.map(|(n, f)| (n.clone(), Some(f.clone()))).collect();
                for rank in ranks {
                    let index = usize::try_from(*rank).unwrap_or_default();
                    let answer = TailAnswer {
                        tail: Some(Arc::clone(&evidence.tails[index])),
                        ended: evidence.pods[index].terminal(),
                    };
                    answers.tails.insert(*rank, answer);
                }
            }
            Question::Progress { .. } => {
                answers.progress = Some(Progress {
                    last: Some(at(evidence.failed)),
                    checked: at(self.now),
                });
            }
            Question::Start { rank } => {
                panic!("rank {rank} runs and is asked why it does not start")
            }
        }
    }
}

/// A job and a runtime to copy: parsing them for each job would take longer than planning.
pub struct Template {
    job: TrainingJob,
    runtime: RuntimeSnapshot,
}

impl Template {
    /// The defaults that a user gets, and a hang's timeout.
    pub fn new() -> Self {
        let job = serde_json::json!({
            "apiVersion": format!("{}/v1alpha1", names::GROUP), "kind": "TrainingJob",
            "metadata": {"name": "train", "namespace": "ml", "uid": "", "generation": 1},
            "spec": {
                "runtimeRef": {"name": "pytorch"}, "command": ["python", "train.py"],
                "progressTimeoutSeconds": SILENCE,
            },
        });
        let runtime = serde_json::json!({
            "kind": "ClusterTrainingRuntime", "name": "pytorch", "generation": 1,
            "spec": {"image": "registry.example.com/pytorch:2.6", "launcher": "torchrun"},
        });
        Self {
            job: serde_json::from_value(job).expect("a job"),
            runtime: serde_json::from_value(runtime).expect("a runtime"),
        }
    }
}
