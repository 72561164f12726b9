"""Has a bug: after a few steps, it looks up a label that is in no table, and exits with 1.

No retry can fix this, so trainyard makes none and says where to look. Needs nothing but Python.
"""

import argparse
import os
import time

LABELS = {"cat": 0, "dog": 1, "horse": 2}
DATA = ["cat", "dog", "cat", "horse", "zebra"]


def encode(label: str) -> int:
    return LABELS[label]


def main() -> None:
    parser = argparse.ArgumentParser(description="Fails with a KeyError.")
    parser.add_argument("--step-seconds", type=float, default=0.5)
    args = parser.parse_args()

    rank = int(os.environ.get("TRAINYARD_RANK", "0"))
    for step, label in enumerate(DATA, start=1):
        target = encode(label)
        print(f"{rank=} {step=} {target=} loss={1 / step:.4f}", flush=True)
        time.sleep(args.step_seconds)


if __name__ == "__main__":
    main()
