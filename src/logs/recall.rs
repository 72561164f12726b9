//! What the store has of a stream that the write-ahead log knows nothing of, so that its numbers go on
//! from there: the log's volume was lost, say, while the containers ran on.
//!
//! Only containers that were there before the collector are looked up. Their log is not read until the
//! store has answered: any line could get a number that the store has given to another one.
//!
//! What the lost log had noted of rotations is lost with it, so the stream gets a gap that says so, even
//! where all of its lines are found again.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{
    lake::{self, Lake},
    layout,
    line::StreamId,
    position::Position,
    record::{End, Gap, Reason},
    sink::Error,
};

/// Waits before the store is asked again: the first and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What the store has.
#[derive(Clone, Debug)]
pub struct Recalled {
    /// Where the stream stands.
    pub position: Position,
    /// How it ended, where nothing came after that.
    pub end: Option<End>,
    /// Whether there is anything, if only a gap.
    pub any: bool,
    /// The newest log that has noted something of it.
    pub epoch: u64,
}

impl Recalled {
    /// What is not known any more.
    #[must_use]
    pub fn gap(&self, now: Timestamp) -> Gap {
        Gap {
            not_before: 0,
            ..self.position.gap_at_end(Reason::LogLost, now)
        }
    }
}

/// Asks the store until it answers; it may have nothing. None where the process is ending.
pub async fn recall(lake: &Lake, id: &StreamId, shutdown: &CancellationToken) -> Option<Recalled> {
    let mut wait = BACKOFF.0;
    loop {
        match look(lake, id).await {
            Ok(recalled) => return Some(recalled),
            Err(error) => tracing::warn!(
                "{id} waits to be followed until it is known which of its lines are stored: {error}; \
                 will ask again"
            ),
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return None,
            () = tokio::time::sleep(wait) => {}
        }
        wait = (wait * 2).min(BACKOFF.1);
    }
}

async fn look(lake: &Lake, id: &StreamId) -> Result<Recalled, Error> {
    let files = lake.files(id).await?;
    let position = last_lines(lake, id, &layout::cover(&files.lines)).await?;
    let (_, end) = lake.notes(&files).await?;
    let noted = files
        .notes
        .iter()
        .filter_map(|p| layout::noted_in(p.as_ref()));
    Ok(Recalled {
        any: !files.lines.is_empty() || !files.notes.is_empty(),
        end: end.filter(|end| end.lines == position.seq()),
        epoch: noted.map(|(epoch, _)| epoch).max().unwrap_or(0),
        position,
    })
}

/// From so many of the last files that the newest run of equal stamps begins in them.
async fn last_lines(lake: &Lake, id: &StreamId, files: &[(u64, u64)]) -> Result<Position, Error> {
    for first in (0..files.len()).rev() {
        let mut position = Position::default();
        for file in &files[first..] {
            let mut decoder = lake.lines(id, *file).await?;
            while let Some(lines) = lake::decode(id, &mut decoder)? {
                lines.iter().for_each(|line| position.recall(line));
            }
        }
        if first == 0 || position.run_begins() > Some(files[first].0) {
            return Ok(position);
        }
    }
    Ok(Position::default())
}
