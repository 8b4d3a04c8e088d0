"""The processes that train together: who is who, which device each has, and what they tell one another."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist

from scrfdkit.data.words import plural
from scrfdkit.errors import DeviceError, OptionError, ScrfdError

_TOLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Processes:
    """One of `world` processes, the one called `rank`, and its device.

    local_rank: its number on its machine. What asks the others (`total`, `wait`, `gather`, `agree`) must be called by
    every process in the same order.
    """

    rank: int
    world: int
    local_rank: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def share(self, batch: int, accumulate: int) -> int:
        """Pictures that a process takes at once. Raises OptionError where `batch` cannot be dealt out evenly."""
        parts = self.world * accumulate
        if batch % parts:
            near = [n for n in (batch // parts * parts, -(-batch // parts) * parts) if n]
            raise OptionError(
                f"batch: {batch} pictures cannot be dealt out evenly to"
                f" {plural(self.world, 'process', 'processes')} in {accumulate} parts each; it"
                f" must be a multiple of {parts}, like {' or '.join(map(str, near))}"
            )
        return batch // parts

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of every process's tensor, in a new one; with one process the tensor itself. No gradient flows."""
        if self.world == 1:
            return tensor
        summed = tensor.detach().clone()
        dist.all_reduce(summed)
        return summed

    def wait(self) -> None:
        """Returns when every process has called it."""
        if self.world > 1:
            dist.all_reduce(torch.zeros(1))

    def gather(self, text: str) -> list[str]:
        """What every process said, by rank."""
        if self.world == 1:
            return [text]
        data = text.encode()
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        dist.all_gather(lengths, torch.tensor([len(data)]))
        longest = max(int(n) for n in lengths)
        own = torch.zeros(max(longest, 1), dtype=torch.uint8)
        own[: len(data)] = torch.frombuffer(bytearray(data or b"\0"), dtype=torch.uint8)[: len(data)]
        heard = [torch.empty_like(own) for _ in range(self.world)]
        dist.all_gather(heard, own)
        return [bytes(h.numpy()[: int(n)]).decode() for h, n in zip(heard, lengths, strict=True)]

    def agree(self, facts: Mapping[str, str]) -> None:
        """Raises OptionError, on every process alike, unless all have the same facts: {"recipe": its JSON, ...}."""
        own = {name: hashlib.sha256(value.encode()).hexdigest() for name, value in facts.items()}
        heard = [json.loads(text) for text in self.gather(json.dumps(own))]
        names = dict.fromkeys(name for said in heard for name in said)
        wrong = []
        for name in names:
            others = [str(rank) for rank, said in enumerate(heard) if said.get(name) != heard[0].get(name)]
            if others:
                wrong.append(f"{name} of rank {', '.join(others)}")
        if wrong:
            raise OptionError(
                f"the processes were not started alike: {'; '.join(wrong)} is not that of rank 0; "
                "start all with the same command, files and version"
            )

    def stop(self) -> None:
        """Leaves the others; call it last, also after an error."""
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()


def start(device: str = "auto") -> Processes:
    """This process, and the others where torchrun (or whatever sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
    MASTER_PORT) started several: they meet over NCCL on CUDA, over gloo on the CPU.

    device: "cpu"; "cuda", for several processes the GPU with the process's local rank; "cuda:N", for one process only;
    "auto", CUDA where there is a GPU that works. Raises OptionError for another word or a half-set environment,
    DeviceError where the device cannot be had, and ScrfdError where the processes do not meet.
    """
    rank, world, local_rank = _told()
    place = _device(device, world, local_rank)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if world > 1:
        # Small words (`gather`) go over gloo on either device.
        backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
        try:
            dist.init_process_group(backend, rank=rank, world_size=world)
        except (RuntimeError, ValueError) as error:
            address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise ScrfdError(f"the {world} processes do not meet at {address}: {error}") from None
    return Processes(rank, world, local_rank, place)


def _told() -> tuple[int, int, int]:
    """Rank, number of processes and rank on this machine, from the environment."""
    if "WORLD_SIZE" not in os.environ and "RANK" not in os.environ:
        return 0, 1, 0
    missing = [name for name in _TOLD if not os.environ.get(name)]
    if missing:
        raise OptionError(f"environment: {', '.join(missing)} is not set, but others of {', '.join(_TOLD)} are")
    try:
        rank, world, local_rank = (int(os.environ[name]) for name in _TOLD[:3])
    except ValueError:
        raise OptionError(f"environment: {', '.join(_TOLD[:3])} must be whole numbers") from None
    if not (0 <= rank < world and local_rank >= 0):
        raise OptionError(f"environment: RANK {rank} and LOCAL_RANK {local_rank} do not fit WORLD_SIZE {world}")
    return rank, world, local_rank


def _device(word: str, world: int, local_rank: int) -> torch.device:
    kind, colon, number = word.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and not (kind == "cuda" and number.isdecimal())):
        raise OptionError(f"device: {word!r} is none of auto, cpu, cuda, cuda:N")
    if kind == "cpu" or (kind == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if number and world > 1:
        raise OptionError(f"device: {word} is one GPU, and {world} processes need one each; use cuda")
    index = int(number) if number else local_rank
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= count:
        found = f"this machine has {count}" if count else "PyTorch finds none that it can use"
        raise DeviceError(f"device: {word}: GPU {index} is needed, {found}")
    return torch.device("cuda", index)
