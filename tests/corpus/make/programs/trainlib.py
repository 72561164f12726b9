"""What training scripts print while all is well."""

import json
import logging
import random
import sys
import time

logging.basicConfig(level=logging.INFO, format="%(asctime)s | %(levelname)-8s | %(name)s:%(lineno)d - %(message)s")
log = logging.getLogger("trainer")


def fit(steps=20, style="plain", pause=0.01, start=0, loss=2.3):
    for i in range(start + 1, start + steps + 1):
        time.sleep(pause)
        loss *= 0.985 + random.random() * 0.02
        if style == "plain":
            print(f"step {i:5d} | loss {loss:.4f} | err {random.random():.3f} | grad-norm {random.random() * 3:.2f} | {random.randint(900, 1200)} samples/s")
        elif style == "json":
            print(json.dumps({"step": i, "loss": round(loss, 5), "error_rate": round(random.random(), 4), "failures": 0}))
        elif style == "hf":
            if i % 5 == 0:
                print({"loss": round(loss, 4), "grad_norm": round(random.random() * 2, 4), "learning_rate": 5e-05 * (1 - i / 1000), "epoch": round(i / 100, 2)})
        elif style == "log":
            log.info("step=%d loss=%.4f lr=%.2e", i, loss, 5e-5)
            if i % 8 == 5:
                log.warning("could not reach metrics gateway (ConnectionRefusedError: [Errno 111] Connection refused), will retry in 30 s")
        elif style == "bar":
            total = start + steps
            n = 40 * i // total
            sys.stderr.write(f"\r{100 * i // total:3d}%|{'█' * n}{' ' * (40 - n)}| {i}/{total} [{i // 60:02d}:{i % 60:02d}<00:{(total - i) % 60:02d}, {random.random() * 9 + 1:.2f}it/s, loss={loss:.3f}]")
            sys.stderr.flush()
        elif style == "ansi":
            print(f"\x1b[32mINFO\x1b[0m  \x1b[2m{time.strftime('%H:%M:%S')}\x1b[0m step=\x1b[1m{i}\x1b[0m loss=\x1b[33m{loss:.4f}\x1b[0m")
    if style == "bar":
        sys.stderr.write("\n")
    return loss


def banner(name="run"):
    print(f"========== {name} ==========")
    print(f"python {sys.version.split()[0]}  argv={sys.argv[1:]}")
    print("/workspace/src/trainlib.py:58: FutureWarning: `torch.cuda.amp.autocast(args...)` is deprecated. Please use `torch.amp.autocast('cuda', args...)` instead.")
