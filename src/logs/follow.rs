//! One container: from its source into the write-ahead log, until its end is proven.
//!
//! What the log does not take is kept and tried again; meanwhile the stream is closed, so that the
//! kubelet waits for nobody, and what it would have brought is read later. So a full or slow disk costs
//! memory for one batch a container, and loses what the node rotates away in the meantime, which is
//! recorded as every such loss is.

use std::{ops::ControlFlow, time::Duration};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    lake::Lake,
    metrics::Metrics,
    planted::{Bug, planted},
    pods::ContainerState,
    position::Position,
    recall::recall,
    record::{End, Reason, Record},
    source::{Event, Open, Source},
    wal::{
        Opened, Refused, Wal,
        frame::Declared,
        state::{Stream as Known, Totals},
    },
};

/// A stream is closed where the disk has not taken a batch of it for so long.
const SLOW: Duration = Duration::from_secs(5);
/// Between two tries while the log is full.
const FULL: Duration = Duration::from_secs(1);

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether nothing is missing.
    pub complete: bool,
    /// What is stored of it.
    pub totals: Totals,
}

/// What a stream needs.
pub struct Following<O> {
    /// Where its records go.
    pub wal: Wal,
    /// Whose.
    pub declared: Declared,
    /// Where lines of it may be that the log knows nothing of: the container was there before the
    /// collector.
    pub lake: Option<Lake>,
    /// When the container started, by the node's clock.
    pub started: Option<Timestamp>,
    /// How far the container is.
    pub state: watch::Receiver<ContainerState>,
    /// Its log.
    pub log: O,
    /// Counters.
    pub metrics: Metrics,
    /// Until then.
    pub shutdown: CancellationToken,
}

impl<O: Open> Following<O> {
    /// Stores the lines of the container until its end; None where the process is ending first.
    pub async fn run(self) -> Option<Outcome> {
        let opened = self.wal.stream(self.declared.clone()).await?;
        let stream = Stream {
            wal: self.wal.clone(),
            number: opened.number,
            shutdown: self.shutdown.clone(),
            metrics: self.metrics.clone(),
        };
        let (position, mut totals) = match self.start(&stream, opened).await? {
            ControlFlow::Continue(start) => start,
            ControlFlow::Break(outcome) => return Some(outcome),
        };
        tracing::debug!(
            "following {} after line {}",
            self.declared.id,
            position.seq()
        );
        let metrics = self.metrics.clone();
        metrics.streams.inc();
        let counted = Counted(&metrics);
        let container_id = self.declared.origin.container_id.clone();
        let mut source = Source::new(self.log, self.state, position, metrics.clone());
        let (proven, mut records) = loop {
            let event = tokio::select! {
                biased;
                () = stream.shutdown.cancelled() => return None,
                event = source.next() => event,
            };
            match event {
                Event::Records(records) => match stream.append(records, &mut source).await {
                    Ok(now) => totals = now,
                    Err(Refused::Job) => {
                        let gap = source.position().gap_at_end(Reason::JobQuota, source.now());
                        tracing::warn!("{}: {}", self.declared.id, Refused::Job);
                        metrics.gaps.inc();
                        // Of the batch nothing is stored.
                        let gap = super::record::Gap {
                            after_seq: totals.lines,
                            not_before: totals.lines,
                            ..gap
                        };
                        totals.gaps += 1;
                        break (false, vec![Record::Gap(gap)]);
                    }
                    Err(_) => return None,
                },
                Event::End { proven } => break (proven, Vec::new()),
            }
        };
        let complete = proven && (totals.gaps == 0 || planted(Bug::EndDespiteGap));
        records.push(Record::End(End {
            container_id: Some(container_id),
            complete,
            lines: totals.lines,
            bytes: totals.bytes,
        }));
        let totals = stream.append(records, &mut source).await.ok()?;
        if complete {
            metrics.complete.inc();
        } else {
            metrics.incomplete.inc();
        }
        drop(counted);
        Some(Outcome { complete, totals })
    }
}

impl<O: Open> Following<O> {
    /// Where the stream goes on, or how it had ended before. None where the process is ending.
    async fn start(
        &self,
        stream: &Stream,
        opened: Opened,
    ) -> Option<ControlFlow<Outcome, (Position, Totals)>> {
        let ended = |end: &End, totals| {
            let complete = end.complete;
            Some(ControlFlow::Break(Outcome { complete, totals }))
        };
        let Known {
            mut position,
            mut totals,
            end,
            ..
        } = opened.stream;
        if let Some(end) = end.filter(|_| opened.continued) {
            // After a restart: most containers of the pods that are there were read to their end.
            return ended(&end, totals);
        }
        let mut fresh = !opened.continued;
        if let Some(lake) = &self.lake
            && (!opened.known || position.is_blind())
            && !planted(Bug::StoreIsNotRecalled)
        {
            let recalled = recall(lake, &self.declared.id, &self.shutdown).await?;
            self.wal.after(recalled.epoch).await?;
            let run = Some(&self.declared.origin.container_id);
            let mut other = false;
            if let Some(end) = &recalled.end {
                other = end.container_id.as_ref() != run;
                if !other {
                    totals = stream.put(Record::End(end.clone())).await?;
                    totals.bytes = end.bytes;
                    return ended(end, totals);
                }
            }
            if recalled.any && !opened.known {
                let gap = recalled.gap(self.log.now());
                totals = stream.put(Record::Gap(gap)).await?;
            }
            if recalled.position.seq() > 0 {
                position = recalled.position;
                fresh = other;
            }
        }
        if fresh {
            position.starts(self.started);
        }
        Some(ControlFlow::Continue((position, totals)))
    }
}

struct Counted<'a>(&'a Metrics);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.streams.dec();
    }
}

struct Stream {
    wal: Wal,
    number: u32,
    shutdown: CancellationToken,
    metrics: Metrics,
}

impl Stream {
    /// Stores a record that is no line, which is always taken. None where the process is ending.
    async fn put(&self, record: Record) -> Option<Totals> {
        let gaps = u64::from(matches!(record, Record::Gap(_)));
        let totals = self.wal.append(self.number, vec![record]).await.ok()?;
        self.metrics.gaps.inc_by(gaps);
        Some(totals)
    }

    /// Stores records, again and again until it works.
    async fn append<O: Open>(
        &self,
        records: Vec<Record>,
        source: &mut Source<O>,
    ) -> Result<Totals, Refused> {
        let (mut lines, mut bytes, mut gaps) = (0, 0, 0);
        for record in &records {
            match record {
                Record::Line(line) => {
                    lines += 1;
                    bytes += line.message.len() as u64;
                }
                Record::Gap(_) => gaps += 1,
                Record::File(_) | Record::End(_) => {}
            }
        }
        loop {
            let mut appended = std::pin::pin!(self.wal.append(self.number, records.clone()));
            let done = tokio::select! {
                biased;
                done = &mut appended => done,
                () = tokio::time::sleep(SLOW) => {
                    source.pause();
                    tokio::select! {
                        biased;
                        done = &mut appended => done,
                        () = self.shutdown.cancelled() => return Err(Refused::Stopping),
                    }
                }
            };
            match done {
                Ok(totals) => {
                    self.metrics.lines.inc_by(lines);
                    self.metrics.bytes.inc_by(bytes);
                    self.metrics.gaps.inc_by(gaps);
                    return Ok(totals);
                }
                Err(Refused::Full) => {
                    self.metrics.full.inc();
                    source.pause();
                    tokio::select! {
                        biased;
                        () = self.shutdown.cancelled() => return Err(Refused::Stopping),
                        () = tokio::time::sleep(FULL) => {}
                    }
                }
                Err(refused) => return Err(refused),
            }
        }
    }
}
