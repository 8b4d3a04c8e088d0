"""Several real processes for tests, that meet over gloo as those of torchrun do."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing


def together(work: Callable[[Path], Any], folder: Path, world: int = 2) -> list[Any]:
    """What `work(folder)` returned in each of `world` processes: a function of a test module's top level."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_one, args=(work, folder, world, port), nprocs=world)
    return [torch.load(folder / f"rank-{rank}.pt") for rank in range(world)]


def _one(rank: int, work: Callable[[Path], Any], folder: Path, world: int, port: int) -> None:
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {key: str(value) for key, value in told.items()}
    torch.set_num_threads(1)
    torch.save(work(folder), folder / f"rank-{rank}.pt")
