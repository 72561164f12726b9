//! An answer to one question: what a [`Reader`] finds, cut to its last or first lines where that is asked
//! for, in blocks of bytes that each know where the next one begins.

use std::{collections::VecDeque, future::Future, time::Duration};

use tokio::{sync::mpsc, time::Instant};

use super::{
    Error,
    cursor::Cursor,
    reader::Reader,
    render::{Format, Renderer},
    tail::Entry,
};
use crate::logs::disk::{Disk, Folder};

/// Bytes of one block, about.
const BLOCK: usize = 64 * 1024;
/// Bytes that the last lines may take, since all of them are held until the last one is known.
const MAX_TAIL: usize = 64 * 1024 * 1024;
/// Between two looks for growth.
const POLL: Duration = Duration::from_millis(200);
/// A block comes at least so often, an empty one where there is no line: whoever waits then knows that
/// the connection is alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// How long, at least and at most, last lines are waited for after the job has ended: containers
/// that ran for a moment may not be in the store yet, and one whose pod vanished may never end.
const LINGER: (Duration, Duration) = (Duration::from_millis(1500), Duration::from_secs(10));

/// A part of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Whole lines.
    pub data: Vec<u8>,
    /// What goes on after them.
    pub cursor: Cursor,
    /// The newest attempt that lines were handed on of so far; 0 where none was.
    pub attempt: u32,
    /// Nothing comes after it.
    pub last: bool,
}

/// How much is answered, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// How lines are written.
    pub format: Format,
    /// The first so many lines.
    pub limit: Option<usize>,
}

/// What is left to be said.
pub struct Answer<D = Folder> {
    reader: Reader<D>,
    renderer: Renderer,
    /// Lines that were found and not handed on.
    pending: VecDeque<Entry>,
    /// The last so many lines of what is there are still to be found.
    tail: Option<usize>,
    /// How many lines may be handed on.
    left: Option<usize>,
    attempt: u32,
}

impl<D: Disk> Answer<D> {
    /// Of what `reader` finds.
    #[must_use]
    pub fn new(reader: Reader<D>, shape: Shape) -> Self {
        Self {
            renderer: Renderer::new(shape.format),
            pending: VecDeque::new(),
            tail: reader.selection().tail,
            left: shape.limit,
            attempt: 0,
            reader,
        }
    }

    /// The next block; None where nothing more is there now, or may be handed on.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub async fn next_block(&mut self) -> Result<Option<Block>, Error> {
        if let Some(n) = self.tail {
            self.find_tail(n).await?;
            self.tail = None;
        }
        if self.left == Some(0) {
            return Ok(None);
        }
        if self.pending.is_empty() {
            match self.reader.next_lines().await? {
                Some(entries) => self.pending = entries.into(),
                None => return Ok(None),
            }
        }
        let mut data = Vec::new();
        while data.len() < BLOCK && self.left != Some(0) {
            let Some(entry) = self.pending.pop_front() else {
                break;
            };
            let id = self.reader.stream(entry.at);
            self.attempt = self.attempt.max(id.attempt);
            self.renderer.write(id, &entry, &mut data);
            self.left = self.left.map(|left| left - 1);
        }
        Ok(Some(self.block(data, false)))
    }

    /// The end of it.
    #[must_use]
    pub fn last_block(&self) -> Block {
        self.block(Vec::new(), true)
    }

    fn block(&self, data: Vec<u8>, last: bool) -> Block {
        let mut cursor = self.reader.cursor();
        // Backwards, so that the first of each stream counts.
        for entry in self.pending.iter().rev() {
            cursor.set(self.reader.stream(entry.at), entry.line.seq - 1);
        }
        Block {
            data,
            cursor,
            attempt: self.attempt,
            last,
        }
    }

    async fn find_tail(&mut self, n: usize) -> Result<(), Error> {
        let size = |entry: &Entry| entry.line.message.len() + 64;
        let mut bytes = 0;
        while let Some(entries) = self.reader.next_lines().await? {
            for entry in entries {
                bytes += size(&entry);
                self.pending.push_back(entry);
                if self.pending.len() > n {
                    bytes -= self.pending.pop_front().as_ref().map_or(0, size);
                }
            }
            if bytes > MAX_TAIL {
                return Err(Error::LongTail { n });
            }
        }
        Ok(())
    }

    /// Sends the whole answer to `out`. With `ended`, goes on until that has happened and the last lines
    /// are there, or a later attempt has taken over from the one asked for. Ends when nobody listens any
    /// more.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub async fn send(
        mut self,
        ended: Option<impl Future<Output = ()>>,
        out: mpsc::Sender<Result<Block, Error>>,
    ) -> Result<(), Error> {
        let follow = ended.is_some();
        let mut ended = std::pin::pin!(async {
            match ended {
                Some(ended) => ended.await,
                None => std::future::pending().await,
            }
        });
        let mut linger: Option<Instant> = None;
        let mut signs = Signs::new(self.block(Vec::new(), false));
        loop {
            let block = {
                let mut next = std::pin::pin!(self.next_block());
                loop {
                    tokio::select! {
                        block = &mut next => break block?,
                        () = signs.due() => signs.give(&out).await,
                        () = out.closed() => return Ok(()),
                    }
                }
            };
            if let Some(block) = block {
                signs.after(&block);
                if out.send(Ok(block)).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            let waited = linger.map(|since| since.elapsed());
            let patience = if self.reader.ended() {
                LINGER.0
            } else {
                LINGER.1
            };
            if !follow || waited.is_some_and(|waited| waited > patience) {
                let _ = out.send(Ok(self.last_block())).await;
                return Ok(());
            }
            tokio::select! {
                () = &mut ended, if linger.is_none() => linger = Some(Instant::now()),
                () = tokio::time::sleep(POLL) => {}
                () = signs.due() => signs.give(&out).await,
                () = out.closed() => return Ok(()),
            }
            if linger.is_none() && self.reader.passed() {
                linger = Some(Instant::now());
            }
        }
    }

    /// Starts to [`Answer::send`]; an error comes as the last block. It ends when the receiver is
    /// dropped.
    pub fn start(
        self,
        ended: Option<impl Future<Output = ()> + Send + 'static>,
    ) -> mpsc::Receiver<Result<Block, Error>> {
        // One block on its way, so that a slow reader holds up nothing but itself.
        let (out, blocks) = mpsc::channel(1);
        tokio::spawn(async move {
            if let Err(error) = self.send(ended, out.clone()).await {
                let _ = out.send(Err(error)).await;
            }
        });
        blocks
    }
}

/// Signs of life while there is nothing to say.
struct Signs {
    /// What was sent last, without its lines.
    block: Block,
    due: Instant,
}

impl Signs {
    fn new(block: Block) -> Self {
        Self {
            block,
            due: Instant::now() + SIGN_OF_LIFE,
        }
    }

    fn after(&mut self, block: &Block) {
        *self = Self::new(Block {
            data: Vec::new(),
            cursor: block.cursor.clone(),
            ..*block
        });
    }

    async fn due(&self) {
        tokio::time::sleep_until(self.due).await;
    }

    async fn give(&mut self, out: &mpsc::Sender<Result<Block, Error>>) {
        self.due = Instant::now() + SIGN_OF_LIFE;
        let _ = out.send(Ok(self.block.clone())).await;
    }
}
