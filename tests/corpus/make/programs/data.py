"""Click records of one rank's shard."""

import json
import os
import threading
import time

import torch
from torch.utils.data import Dataset

FEATURES = 16
CLASSES = 10


def make_shard(rank, rows):
    g = torch.Generator().manual_seed(rank)
    x = torch.randn(rows, FEATURES, generator=g)
    y = torch.randint(CLASSES, (rows,), generator=g)
    return [{"features": x[i].tolist(), "label": int(y[i]), "session": f"s-{rank}-{i}"} for i in range(rows)]


def spoil(rows, how, at):
    """What the upstream export does to a shard once in a while."""
    if how == "label-checked":
        rows[at]["label"] = 12
    if how == "no-label":
        del rows[at]["label"]
    elif how == "short":
        del rows[at:]
    elif how == "label-12":
        rows[at]["label"] = 12
    elif how == "17-features":
        rows[at]["features"].append(0.5)
    elif how == "nan":
        rows[at]["features"][3] = float("nan")
    elif how == "null":
        rows[at]["features"] = None
    elif how == "text":
        rows[at]["features"][0] = "n/a"
    return rows


class Clicks(Dataset):
    def __init__(self, rank, size, fault, at):
        self.rank, self.size, self.fault, self.at = rank, size, fault, at
        self.rows = spoil(make_shard(rank, size), fault, at)
        self.lock = threading.Lock()

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        row = self.rows[index]
        if index == self.at:
            self.prefetch(index)
        return torch.tensor(row["features"]), self.parse_label(row, index)

    def parse_label(self, row, index):
        label = row["label"]
        if label >= CLASSES and self.fault == "label-checked":
            raise ValueError(f"record {row['session']}: label {label} is not below {CLASSES}")
        return label

    def prefetch(self, index):
        shard = f"/data/clicks/part-{index:05d}.jsonl"
        if self.fault == "no-shard":
            with open(shard) as f:
                return [json.loads(line) for line in f]
        if self.fault == "bad-json":
            return json.loads('{"session": "s-1-99", "features": [0.1, 0.2')
        if self.fault == "bad-bytes":
            return b'{"user": "J\xf6rg"}'.decode("utf-8")
        if self.fault == "worker-dies":
            os.kill(os.getpid(), 9)
        if self.fault == "deadlock":
            self.lock.acquire()
            self.lock.acquire()
        if self.fault == "slow":
            time.sleep(3600)
        return None
