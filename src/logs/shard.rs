//! PURE: which collector owns a stream, where there are several. One replica runs today
//! ([`Shard::ALL`]); this is the seam for more.
//!
//! Every replica finds the same owner by itself (rendezvous hashing: a replica more or less moves only
//! the streams of that one). A new owner goes on where the store says that the last one stopped
//! ([`super::recall`]), with a greater epoch of its write-ahead log, which is in each Parquet file's
//! metadata and in the names of its notes.
//!
//! Not here yet: nothing keeps an owner that was replaced from writing on. It would take a store that
//! refuses smaller epochs, or a lease that is shorter than the handing over. Two collectors that share
//! one log's volume are kept apart by the log's lock.

use super::line::StreamId;

/// One of some replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which, from 0.
    pub index: u32,
    /// Of how many.
    pub of: u32,
}

impl Shard {
    /// The only one.
    pub const ALL: Self = Self { index: 0, of: 1 };

    /// Whether the stream is this replica's.
    #[must_use]
    pub fn owns(self, id: &StreamId) -> bool {
        self.of <= 1 || owner(id, self.of) == self.index
    }
}

fn owner(id: &StreamId, replicas: u32) -> u32 {
    // Of the job's uid, not its name: all streams of a rank stay together through all retries.
    let key = format!("{}/{}", id.uid, id.rank);
    (0..replicas)
        .max_by_key(|replica| twox_hash::XxHash64::oneshot(u64::from(*replica), key.as_bytes()))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stream_has_one_owner_and_one_replica_more_moves_few() {
        let mut moved = 0;
        let mut owned = [0; 3];
        for rank in 0..900 {
            let id = StreamId {
                namespace: "ml".into(),
                job: "bert".into(),
                uid: "u".into(),
                attempt: 1,
                rank,
                container: "trainer".into(),
            };
            let owners = (0..3).filter(|index| {
                Shard {
                    index: *index,
                    of: 3,
                }
                .owns(&id)
            });
            assert_eq!(owners.count(), 1);
            owned[owner(&id, 3) as usize] += 1;
            moved += u32::from(owner(&id, 3) != owner(&id, 4));
            assert!(Shard::ALL.owns(&id));
        }
        assert!(owned.iter().all(|n| *n > 250), "{owned:?}");
        assert!(moved < 300, "{moved}");
    }
}
