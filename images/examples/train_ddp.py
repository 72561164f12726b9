"""Trains a small image classifier on all nodes with DistributedDataParallel.

    torchrun train_ddp.py --epochs 5        # trainyard sets torchrun up: the command of a job is all you write
    python train_ddp.py                     # one process, to try it out

Uses the GPUs of its node where there are some (NCCL), otherwise the CPU (Gloo). The data set is made up on the spot:
every class has a pattern, and an image is the pattern of its class under heavy noise.
"""

import argparse
import os
import pathlib
import socket

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.elastic.multiprocessing.errors import record
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

CLASSES = 10
SIZE = 16  # pixels an edge


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Distributed training on made-up images.")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--samples", type=int, default=6400, help="images in an epoch, over all ranks")
    parser.add_argument("--batch-size", type=int, default=64, help="images in a step of one rank")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--log-every", type=int, default=10, help="steps between two lines of a rank")
    parser.add_argument(
        "--checkpoint", type=pathlib.Path, help="saved after each epoch, and resumed from where it exists already"
    )
    return parser.parse_args()


def make_dataset(samples: int) -> TensorDataset:
    """The same on every rank, because the seed is."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(CLASSES, 1, SIZE, SIZE, generator=generator)
    labels = torch.randint(CLASSES, (samples,), generator=generator)
    noise = torch.randn(samples, 1, SIZE, SIZE, generator=generator)
    return TensorDataset(patterns[labels] + 2.5 * noise, labels)


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * (SIZE // 4) ** 2, CLASSES),
    )


def set_up() -> torch.device:
    """Joins the other ranks, and gives the device of this one."""
    for name, alone in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        os.environ.setdefault(name, alone)
    os.environ.setdefault("MASTER_ADDR", "localhost")
    os.environ.setdefault("MASTER_PORT", "29501")

    env = {name: os.environ[name] for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")}
    print(*(f"{name}={value}" for name, value in env.items()), f"node={socket.gethostname()}")
    address = socket.getaddrinfo(env["MASTER_ADDR"], env["MASTER_PORT"], type=socket.SOCK_STREAM)[0][4][0]
    print(f"rank={env['RANK']} found rank 0's host: {env['MASTER_ADDR']} is {address}")

    if torch.cuda.is_available():
        device = torch.device("cuda", int(env["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        dist.init_process_group("nccl")
    else:
        device = torch.device("cpu")
        torch.set_num_threads(1)
        dist.init_process_group("gloo")
    return device


def load_checkpoint(path: pathlib.Path | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Gives the epoch to start with. Rank 0 reads the file for everyone: the others may not see it."""
    state = None
    if path and dist.get_rank() == 0 and path.exists():
        state = torch.load(path, map_location="cpu", weights_only=True)
    box = [state]
    dist.broadcast_object_list(box, src=0)
    state = box[0]
    if state is None:
        return 0
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    print(f"rank={dist.get_rank()} resumes after epoch={state['epoch']}")
    return state["epoch"] + 1


def save_checkpoint(path: pathlib.Path, epoch: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Renames a complete file into place, so that no retry ever meets half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    torch.save({"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, partial)
    partial.replace(path)


def train(args: argparse.Namespace, device: torch.device) -> None:
    rank, world_size, node = dist.get_rank(), dist.get_world_size(), socket.gethostname()

    torch.manual_seed(0)
    model = make_model().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
    first_epoch = load_checkpoint(args.checkpoint, model, optimizer)
    ddp_model = DistributedDataParallel(model)

    dataset = make_dataset(args.samples)
    sampler = DistributedSampler(dataset)
    loader = DataLoader(dataset, batch_size=args.batch_size, sampler=sampler)
    loss_of = nn.CrossEntropyLoss()

    for epoch in range(first_epoch, args.epochs):
        sampler.set_epoch(epoch)
        for step, (images, labels) in enumerate(loader, start=1):
            optimizer.zero_grad()
            loss = loss_of(ddp_model(images.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
            if step == 1 or step % args.log_every == 0:
                print(f"rank={rank} world_size={world_size} node={node} {epoch=} {step=} loss={loss.item():.4f}")
        if args.checkpoint and rank == 0:
            save_checkpoint(args.checkpoint, epoch, model, optimizer)

    print(f"rank={rank} done")


@record  # an uncaught exception becomes part of torchrun's report
def main() -> None:
    args = parse_args()
    device = set_up()
    try:
        train(args, device)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
