"""Logs that look worse than they are, or worse than what really ended the program."""

from one_pod import D, S, TMPFS, U, single

# --- red-looking logs ----------------------------------------------------------------------------------------------
single("red-retried-s3-then-key-error", "Timeouts of the store that were retried, and then a KeyError.", U, "KeyError: 'attention_mask'",
       """
       from trainlib import fit, log
       for i in range(4):
           fit(6, "log", start=6 * i)
           log.error("GetObject failed (attempt %d/5): ReadTimeoutError: AWSHTTPConnectionPool(host='s3.ml.internal', port=9000): Read timed out.; retrying", i + 1)
           log.warning("An error occurred (SlowDown) when calling the GetObject operation: Please reduce your request rate.")
       log.info("recovered after 4 retries")
       fit(10, "log", start=24)
       {"input_ids": 1}["attention_mask"]
       """)
single("red-handled-traceback-then-disk", "A handled traceback of a validation, much later a full disk.", S, "unexpected pos",
       """
       import torch
       from trainlib import fit, log
       fit(10, "log")
       try:
           torch.zeros(3) @ torch.zeros(4)
       except RuntimeError:
           log.exception("validation of extra head failed, skipped")
       for i in range(30):
           fit(3, "log", start=10 + 3 * i)
           torch.save(torch.zeros(500_000), f"/ckpt/{i}.pt")
       """, volumes=TMPFS("/ckpt", "16Mi"), fine=True)
single("red-oom-skipped-then-assert", "Batches that were skipped for a lack of GPU memory, and then an assertion.", U, "AssertionError: vocabulary has 50257 entries, embedding 50304",
       """
       from trainlib import fit, log
       for i in range(3):
           fit(8, "plain", start=8 * i)
           print("WARNING: CUDA out of memory. Tried to allocate 2.00 GiB; skipping batch", i, "and emptying the cache")
       fit(30, "plain", start=24)
       assert 50257 == 50304, "vocabulary has 50257 entries, embedding 50304"
       """)
single("red-connection-errors-then-oom-kill", "A log full of connection errors (telemetry), and an OOM kill.", "HostOutOfMemory", None,
       """
       import logging
       from trainlib import fit, log
       keep = []
       for i in range(100):
           fit(3, "log", start=3 * i)
           log.error("telemetry: ConnectionResetError: [Errno 104] Connection reset by peer")
           keep.append(b"x" * 15_000_000)
       """, memory="400Mi")
single("red-restarts-in-one-log", "A wrapper starts the program three times: twice the store is at fault, the last time a wrong shape.", U, "mat1 and mat2 shapes cannot be multiplied",
       """
       import os, torch
       from trainlib import fit
       n = int(open("/tmp/n").read()) if os.path.exists("/tmp/n") else 0
       open("/tmp/n", "w").write(str(n + 1))
       fit(10, "plain", start=10 * n)
       if n < 2: raise ConnectionResetError(104, "Connection reset by peer")
       torch.nn.Linear(8, 8)(torch.zeros(4, 9))
       """, command=["sh", "-c", "for i in 1 2 3; do echo \"=== launch $i ===\"; python src/train.py && exit 0; echo \"attempt $i failed with code $?, restarting\"; done; exit 1"])
single("red-torchrun-restarts", "torchrun restarts its worker twice after a lost connection, then a missing file ends it.", D, "FileNotFoundError: [Errno 2] No such file or directory: '/mnt/data/val.idx'",
       """
       import os
       from torch.distributed.elastic.multiprocessing.errors import record
       from trainlib import fit
       @record
       def main():
           n = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
           fit(8, "log", start=8 * n)
           if n < 2: raise ConnectionError("feature server closed the connection")
           open("/mnt/data/val.idx")
       main()
       """, command=["torchrun", "--standalone", "--max-restarts", "2", "--nproc-per-node", "1", "src/train.py"], env={"USE_LIBUV": 0})
single("red-progress-bar-long", "A progress bar of some hundred KB in one line, then an IndexError.", U, "IndexError: list index out of range",
       """
       from trainlib import fit
       fit(2200, "bar", pause=0.001)
       [1, 2, 3][7]
       """, stamped=False)
single("red-progress-bar-traceback-same-line", "A traceback begins in the middle of a progress bar's line.", U, "ZeroDivisionError: division by zero",
       """
       import sys
       from tqdm import tqdm
       from trainlib import fit
       for i in tqdm(range(300), desc="train"):
           if i == 250: 1 / (i - 250)
       """)
single("red-ansi-rich-traceback", "rich prints the traceback in colours and frames.", U, "ValueError",
       """
       from rich.traceback import install
       install(show_locals=True)
       from rich.console import Console
       from trainlib import fit
       Console(force_terminal=True).print("[bold green]training[/]")
       fit(20, "ansi")
       def pick(name): raise ValueError(f"unknown schedule {name}")
       pick("cosinee")
       """, env={"FORCE_COLOR": 1, "COLUMNS": 100})
single("red-deprecations-then-type-error", "Deprecation notices and 'error' metrics, then a TypeError.", U, "TypeError: forward() missing 1 required positional argument: 'mask'",
       """
       import warnings
       from trainlib import fit
       for w in ("np.bool8 is a deprecated alias", "failed to import apex, falling back to native amp", "No CUDA runtime is found, using CUDA_HOME='/usr/local/cuda'"):
           warnings.warn(w, DeprecationWarning if "alias" in w else UserWarning)
       fit(60, "json")
       def forward(x, mask): return x
       forward(1)
       """)
single("red-atexit-noise-after", "After the exception, clean-up hooks print errors of their own.", U, "ValueError: expected sequence length 2048, got 2047",
       """
       import atexit, sys
       from trainlib import fit
       class Client:
           def __del__(self): raise OSError("[Errno 9] Bad file descriptor")
       c = Client()
       atexit.register(lambda: print("wandb: ERROR Control-C detected -- Run data was not synced", file=sys.stderr))
       atexit.register(lambda: (_ for _ in ()).throw(BrokenPipeError(32, "Broken pipe")))
       fit(15)
       raise ValueError("expected sequence length 2048, got 2047")
       """)
single("red-exception-swallowed-exit-1", "The program logs its exception in one line and exits with 1.", U, "training failed: 'RobertaConfig' object has no attribute 'n_layer'",
       """
       import sys
       from trainlib import fit, log
       fit(9, "log")
       log.error("training failed: 'RobertaConfig' object has no attribute 'n_layer'")
       sys.exit(1)
       """, fine=True)
