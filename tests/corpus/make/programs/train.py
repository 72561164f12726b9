"""Trains a click model with DistributedDataParallel. The environment chooses what goes wrong, and where."""

import argparse
import ctypes
import datetime
import json
import logging
import os
import random
import signal
import sys
import time
import warnings

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.elastic.multiprocessing.errors import record
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from data import CLASSES, FEATURES, Clicks

log = logging.getLogger("train")


def parse_args():
    p = argparse.ArgumentParser()
    p.add_argument("--epochs", type=int, default=3)
    p.add_argument("--rows", type=int, default=640)
    p.add_argument("--batch-size", type=int, default=32)
    p.add_argument("--lr", type=float, default=0.05)
    p.add_argument("--workers", type=int, default=0)
    p.add_argument("--pause", type=float, default=0.05, help="seconds that a step takes")
    p.add_argument("--timeout", type=int, default=15, help="seconds of a collective operation")
    p.add_argument("--style", default="plain", choices=["plain", "json", "hf", "bar", "logging"])
    p.add_argument("--checkpoint")
    p.add_argument("--step", type=int, default=12, help="when the fault happens")
    p.add_argument("--fault", default="", help="RANK:WHAT[,RANK:WHAT]")
    return p.parse_args()


def fault_of(args, rank):
    return dict(f.split(":") for f in args.fault.split(",") if f).get(str(rank), "")


class Reporter:
    def __init__(self, style, rank, world):
        self.style, self.rank, self.world, self.start = style, rank, world, time.time()
        logging.basicConfig(level=logging.INFO, stream=sys.stdout,
                            format=f"%(asctime)s,%(msecs)03d %(levelname)s [rank{rank}] %(name)s: %(message)s",
                            datefmt="%Y-%m-%d %H:%M:%S")

    def step(self, epoch, step, steps, loss, lr):
        if self.style == "plain":
            if step % 5 == 0:
                print(f"epoch {epoch} | step {step}/{steps} | loss {loss:.4f} | lr {lr:.2e} | error_rate {random.random():.3f}")
        elif self.style == "json":
            print(json.dumps({"epoch": epoch, "step": step, "train/loss": round(loss, 4), "train/error": round(random.random(), 3),
                              "failed_requests": 0, "rank": self.rank}))
        elif self.style == "hf":
            if step % 5 == 0:
                print({"loss": round(loss, 4), "grad_norm": round(random.random(), 3), "learning_rate": lr, "epoch": round(epoch + step / steps, 2)})
        elif self.style == "logging":
            log.info("step %d loss=%.4f eta=%ds", epoch * steps + step, loss, steps - step)
            if step % 7 == 3:
                log.warning("data loader waited %.1f ms: input pipeline may be a bottleneck", random.random() * 50)
            if step % 9 == 4:
                log.error("metrics push failed: HTTPSConnectionPool(host='metrics.internal', port=443): Read timed out. (attempt 1/5), retrying")
        else:
            n = 30 * step // steps
            sys.stderr.write(f"\rEpoch {epoch}: {100 * step // steps:3d}%|{'█' * n}{' ' * (30 - n)}| {step}/{steps} [00:{int(time.time() - self.start):02d}<00:01, {1 / max(0.01, random.random()):.2f}it/s, loss={loss:.3f}]")
            if step == steps:
                sys.stderr.write("\n")


def warmup(step, total):
    return min(1.0, step / total)


def misbehave(what, args, model, loss):
    rank = dist.get_rank()
    if what == "sigkill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "segv":
        ctypes.string_at(8)
    elif what == "bus":
        os.kill(os.getpid(), signal.SIGBUS)
    elif what == "abort":
        os.abort()
    elif what == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif what == "sigterm":
        os.kill(os.getpid(), signal.SIGTERM)
    elif what == "exit-0":
        os._exit(0)
    elif what == "exit-3":
        sys.exit(3)
    elif what == "exit-text":
        sys.exit(f"rank {rank}: config says 10 classes, the label map has 12: fix conf/labels.yaml")
    elif what == "loop":
        while True:
            time.sleep(1)
    elif what == "oom":
        hoard = []
        while True:
            hoard.append(torch.ones(8 * 1024 * 1024))
    elif what == "cuda":
        model.cuda()
    elif what == "zero":
        warmup(3, 0)
    elif what == "finite":
        assert torch.isfinite(loss * float("nan")), f"loss is not finite at step {args.step}: {loss.item() * float('nan')}"
    elif what == "attribute":
        model.module.embed.weight.data.zero_()
    elif what == "type":
        loss += None
    elif what == "runtime":
        raise RuntimeError("validation set overlaps the training set in 312 sessions")
    elif what == "matmul":
        nn.Linear(FEATURES * 2, 1)(torch.randn(4, FEATURES))
    elif what == "shape-reduce":
        dist.all_reduce(torch.ones(3))
    elif what == "recursion":
        def depth(x):
            return depth(x) + 1
        depth(0)
    elif what == "memory-error":
        torch.empty(1 << 46)
    elif what == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    elif what == "save":
        torch.save(model.state_dict(), args.checkpoint or "/mnt/checkpoints/step.pt")
    elif what == "resolve":
        import urllib.request
        urllib.request.urlopen("http://feature-store.ml.svc.cluster.local:8080/v1/schema", timeout=5)


@record
def main():
    args = parse_args()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    fault = fault_of(args, rank)
    torch.set_num_threads(1)
    report = Reporter(args.style, rank, world)
    print(f"[rank {rank}/{world}] torch {torch.__version__}, master {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}")
    if fault == "late":
        time.sleep(3600)
    if fault == "early-import":
        import flash_attn  # noqa: F401
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=args.timeout))
    if rank == 0:
        warnings.warn("torch.cuda.amp.GradScaler is enabled, but CUDA is not available.  Disabling.", UserWarning, stacklevel=2)
    model = nn.Sequential(nn.Linear(FEATURES, 64 if fault != "other-model" else 48), nn.ReLU(), nn.Linear(64 if fault != "other-model" else 48, CLASSES))
    model = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)
    rows = args.rows if fault != "fewer-rows" else args.rows // 3
    dataset = Clicks(rank, rows, fault, min(args.step * args.batch_size + 5, rows - 1))
    loader = DataLoader(dataset, batch_size=args.batch_size, num_workers=args.workers)
    steps = len(loader)
    for epoch in range(args.epochs):
        for step, (x, y) in enumerate(loader, start=1):
            time.sleep(args.pause)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            if epoch == 0 and step == args.step and fault:
                misbehave(fault, args, model, loss)
            loss.backward()
            optimizer.step()
            report.step(epoch, step, steps, loss.item(), args.lr)
            if args.checkpoint and rank == 0 and step % 10 == 0:
                torch.save({"model": model.state_dict(), "pad": torch.zeros(2_000_000)}, f"{args.checkpoint}/epoch-{epoch}-{step}.pt")
                log.info("saved %s/epoch-%d-%d.pt", args.checkpoint, epoch, step)
    dist.barrier()
    print(f"[rank {rank}/{world}] finished")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
