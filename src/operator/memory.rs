//! What this process knows that the watches have not told it yet: its own latest writes.
//!
//! A watch lags behind. Without this memory a reconcile right after a write would plan on the state
//! before it and write again; the API server would refuse that (resourceVersion, names), so nothing
//! here is needed for safety except one thing: [`Observed::opened_here`] and [`Observed::created`],
//! which keep a successor process from creating a pod a second time. Everything is forgotten when
//! the job is gone, so it is bounded by the number of jobs.
//!
//! [`Observed::opened_here`]: crate::plan::Observed::opened_here
//! [`Observed::created`]: crate::plan::Observed::created

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kube::ResourceExt;
use tokio::time::Instant;

use crate::{
    api::TrainingJob,
    plan::{Answers, PodFacts, Refusal},
};

/// Memory of all jobs, by uid.
#[derive(Default)]
pub struct Memory(Mutex<HashMap<String, JobMemory>>);

#[derive(Default)]
struct JobMemory {
    /// Our last write of the job, until the watch has caught up with it.
    written: Option<TrainingJob>,
    /// When that was.
    written_at: Option<Instant>,
    /// The attempt that the rest is about.
    attempt: i32,
    /// We opened it, or have known it since before its start.
    vouched: bool,
    /// Ranks of it whose pods a watch has shown, or of which we know otherwise that they have been.
    existed: BTreeSet<i32>,
    /// Ranks of it whose creation was asked for and not answered: it may have been carried out.
    unanswered: BTreeSet<i32>,
    /// Pods that we created, by attempt and rank. Those of earlier attempts stay until the watch has
    /// shown them: until then nobody else knows that they may still run.
    created: BTreeMap<(i32, i32), Created>,
    /// The API server's last refusal of one of its pods.
    refusal: Option<Refusal>,
    /// What has been asked about it.
    answers: Answers,
    /// Reconciles that failed one after the other.
    failures: u32,
}

struct Created {
    pod: PodFacts,
    at: Instant,
    /// The watch has shown it (or its deletion): from now on the watch knows better.
    seen: bool,
}

/// What memory adds to the watches for one attempt.
#[derive(Default)]
pub struct Remembered {
    /// Pods of any attempt that we created and the watch has not shown yet.
    pub unseen: Vec<PodFacts>,
    /// Ranks of the attempt whose pods have been, whatever became of them.
    pub created: BTreeSet<i32>,
    /// See [`Observed::opened_here`](crate::plan::Observed::opened_here).
    pub opened_here: bool,
    /// See [`Observed::refusal`](crate::plan::Observed::refusal).
    pub refusal: Option<Refusal>,
    /// See [`Observed::answers`](crate::plan::Observed::answers).
    pub answers: Answers,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, JobMemory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newer one of the watch's job and our last write of it.
    pub fn newest(&self, watched: &TrainingJob) -> TrainingJob {
        let mut jobs = self.lock();
        let Some(memory) = watched.uid().and_then(|uid| jobs.get_mut(&uid)) else {
            return watched.clone();
        };
        match &memory.written {
            Some(written) if version(written) > version(watched) => written.clone(),
            _ => {
                memory.written = None;
                watched.clone()
            }
        }
    }

    /// We wrote this job's status. `opened` is the attempt that this write opened, if it did.
    pub fn wrote(&self, job: &TrainingJob, opened: Option<i32>) {
        let mut jobs = self.lock();
        let memory = jobs.entry(job.uid().unwrap_or_default()).or_default();
        memory.written = Some(job.clone());
        memory.written_at = Some(Instant::now());
        if let Some(attempt) = opened {
            memory.turn_to(attempt);
            memory.vouched = true;
        }
    }

    /// How long ago we last wrote this job's status.
    pub fn since_write(&self, uid: &str) -> Option<Duration> {
        self.lock().get(uid)?.written_at.map(|at| at.elapsed())
    }

    /// We vouch for this attempt: its time has not come, so nobody has created a pod of it.
    pub fn vouch(&self, uid: &str, attempt: i32) {
        let mut jobs = self.lock();
        let memory = jobs.entry(uid.to_owned()).or_default();
        memory.turn_to(attempt);
        memory.vouched = true;
    }

    /// We created this pod.
    pub fn created(&self, uid: &str, pod: PodFacts) {
        let mut jobs = self.lock();
        let memory = jobs.entry(uid.to_owned()).or_default();
        memory.turn_to(pod.attempt);
        memory.refusal = None;
        memory.unanswered.remove(&pod.rank);
        let created = Created {
            at: Instant::now(),
            // The watch can be faster than the answer to the creation.
            seen: memory.existed.contains(&pod.rank),
            pod,
        };
        memory.existed.insert(created.pod.rank);
        let key = (created.pod.attempt, created.pod.rank);
        memory.created.insert(key, created);
    }

    /// We are about to ask for this pod. True where we have before and got no answer.
    pub fn asks(&self, uid: &str, attempt: i32, rank: i32) -> bool {
        let mut jobs = self.lock();
        let memory = jobs.entry(uid.to_owned()).or_default();
        memory.turn_to(attempt);
        !memory.unanswered.insert(rank)
    }

    /// The API server did not take this pod.
    pub fn not_created(&self, uid: &str, attempt: i32, rank: i32) {
        if let Some(memory) = self.lock().get_mut(uid).filter(|m| m.attempt == attempt) {
            memory.unanswered.remove(&rank);
        }
    }

    /// This pod of the attempt has been, and is no more.
    pub fn existed(&self, uid: &str, attempt: i32, rank: i32) {
        if let Some(memory) = self.lock().get_mut(uid).filter(|m| m.attempt == attempt) {
            memory.existed.insert(rank);
        }
    }

    /// The API server refused a pod of this attempt.
    pub fn refused(&self, uid: &str, attempt: i32, refusal: Refusal) {
        let mut jobs = self.lock();
        let memory = jobs.entry(uid.to_owned()).or_default();
        memory.turn_to(attempt);
        memory.refusal = Some(refusal);
    }

    /// Something was found out about this attempt.
    pub fn learned(&self, uid: &str, attempt: i32, learn: impl FnOnce(&mut Answers)) {
        let mut jobs = self.lock();
        let memory = jobs.entry(uid.to_owned()).or_default();
        memory.turn_to(attempt);
        learn(&mut memory.answers);
    }

    /// The watch has shown this pod, alive or deleted.
    pub fn seen(&self, uid: &str, attempt: i32, rank: i32) {
        let mut jobs = self.lock();
        let Some(memory) = jobs.get_mut(uid) else {
            return;
        };
        if memory.attempt != attempt {
            memory.created.remove(&(attempt, rank));
            return;
        }
        memory.existed.insert(rank);
        if let Some(created) = memory.created.get_mut(&(attempt, rank)) {
            created.seen = true;
        }
    }

    /// The watch has listed all pods anew, beginning at `begin`: it has shown everything older that
    /// is still there. What came and went before is lost, so where a creation was not answered we
    /// can't vouch for the attempt any more.
    pub fn relisted(&self, begin: Instant) {
        for memory in self.lock().values_mut() {
            for created in memory.created.values_mut().filter(|c| c.at < begin) {
                created.seen = true;
            }
            memory.vouched &= memory.unanswered.is_empty();
            memory.drop_earlier();
        }
    }

    /// What we know of the job's pods, and of its open attempt.
    pub fn recall(&self, uid: &str, attempt: Option<i32>) -> Remembered {
        let jobs = self.lock();
        let Some(memory) = jobs.get(uid) else {
            return Remembered::default();
        };
        let unseen = memory.created.values().filter(|c| !c.seen);
        let unseen = unseen.map(|c| c.pod.clone()).collect();
        if attempt != Some(memory.attempt) {
            return Remembered {
                unseen,
                ..Remembered::default()
            };
        }
        Remembered {
            unseen,
            created: memory.existed.clone(),
            opened_here: memory.vouched,
            refusal: memory.refusal.clone(),
            answers: memory.answers.clone(),
        }
    }

    /// A reconcile of this job failed; returns how many have in a row.
    pub fn failed(&self, uid: &str) -> u32 {
        let mut jobs = self.lock();
        let memory = jobs.entry(uid.to_owned()).or_default();
        memory.failures = memory.failures.saturating_add(1);
        memory.failures
    }

    /// A reconcile of this job went through.
    pub fn went_through(&self, uid: &str) {
        if let Some(memory) = self.lock().get_mut(uid) {
            memory.failures = 0;
        }
    }

    /// The job is gone, or has ended and its pods with it.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }
}

impl JobMemory {
    fn turn_to(&mut self, attempt: i32) {
        if self.attempt != attempt {
            self.attempt = attempt;
            self.vouched = false;
            self.existed.clear();
            self.unanswered.clear();
            self.refusal = None;
            self.answers = Answers::default();
            self.drop_earlier();
        }
    }

    fn drop_earlier(&mut self) {
        let attempt = self.attempt;
        self.created.retain(|(n, _), c| *n == attempt || !c.seen);
    }
}

/// resourceVersions of one resource can be compared as numbers (KEP-5504). On a server that does not
/// keep to that, 0 makes the watch's copy win, and a stale write is refused as a conflict.
fn version(job: &TrainingJob) -> u128 {
    job.metadata
        .resource_version
        .as_deref()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}
