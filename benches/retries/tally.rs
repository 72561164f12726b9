//! What is counted, and how sure it is: percentile bootstrap over seeds.

use crate::dice::Dice;

/// Resamples of the seeds.
pub const RESAMPLES: usize = 500;

/// Counts of one policy over the jobs of one seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// All jobs.
    pub jobs: f64,
    /// Of these, jobs that end failed.
    pub failed: f64,
    /// Jobs without a deterministic failure.
    pub fixable: f64,
    /// Of these, jobs that end failed.
    pub fixable_failed: f64,
    /// Attempts after the first.
    pub restarts: f64,
    /// Of these, attempts that failed of the same fault again.
    pub useless: f64,
    /// GPU-hours of failed attempts that no checkpoint kept.
    pub lost: f64,
    /// Of these, GPU-hours of useless restarts.
    pub useless_lost: f64,
    /// GPU-hours up to their first failure of the jobs that end failed: large jobs weigh more.
    pub failed_weight: f64,
    /// Hours from a job's first failure to its final one, over the jobs that end failed.
    pub verdict: f64,
}

impl Tally {
    /// Adds `other`, `times` over.
    pub fn add(&mut self, other: &Self, times: f64) {
        self.jobs += other.jobs * times;
        self.failed += other.failed * times;
        self.fixable += other.fixable * times;
        self.fixable_failed += other.fixable_failed * times;
        self.restarts += other.restarts * times;
        self.useless += other.useless * times;
        self.lost += other.lost * times;
        self.useless_lost += other.useless_lost * times;
        self.failed_weight += other.failed_weight * times;
        self.verdict += other.verdict * times;
    }
}

/// The tallies of all policies.
pub type Row = [Tally; 5];

/// A value and its 95 % interval.
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    /// Over all seeds.
    pub value: f64,
    /// 2.5 % of the resamples are below.
    pub low: f64,
    /// 2.5 % of the resamples are above.
    pub high: f64,
}

/// The sums over all seeds, and over each resample of them.
pub struct Sums {
    all: Row,
    resampled: Vec<Row>,
}

impl Sums {
    /// Sums rows, one a seed. Seeds are drawn as wholes, for all policies together, so that a comparison of
    /// two policies is a paired one.
    pub fn of(rows: &[Row]) -> Self {
        let sum = |times: &dyn Fn(usize) -> f64| {
            let mut sum = Row::default();
            for (i, row) in rows.iter().enumerate() {
                let n = times(i);
                if n > 0.0 {
                    for (total, tally) in sum.iter_mut().zip(row) {
                        total.add(tally, n);
                    }
                }
            }
            sum
        };
        let resampled = (0..RESAMPLES as u64).map(|number| {
            let mut dice = Dice::of(&[0xb007, number]);
            let mut drawn = vec![0.0; rows.len()];
            for _ in 0..rows.len() {
                drawn[dice.below(rows.len())] += 1.0;
            }
            sum(&|i| drawn[i])
        });
        Self {
            all: sum(&|_| 1.0),
            resampled: resampled.collect(),
        }
    }

    /// Over all seeds.
    pub fn all(&self) -> &Row {
        &self.all
    }

    /// A statistic with its interval.
    pub fn estimate(&self, statistic: impl Fn(&Row) -> f64) -> Estimate {
        let mut values: Vec<f64> = self.resampled.iter().map(&statistic).collect();
        values.retain(|v| v.is_finite()); // a resample may hold no failed job at all
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let last = values.len().saturating_sub(1) as f64;
            values
                .get((last * share).round() as usize)
                .copied()
                .unwrap_or(f64::NAN)
        };
        Estimate {
            value: statistic(&self.all),
            low: at(0.025),
            high: at(0.975),
        }
    }
}
