"""Measured latency of all candidates, in turns within one run, so that whatever slows the machine slows all of them."""

from __future__ import annotations

import math
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scrfdkit import atomic
from scrfdkit.benchmark.latency import network, spread
from scrfdkit.errors import OptionError
from scrfdkit.export.contract import Contract
from scrfdkit.export.onnx import build
from scrfdkit.machine import machine
from scrfdkit.model.checkpoint import WeightInfo
from scrfdkit.model.cost import cost
from scrfdkit.model.net import SCRFD, blank
from scrfdkit.runtime.base import Runtime
from scrfdkit.runtime.formats import FORMATS, open_runtime, version
from scrfdkit.search.candidate import Candidate
from scrfdkit.search.latencies import Latencies, digest
from scrfdkit.spec import ModelSpec
from scrfdkit.zoo import ZOO

Watch = Callable[[int, int], None]
"""Told how many steps are over, of how many: an opened network is one, and a run that counts is one."""

REFERENCE = ZOO["scrfd_2.5g"].spec
"""Takes part in every group of networks, and so ties the times of groups and of runs together."""

_BYTES = 2e9
"""Of all networks that are open at once."""
_COPIES = 3
"""What an open network takes, in bytes of its weights and of its maps at the worst moment. In onnxruntime 16 networks
of 2.5 GFLOPs took 0.74 GB where this says 0.91, and 12 of 34 GFLOPs 6.3 where it says 7.2."""
_PAUSE = 0.1
"""Seconds before a turn with several threads: those of onnxruntime look for work for 40 ms after a run, and without a
pause the next network's first run took twice as long."""


def measure(
    candidates: Sequence[Candidate],
    *,
    width: int = 640,
    height: int = 480,
    threads: int = 1,
    rounds: int = 20,
    runtime: str = "onnxruntime",
    known: Latencies | None = None,
    progress: Watch = lambda done, total: None,
) -> Latencies:
    """Milliseconds of each candidate's network alone for one picture of width x height, on the CPU: the median of
    `rounds` runs, each right after one that does not count. Equal networks are measured once.

    Weights are random, as time does not depend on them. In each round all networks take their turns in another order.
    No more are open at once than fit into 2 GB; each such group has the reference network in it, and its times are
    multiplied by what makes the reference as fast as in the first group.

    known: an earlier result. With the same size, threads, runtime and machine it is kept, and only what it lacks is
    measured, as one more group. With another, all is measured again, since such times cannot be compared. A candidate
    whose network cannot be built or run gets its reason in `failed`, and no time.

    Raises OptionError, naming the option, for a setting that makes no sense, and ScrfdError where the runtime is not
    installed or cannot run the reference network either.
    """
    if not candidates:
        raise OptionError("candidates: there are none to measure")
    how = _How(Contract("maps", size=(width, height), batch=1), threads, rounds, runtime)
    setting = (width, height, threads, version("candidate.onnx", runtime), machine())
    if known is not None and known.setting != setting:
        known = None
    times = {} if known is None else {key: known.milliseconds[number] for number, key in known.networks.items()}
    reference = 0.0 if known is None else known.reference
    wanted = {key: c.spec for c in candidates if (key := digest(c.spec)) not in times}
    steps = _Steps(len(wanted) * (rounds + 1), progress)
    failed: dict[str, str] = {}
    for group in _groups(wanted, how):
        found = _in_turns(group, how, steps, failed)
        now = spread(found.pop("")).median
        reference = reference or now
        times |= {key: spread(runs).median * reference / now for key, runs in found.items()}
    keys = {candidate.number: digest(candidate.spec) for candidate in candidates}
    return Latencies(
        {number: times[key] for number, key in keys.items() if key in times},
        {number: key for number, key in keys.items() if key in times},
        {number: failed[key] for number, key in keys.items() if key in failed},
        reference,
        rounds,
        *setting,
    )


@dataclass(frozen=True)
class _How:
    contract: Contract
    threads: int
    rounds: int
    runtime: str

    def __post_init__(self) -> None:
        for name in ("threads", "rounds"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name}: {getattr(self, name)} is not a number from 1 on")
        names = [row.name for row in FORMATS if ".onnx" in row.suffixes]
        if self.runtime not in names:
            raise OptionError(f"runtime: {self.runtime} runs no ONNX files; take one of {', '.join(names)}")


class _Steps:
    """Counts what is over."""

    def __init__(self, total: int, watch: Watch) -> None:
        self._done, self._total, self._watch = 0, total, watch

    def add(self, number: int = 1) -> None:
        self._done += number
        self._watch(self._done, self._total)


def _groups(wanted: Mapping[str, ModelSpec], how: _How) -> Iterator[dict[str, ModelSpec]]:
    """As many at a time as may be open at once, and at least one."""
    assert how.contract.size is not None
    group: dict[str, ModelSpec] = {}
    taken = 0.0
    for key, spec in wanted.items():
        total = cost(spec, *how.contract.size)
        need = _COPIES * (total.weight_bytes + total.peak_activation_bytes)
        if group and taken + need > _BYTES:
            yield group
            group, taken = {}, 0.0
        group[key] = spec
        taken += need
    if group:
        yield group


def _in_turns(
    group: Mapping[str, ModelSpec], how: _How, steps: _Steps, failed: dict[str, str]
) -> dict[str, list[float]]:
    """Milliseconds of every run that counts, by key; "" is the reference. A network that fails is put into `failed`,
    and the others go on; the reference's error is raised."""
    assert how.contract.size is not None
    width, height = how.contract.size
    blob = np.random.default_rng(0).uniform(-1, 1, (1, 3, height, width)).astype(np.float32)
    opened = {"": _open(REFERENCE, how)}
    for key, spec in group.items():
        try:
            opened[key] = _open(spec, how)
            opened[key].run(blob)
        except Exception as error:  # whatever is wrong with one network, the others are measured
            _give_up(key, error, opened, failed)
            steps.add(how.rounds)
        steps.add()
    runs: dict[str, list[float]] = {key: [] for key in opened}
    for turn in range(how.rounds):
        order = list(opened)
        random.Random(turn).shuffle(order)  # nobody always follows the same one, whose data fill the caches
        for key in order:
            if how.threads > 1:
                time.sleep(_PAUSE)
            try:
                runs[key].append(network(opened[key], blob, repeat=1, warmup=1).median)
            except Exception as error:
                if not key:
                    raise
                _give_up(key, error, opened, failed)
                del runs[key]
                steps.add(how.rounds - turn - 1)
            if key:
                steps.add()
    return runs


def _give_up(key: str, error: Exception, opened: dict[str, Runtime], failed: dict[str, str]) -> None:
    opened.pop(key, None)
    lines = str(error).strip().splitlines()
    failed[key] = f"{type(error).__name__}: {lines[0]:.300}" if lines else type(error).__name__


def _open(spec: ModelSpec, how: _How) -> Runtime:
    """The network with random weights as an open ONNX file of raw maps, fused; nothing is left on the disk."""
    net = blank(spec, fused=True)
    _fill(net)
    model = build(net, WeightInfo("candidate", spec, fused=True), how.contract)
    try:
        with tempfile.TemporaryDirectory(prefix="scrfd-measure-") as folder:
            path = Path(folder) / "candidate.onnx"
            path.write_bytes(model.SerializeToString())
            return open_runtime(path, how.runtime, "cpu", how.threads)
    except OSError as error:
        raise atomic.write_error(tempfile.gettempdir(), error) from None


def _fill(net: SCRFD) -> None:
    """Random weights, in place, with which no map dies away.

    Those that training begins with need batch norms to hold the scale. Without, the maps of deep depth-wise networks
    sink to denormal numbers, with which many processors are slow, and residual branches are zero. Scaled by the number
    of its inputs (He et al., 2015), each convolution gives maps about as large as those it gets.
    """
    random_numbers = np.random.default_rng(0)
    for parameter in net.parameters():
        weight = parameter.detach().numpy()  # shares its memory
        if weight.ndim == 4:
            inputs = math.prod(weight.shape[1:])
            weight[...] = random_numbers.standard_normal(weight.shape, np.float32) * math.sqrt(2 / inputs)
