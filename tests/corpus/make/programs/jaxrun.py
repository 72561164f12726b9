"""JAX on several hosts: the coordination service notices who is missing."""

import os
import signal
import sys
import time

import jax

how = sys.argv[1]
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
if how == "late" and rank == 1:
    time.sleep(3600)
jax.distributed.initialize(f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}", world, rank,
                           initialization_timeout=20, heartbeat_timeout_seconds=10)
from jax.experimental import multihost_utils  # noqa: E402
import jax.numpy as jnp  # noqa: E402

print(f"process {rank}/{world}: {jax.device_count()} devices, {jax.local_device_count()} local", flush=True)
for step in range(400):
    total = multihost_utils.process_allgather(jnp.ones(4) * step).sum()
    if step % 4 == 0:
        print(f"I step={step} loss={float(total) / (step + 1):.3f} mfu=0.41 errors=0", flush=True)
    time.sleep(0.2)
    if step == 15 and rank == 1:
        if how == "raise":
            jnp.zeros((3, 4)) @ jnp.zeros((5, 6))
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
