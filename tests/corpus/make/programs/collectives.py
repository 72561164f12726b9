"""Collective operations that do not fit together, or meet a network that does not work."""

import datetime
import logging
import os
import sys
import threading
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

how = sys.argv[1]
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
torch.set_num_threads(1)
logging.basicConfig(level=logging.INFO, format=f"%(asctime)s [{rank}] %(levelname)s %(message)s")
log = logging.getLogger("pretrain")


def steps(n, pause=0.05):
    for i in range(n):
        t = torch.full((1000,), float(rank))
        dist.all_reduce(t)
        time.sleep(pause)
        if i % 5 == 0:
            log.info("step %d sum %.1f throughput %.0f tok/s", i, t[0].item(), 1e5 + i)


if how == "nccl":
    dist.init_process_group("nccl")
if how == "backend-typo":
    dist.init_process_group("gloop")
log.info("joining %s:%s as %d of %d", os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"], rank, world)
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=int(os.environ.get("TIMEOUT", 30))))
log.info("process group is up")
if how == "forever":
    steps(100000, 0.1)
steps(15)
if how == "mismatched-ops":
    if rank == 0:
        dist.all_reduce(torch.ones(10))
    else:
        dist.broadcast(torch.ones(10), src=1)
        dist.all_gather([torch.ones(5) for _ in range(world)], torch.ones(5))
    dist.barrier()
elif how == "mismatched-shapes":
    dist.all_reduce(torch.ones(10 + rank))
elif how == "gather-shapes":
    dist.all_gather([torch.ones(10) for _ in range(world)], torch.ones(11 if rank == 1 else 10))
elif how == "dtype":
    dist.all_reduce(torch.ones(10, dtype=torch.float64 if rank == 1 else torch.float32))
elif how == "monitored-barrier":
    if rank == 2:
        time.sleep(3600)
    dist.monitored_barrier(timeout=datetime.timedelta(seconds=5), wait_all_ranks=True)
elif how == "unused-parameters":
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.a(x)

    model = DistributedDataParallel(Net())
    for _ in range(3):
        model(torch.randn(2, 4)).sum().backward()
elif how == "skip-one":
    if rank == 1:
        log.warning("rank 1 skips the evaluation: no samples in its shard")
        sys.exit(0)
    dist.all_reduce(torch.ones(3))
    dist.barrier()
elif how == "send-nobody":
    if rank == 0:
        dist.recv(torch.ones(3), src=1)
    else:
        time.sleep(3600)
elif how == "bad-rank":
    dist.broadcast(torch.ones(2), src=world)
elif how == "straggler":
    if rank == world - 1:
        log.info("tokenizing shard 3 of 900 (cold cache) ...")
        time.sleep(3600)
    steps(10)
elif how == "two-failures":
    if rank == 1:
        time.sleep(1.5)
        raise ValueError("rank 1 found 3 duplicated sessions")
    if rank == 2:
        raise KeyError("user_embedding")
    steps(200)
elif how == "thread-deadlock":
    lock = threading.Lock()
    if rank == 1:
        log.info("rebuilding the prefetch queue")
        lock.acquire()
        lock.acquire()
    steps(10)
dist.destroy_process_group()
