"""Meets a fault that goes away: one rank loses its storage in the first two attempts, and the third succeeds.

Shows what a retry is for. Needs nothing but Python, and no communication between the ranks.
"""

import argparse
import errno
import os
import time


def read_batch(step: int, broken: bool) -> None:
    """Stands for reading training data from a network file system."""
    if broken and step == 3:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), f"/data/shard-{step:05}.tar")


def main() -> None:
    parser = argparse.ArgumentParser(description="Fails in its first attempts, then succeeds.")
    parser.add_argument("--failures", type=int, default=2, help="attempts that fail")
    parser.add_argument("--rank", type=int, default=1, help="the node rank that fails")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--step-seconds", type=float, default=0.5)
    args = parser.parse_args()

    # Set by trainyard: attempts count from 1, node ranks from 0.
    attempt = int(os.environ.get("TRAINYARD_ATTEMPT", "1"))
    rank = int(os.environ.get("TRAINYARD_RANK", "0"))

    broken = rank == args.rank and attempt <= args.failures
    for step in range(1, args.steps + 1):
        read_batch(step, broken)
        print(f"{attempt=} {rank=} {step=} loss={1 / step:.4f}", flush=True)
        time.sleep(args.step_seconds)
    print(f"{attempt=} {rank=} done", flush=True)


if __name__ == "__main__":
    main()
