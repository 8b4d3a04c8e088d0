"""Whether the kernels can be trusted on a device: a small random case against the plain modules."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from scrfdkit.model.net import SCRFD, build
from scrfdkit.spec import ModelSpec
from scrfdkit.train.kernels.accelerate import chains_of
from scrfdkit.train.kernels.units import INTERPRETED, Unit
from scrfdkit.zoo import ZOO

Runner = Callable[[Tensor, Sequence[Unit]], Tensor]

_SLACK = 2e-3  # where modules in the same type are nearly exact themselves


def usable(device: torch.device | str, spec: ModelSpec | None = None, dtype: torch.dtype | None = None) -> str | None:
    """None where the kernels compile and agree with the modules on this device, else the reason why not.

    They agree if their distance from the modules in float64 is at most twice that of the modules in `dtype`, under
    autocast. Takes the time of compiling the kernels, which training then need not, once in a process's cache.
    """
    device = torch.device(device)
    if find_spec("triton") is None:
        return "the package triton is not installed"
    if device.type != "cuda" and not INTERPRETED:
        return f"the kernels need a CUDA device, not {device.type}"
    dtype = dtype or _default_type(device)
    if device.type == "cuda" and dtype == torch.bfloat16 and torch.cuda.get_device_capability(device)[0] < 8:
        return f"{torch.cuda.get_device_name(device)} has no bfloat16"
    try:
        found = check(device, spec, dtype)
        usual = _distances(device, spec, dtype, _run_modules)
    except Exception as error:  # compilers raise many kinds
        return f"the kernels do not run: {type(error).__name__}: {str(error).strip()[:300]}"
    for name, distance in found.items():
        if not distance <= 2 * usual[name] + _SLACK:
            return f"the kernels' {name} is {distance:.2g} off, that of plain modules {usual[name]:.2g}"
    return None


def check(
    device: torch.device | str, spec: ModelSpec | None = None, dtype: torch.dtype | None = None
) -> dict[str, float]:
    """Relative distances of what the kernels compute in `dtype` from what the modules compute in float64.

    Over the chains of a network (scrfd_500m_kps if left out), three units at a time because rounding adds up with
    depth, with random weights and inputs: the largest |ours - exact| / |exact| of any tensor, of the forward pass,
    the gradients and the running statistics. Empty for a network without chains. dtype: bfloat16 on CUDA and float32
    elsewhere, if left out.
    """
    from scrfdkit.train.kernels.chain import run_chain

    device = torch.device(device)
    return _distances(device, spec, dtype or _default_type(device), run_chain)


def _distances(device: torch.device, spec: ModelSpec | None, dtype: torch.dtype, run: Runner) -> dict[str, float]:
    worst: dict[str, float] = {}
    # On a GPU so many pixels that every program has several blocks; multiples of 16, as training has.
    batch, side = (8, 128) if device.type == "cuda" else (1, 16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for units in _pieces(build(spec or ZOO["scrfd_500m_kps"].spec)):
            _roughen(units)
            x = torch.randn(batch, units[0].source, side, side).to(device, dtype, memory_format=torch.channels_last)
            ours = _results(_copied(units, device, torch.float32), x, run)
            exact = _results(_copied(units, device, torch.float64), x.double(), _run_modules)
            for (name, a), (_, b) in zip(ours, exact, strict=True):
                distance = float((a.double() - b).norm() / b.norm().clamp(min=1e-12))
                worst[name] = max(worst.get(name, 0.0), distance)
    return worst


def _pieces(net: SCRFD) -> Iterable[Sequence[Unit]]:
    """Every three neighbouring units of the chains that begin with the last of the three before; each sort once."""
    pieces = [units[i : i + 3] for units in chains_of(net) for i in range(0, max(1, len(units) - 1), 2)]
    return {
        tuple((unit.kind, unit.source, unit.out, unit.stride) for unit in piece): piece for piece in pieces
    }.values()


def _results(units: Sequence[Unit], x: Tensor, run: Runner) -> list[tuple[str, Tensor]]:
    """Everything one pass both ways leaves behind, by name."""
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_(units[0].kind != "stem")
    y = run(leaf, units)
    generator = torch.Generator().manual_seed(1)
    torch.autograd.backward(y, torch.randn(y.shape, generator=generator).to(y))
    found = [("output", y.detach())]
    for unit in units:
        gradients = zip(("weight gradient", "gamma gradient", "beta gradient"), unit.parameters, strict=True)
        found += [(name, p.grad) for name, p in gradients if p.grad is not None]
        statistics = {"running mean": unit.norm.running_mean, "running variance": unit.norm.running_var}
        found += [(name, value) for name, value in statistics.items() if value is not None]
    return found if leaf.grad is None else [*found, ("input gradient", leaf.grad)]


def _run_modules(x: Tensor, units: Sequence[Unit]) -> Tensor:
    low = x.dtype in (torch.bfloat16, torch.float16)
    with torch.autocast(x.device.type, dtype=x.dtype) if low else nullcontext():
        for unit in units:
            x = torch.relu(unit.norm(unit.conv(x)))
    return x


def _roughen(units: Sequence[Unit]) -> None:
    """Norms that do something, running statistics unlike those of a fresh network, and convolutions of full size."""
    for unit in units:
        weight, gamma, beta = (parameter.detach() for parameter in unit.parameters)
        nn.init.kaiming_normal_(weight)
        gamma.uniform_(0.5, 1.5)
        beta.normal_(std=0.2)
        assert unit.norm.running_mean is not None
        unit.norm.running_mean.normal_(std=0.2)


def _copied(units: Sequence[Unit], device: torch.device, dtype: torch.dtype) -> list[Unit]:
    def move(module: nn.Module) -> nn.Module:
        return copy.deepcopy(module).to(device, dtype)

    return [Unit(unit.kind, move(unit.conv), move(unit.norm)) for unit in units]  # type: ignore[arg-type]


def _default_type(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32
