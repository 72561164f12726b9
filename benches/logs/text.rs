//! What trainers write: steps with a loss, progress bars, warnings, the communication library's notes, and
//! now and then a traceback. The same seed writes the same lines.

use std::io::Write;

const TRACEBACK: [&str; 11] = [
    "Traceback (most recent call last):",
    "  File \"/workspace/train.py\", line 412, in <module>",
    "    main(parse_args())",
    "  File \"/workspace/train.py\", line 367, in main",
    "    batch = next(batches)",
    "  File \"/usr/lib/python3/dist-packages/torch/utils/data/dataloader.py\", line 630, in __next__",
    "    data = self._next_data()",
    "  File \"/usr/lib/python3/dist-packages/torch/utils/data/_utils/fetch.py\", line 54, in fetch",
    "    data = [self.dataset[idx] for idx in possibly_batched_index]",
    "OSError: [Errno 116] Stale file handle: '/data/shard-00003.tar'",
    "the batch is skipped, and training goes on",
];
const BAR: [&str; 9] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"];

/// The lines of one rank.
pub struct Text {
    rank: usize,
    step: u64,
    random: u64,
    /// The next line of a traceback that is being written.
    traceback: Option<usize>,
}

impl Text {
    pub fn new(rank: usize) -> Self {
        Self {
            rank,
            step: 0,
            random: 0x9e37_79b9_7f4a_7c15 ^ ((rank as u64 + 1) << 20),
            traceback: None,
        }
    }

    /// Writes the next message, without a newline.
    pub fn write(&mut self, to: &mut Vec<u8>) {
        let _ = self.try_write(to);
    }

    fn try_write(&mut self, to: &mut Vec<u8>) -> std::io::Result<()> {
        if let Some(at) = self.traceback {
            self.traceback = (at + 1 < TRACEBACK.len()).then_some(at + 1);
            return to.write_all(TRACEBACK[at].as_bytes());
        }
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let (r, rank) = (self.random, self.rank);
        match r % 1000 {
            0 => {
                self.traceback = Some(0);
                write!(to, "[rank{rank}]: a worker failed:")
            }
            1..100 => self.bar(to),
            100..150 => write!(
                to,
                "WARNING:torch.utils.data: worker {} took {}.{:03} s for batch {:08x}",
                r >> 12 & 31,
                r >> 20 & 7,
                (r >> 24) % 1000,
                r >> 32
            ),
            150..200 => write!(
                to,
                "gpu-{}:{}:{} [{}] NCCL INFO Channel {:02}/0 : {}[{}] -> {}[{}] via P2P/IPC/read",
                rank / 8,
                1000 + rank,
                1400 + rank,
                rank % 8,
                r >> 16 & 31,
                rank,
                rank % 8,
                (rank + 1) % 64,
                (rank + 1) % 8
            ),
            200..210 => write!(
                to,
                "[rank{rank}] INFO checkpoint: saved /ckpt/step-{}/shard-{r:016x}.pt ({} bytes)",
                self.step,
                r % 1_000_000_007
            ),
            _ => {
                self.step += 1;
                write!(
                    to,
                    "epoch={} step={} loss={}.{:06} grad_norm={}.{:04} lr=3.0e-04 tokens/s={} mem={}.{}GiB",
                    self.step / 10_000,
                    self.step,
                    r >> 12 & 3,
                    r >> 20 & 0xf_ffff,
                    r >> 14 & 1,
                    r >> 40 & 0x1fff,
                    90_000 + (r >> 50) % 9999,
                    60 + (r >> 16 & 7),
                    r >> 54 & 7
                )
            }
        }
    }

    /// A progress bar, as it is redrawn over itself: three times in one line.
    fn bar(&self, to: &mut Vec<u8>) -> std::io::Result<()> {
        for redrawn in 0..3 {
            let done = usize::try_from((self.step + redrawn) % 10_000).unwrap_or(0);
            let (full, part) = (done / 1000, done % 1000 * 8 / 1000);
            write!(
                to,
                "\rEpoch {}: {:3}%|{}{}{}| {done}/10000 [{:02}:{:02}<{:02}:{:02}, 7.{:02}it/s]",
                self.step / 10_000,
                done / 100,
                "█".repeat(full),
                BAR[part],
                " ".repeat(9 - full),
                done / 420,
                done / 7 % 60,
                (10_000 - done) / 420,
                (10_000 - done) / 7 % 60,
                self.random >> 30 & 63
            )?;
        }
        Ok(())
    }
}
