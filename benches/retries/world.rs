//! The simulated cluster: which jobs fail and of what, where attempts run, and whether a retry helps.
//!
//! - A job draws at most one published reason for its first attempt. A deterministic one comes back in
//!   every attempt, at the same point of the program.
//! - Any other is gone in a retry with the swept probability (ambiguous ones: [`AMBIGUOUS`]). One that
//!   sticks to its node, which is drawn once, comes back for certain where the retry runs on that node.
//! - An attempt that the old fault left alone can meet a new one, deterministic ones excepted: the
//!   program has run before.
//! - A retry runs on nodes drawn from those that its last attempt left and 0 to 8 others that happen to be
//!   free. Avoidance is a preference, as in Kubernetes: with none free, the bad node is taken again.
//! - Jobs write a checkpoint every hour and go on from the last one.

use crate::{
    dice::Dice,
    tables::{Hint, Source},
    texts::{Library, RANKS, VARIANTS},
};

/// How often a retry helps where the published hint is "ambiguous" or "unknown".
pub const AMBIGUOUS: f64 = 0.3;

/// Nodes of the cluster, with 8 GPUs each.
const NODES: u32 = 64;

/// Most nodes that happen to be free beside those the job has just left.
const SPARE: usize = 8;

/// Hours between checkpoints.
const CHECKPOINT: f64 = 1.0;

/// Hours from an attempt's start until it trains: image, rendezvous, loading.
const START_UP: f64 = 0.05;

/// Seconds of silence after which a hang is ended, under every policy.
pub const SILENCE: i64 = 1800;

/// What is swept.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    /// Chance that a retry helps against a transient fault.
    pub helps: f64,
    /// Chance that a node's fault stays with the node.
    pub sticks: f64,
}

/// The points of a sweep at which a life runs as it did: chance is compared with the swept values, and as
/// long as every comparison comes out the same, so does everything else. So a story that was replayed at
/// one point need not be replayed at the next, and the result is the same to the last digit.
#[derive(Clone, Copy, Debug)]
pub struct Holds {
    helps: (f64, f64),
    sticks: (f64, f64),
}

impl Holds {
    const ALWAYS: Self = Self {
        helps: (-1.0, 2.0),
        sticks: (-1.0, 2.0),
    };

    /// Whether the story is the same there.
    pub fn at(&self, sweep: Sweep) -> bool {
        let within = |(low, high): (f64, f64), x: f64| low < x && x <= high;
        within(self.helps, sweep.helps) && within(self.sticks, sweep.sticks)
    }

    /// Whether `draw` is below `value`; from now on it has to stay so.
    fn below(range: &mut (f64, f64), draw: f64, value: f64) -> bool {
        if draw < value {
            range.0 = range.0.max(draw);
            true
        } else {
            range.1 = range.1.min(draw);
            false
        }
    }
}

/// A job that fails at least once. Those that never fail are only counted: no policy is asked about them.
#[derive(Debug)]
pub struct Job {
    key: [u64; 2],
    /// GPUs of the whole gang.
    pub gpus: i32,
    /// Pods of the gang.
    pub nodes: usize,
    /// Hours of training that it needs.
    work: f64,
    first: Fault,
}

/// A fault as it hits a job.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Index into the source's causes.
    pub cause: usize,
    /// Index into the library's texts.
    pub text: usize,
    /// Which rendering.
    pub variant: usize,
    /// The rank that fails of it.
    pub rank: usize,
    /// Hours of training after which it strikes.
    at: f64,
    /// It stays with its node, should it be a node's.
    sticks: bool,
    /// That node, once it has struck.
    node: Option<u32>,
}

impl Fault {
    /// A text alone.
    pub fn plain(text: usize, variant: usize) -> Self {
        Self {
            cause: 0,
            text,
            variant,
            rank: 0,
            at: 0.0,
            sticks: false,
            node: None,
        }
    }
}

/// How an attempt went.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// What ended it; None: the job is done.
    pub fault: Option<Fault>,
    /// The same fault as the attempt before: the restart was of no use.
    pub repeated: bool,
    /// Hours from its start to its end.
    pub hours: f64,
    /// Of these, hours that no checkpoint kept.
    pub lost: f64,
}

/// A job on its way through its attempts.
pub struct Life<'a> {
    world: &'a World<'a>,
    job: &'a Job,
    sweep: Sweep,
    attempt: u64,
    saved: f64,
    fault: Option<Fault>,
    /// Where the newest attempt runs, by rank.
    pub nodes: Vec<u32>,
    /// Where else in the sweep it would have gone the same way.
    pub holds: Holds,
}

/// What all jobs of a source share.
pub struct World<'a> {
    /// The source.
    pub source: &'a Source,
    /// The texts.
    pub library: &'a Library,
    /// By cause: its texts, and whether it takes several nodes.
    texts: Vec<(&'a [usize], bool)>,
}

/// What chance is drawn for.
#[repr(u64)]
enum For {
    Job = 1,
    Place,
    Outcome,
    Evidence,
}

impl<'a> World<'a> {
    /// The world of a source; the reason that has no text, if there is one.
    pub fn new(source: &'a Source, library: &'a Library) -> Result<Self, String> {
        let texts = source
            .causes
            .iter()
            .map(|c| {
                library.of(&source.name, &c.reason).ok_or(format!(
                    "no text for {}/{}: add it to texts/*.yaml",
                    source.name, c.reason
                ))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            source,
            library,
            texts,
        })
    }

    /// Job `index` of a seed; None for one that never fails.
    pub fn job(&self, seed: u64, index: u64) -> Option<Job> {
        let mut dice = Dice::of(&[For::Job as u64, seed, index]);
        if dice.unit() >= self.source.assumed.failing {
            return None;
        }
        let cause = dice.weighted(self.source.causes.iter().map(|c| c.weight));
        Some(self.failing(cause, [seed, index], &mut dice))
    }

    /// A job that fails of that cause.
    pub fn failing(&self, cause: usize, key: [u64; 2], dice: &mut Dice) -> Job {
        let smallest = if self.texts[cause].1 { 16 } else { 1 };
        let sizes = self.source.assumed.gpus;
        let fits = |&(gpus, weight): &(i32, f64)| if gpus >= smallest { weight } else { 0.0 };
        let gpus = sizes[dice.weighted(sizes.iter().map(fits))].0;
        let nodes = usize::try_from((gpus + 7) / 8).unwrap_or(1).clamp(1, RANKS);
        let hours = self.source.causes[cause].hours;
        let at = dice.exponential(hours);
        Job {
            key,
            gpus,
            nodes,
            work: at + dice.exponential(4.0 * hours),
            first: self.fault(cause, nodes, at, dice),
        }
    }

    fn fault(&self, cause: usize, nodes: usize, at: f64, dice: &mut Dice) -> Fault {
        let texts = self.texts[cause].0;
        Fault {
            cause,
            text: texts[dice.below(texts.len())],
            variant: dice.below(VARIANTS),
            rank: dice.below(nodes),
            at,
            sticks: false,
            node: None,
        }
    }

    /// Chance that an attempt which the old fault left alone meets a new one.
    fn anew(&self) -> f64 {
        self.source.assumed.failing * (1.0 - self.source.share(Hint::Deterministic))
    }
}

impl Job {
    /// A deterministic failure: the job can't succeed whatever is done.
    pub fn hopeless(&self, world: &World) -> bool {
        world.source.causes[self.first.cause].hint == Hint::Deterministic
    }

    /// Its uid, from which trainyard draws the jitter of its waits.
    pub fn uid(&self) -> String {
        format!("{:x}-{:x}", self.key[0], self.key[1])
    }

    /// Starts to live.
    pub fn live<'a>(&'a self, world: &'a World<'a>, sweep: Sweep) -> Life<'a> {
        Life {
            world,
            job: self,
            sweep,
            attempt: 0,
            saved: 0.0,
            fault: None,
            nodes: Vec::new(),
            holds: Holds::ALWAYS,
        }
    }
}

impl Life<'_> {
    fn dice(&self, purpose: For) -> Dice {
        let [seed, job] = self.job.key;
        Dice::of(&[purpose as u64, seed, job, self.attempt])
    }

    /// The dice for how the newest attempt's failure shows.
    pub fn evidence_dice(&self) -> Dice {
        self.dice(For::Evidence)
    }

    /// Chooses the next attempt's nodes, away from `avoided` where it can.
    pub fn place(&mut self, avoided: &[u32]) {
        self.attempt += 1;
        let mut dice = self.dice(For::Place);
        let mut free = self.nodes.clone();
        let others: Vec<u32> = (0..NODES).filter(|n| !free.contains(n)).collect();
        let room = if free.is_empty() {
            self.job.nodes
        } else {
            dice.below(SPARE + 1)
        };
        free.extend(dice.sample(&others, room));
        let mut order = dice.sample(&free, free.len());
        order.sort_by_key(|n| avoided.contains(n));
        order.truncate(self.job.nodes);
        self.nodes = order;
    }

    /// Runs the attempt that has been placed.
    pub fn run(&mut self) -> Ending {
        let mut dice = self.dice(For::Outcome);
        let (helps, anew, sticks) = (dice.unit(), dice.unit(), dice.unit());
        let before = self.fault;
        let old = match before {
            Some(old) if self.gone(old, helps) => None,
            old => old,
        };
        let repeated = old.is_some();
        let fault = match old {
            Some(old) => Some(self.again(old, &mut dice)),
            None if self.attempt == 1 => Some(self.job.first),
            None => (anew < self.world.anew()).then(|| self.new_fault(&mut dice)),
        };
        let end = fault.map_or(self.job.work, |f| f.at);
        let kept = fault
            .map_or(end, |_| (end / CHECKPOINT).floor() * CHECKPOINT)
            .max(self.saved);
        let hours = START_UP + (end - self.saved).max(0.0);
        let lost = hours - (kept - self.saved);
        self.saved = kept;
        self.fault = fault.map(|f| if repeated { f } else { self.settle(f, sticks) });
        Ending {
            fault: self.fault,
            repeated,
            hours,
            lost,
        }
    }

    /// Whether the old fault leaves this attempt alone.
    fn gone(&mut self, old: Fault, draw: f64) -> bool {
        if old.sticks && old.node.is_some_and(|n| self.nodes.contains(&n)) {
            return false;
        }
        match self.world.source.causes[old.cause].hint {
            Hint::Deterministic => false,
            Hint::Ambiguous => draw < AMBIGUOUS,
            Hint::Transient | Hint::Node => {
                Holds::below(&mut self.holds.helps, draw, self.sweep.helps)
            }
        }
    }

    /// The old fault strikes again: in the program at the same point, elsewhere at any.
    fn again(&self, old: Fault, dice: &mut Dice) -> Fault {
        let deterministic = self.world.source.causes[old.cause].hint == Hint::Deterministic;
        let rest = (self.job.work - self.saved) * dice.unit();
        let here = old
            .node
            .and_then(|n| self.nodes.iter().position(|m| *m == n));
        Fault {
            at: if deterministic {
                old.at
            } else {
                self.saved + rest
            },
            rank: here.filter(|_| old.sticks).unwrap_or(old.rank),
            ..old
        }
    }

    fn new_fault(&self, dice: &mut Dice) -> Fault {
        let causes = &self.world.source.causes;
        let possible = |(i, c): (usize, &crate::tables::Cause)| {
            let fits = !self.world.texts[i].1 || self.job.nodes > 1;
            if c.hint != Hint::Deterministic && fits {
                c.weight
            } else {
                0.0
            }
        };
        let cause = dice.weighted(causes.iter().enumerate().map(possible));
        let at = self.saved + (self.job.work - self.saved) * dice.unit();
        self.world.fault(cause, self.job.nodes, at, dice)
    }

    /// A fault that has just struck for the first time belongs to the node on which it did.
    fn settle(&mut self, fault: Fault, draw: f64) -> Fault {
        let node = self.world.source.causes[fault.cause].hint == Hint::Node;
        if !node {
            return fault;
        }
        Fault {
            sticks: Holds::below(&mut self.holds.sticks, draw, self.sweep.sticks),
            node: self.nodes.get(fault.rank).copied(),
            ..fault
        }
    }
}
