//! Everything that could be otherwise, from one seed.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// Cheap to clone; all clones draw from one sequence.
#[derive(Clone, Debug)]
pub struct Chance(Arc<Mutex<(u64, u64, bool)>>);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new((
            seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x9e37_79b9_7f4a_7c15,
            0,
            true,
        ))))
    }

    pub fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap();
        state.0 = state.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    pub fn below(&self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn index(&self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Whether a fault happens, one in `n`; counted, and never once faults have ended.
    pub fn fault(&self, n: u64) -> bool {
        let happens = n > 0 && self.one_in(n);
        let mut state = self.0.lock().unwrap();
        let happens = happens && state.2;
        state.1 += u64::from(happens);
        happens
    }

    pub fn count(&self) {
        self.0.lock().unwrap().1 += 1;
    }

    pub fn faults(&self) -> u64 {
        self.0.lock().unwrap().1
    }

    /// From now on nothing goes wrong.
    pub fn calm(&self) {
        self.0.lock().unwrap().2 = false;
    }

    pub async fn pause(&self, most_ms: u64) {
        let wait = self.below(most_ms + 1);
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }
}
