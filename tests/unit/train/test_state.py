"""Checkpoints: a run goes on to the same bits, and a damaged or unwritable file costs nothing but itself."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import gap, random_net
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from scrfdkit.errors import ScrfdError, WeightError
from scrfdkit.model.checkpoint import load as load_weights
from scrfdkit.model.net import SCRFD, build
from scrfdkit.spec import Backbone, Head, ModelSpec, Neck
from scrfdkit.train import average as averages
from scrfdkit.train.optimiser import make, set_lr
from scrfdkit.train.recipe import Optimiser, Recipe
from scrfdkit.train.state import State, capture, latest, load, publish, restore, save
from scrfdkit.zoo import ZOO

SPEC = ModelSpec(
    Backbone("separable", (4, 4), (1, 1, 1, 1), (4, 8, 8, 8)),
    Neck(8),
    Head(depth=1, channels=8, norm="bn", groups=0, shared=False, depthwise=True, scale=True, num_keypoints=2),
)
SGD = Optimiser(lr=1e-3, nesterov=True)
ADAMW = Optimiser("adamw", lr=1e-3, decay=0.05, decay_norms=False)
STATE = State(7, {"net/a": torch.arange(6.0)})


class Run:
    """All that a run changes."""

    def __init__(self, options: Optimiser, seed: int, decay: float | None = 0.9) -> None:
        torch.manual_seed(seed)
        self.net: SCRFD = build(SPEC)
        self.optimiser: Optimizer = make(self.net, options)
        self.average: AveragedModel = AveragedModel(self.net) if decay is None else averages.make(self.net, decay)

    def learn(self, start: int, stop: int) -> None:
        for step in range(start, stop):
            x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(step))
            set_lr(self.optimiser, 1e-3 / (step + 1))
            self.optimiser.zero_grad()
            sum(output.square().mean() for output in self.net(x)).backward()  # type: ignore[union-attr]
            self.optimiser.step()
            self.average.update_parameters(self.net)

    def capture(self) -> dict[str, Tensor]:
        return capture(self.net, self.optimiser, self.average)


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    bits = [t.reshape(-1).view(torch.uint8) for state in (first, second) for _, t in sorted(state.items())]
    return first.keys() == second.keys() and all(map(torch.equal, bits[: len(first)], bits[len(first) :]))


@pytest.mark.parametrize("decay", [None, 0.9], ids=["torch's average", "ours"])
@pytest.mark.parametrize("options", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_a_run_that_goes_on_is_one_that_never_stopped(tmp_path: Path, options: Optimiser, decay: float | None) -> None:
    unbroken = Run(options, 0, decay)
    unbroken.learn(0, 6)
    first = Run(options, 0, decay)
    first.learn(0, 3)
    path = save(tmp_path, State(3, first.capture()), keep=1)
    first.learn(3, 4)  # what is captured does not change any more
    second = Run(options, 1, decay)
    second.learn(0, 1)
    restore(load(path), second.net, second.optimiser, second.average)
    assert int(second.average.n_averaged) == 3
    second.learn(3, 6)
    assert equal(second.capture(), unbroken.capture())
    assert not equal(first.capture(), unbroken.capture())


def test_everything_a_step_changes_is_captured_by_name() -> None:
    run = Run(ADAMW, 0)
    run.learn(0, 2)
    state = run.capture()
    kinds = {name.split("/")[0] for name in state}
    assert kinds == {"net", "average", "optimiser"}
    assert float(state["optimiser/neck.fpn_convs.0.conv.weight/step"]) == 2
    assert {"exp_avg", "exp_avg_sq"} <= {name.split("/")[-1] for name in state}
    assert int(state["average/n_averaged"]) == 2
    assert int(state["net/backbone.stem.0.1.num_batches_tracked"]) == 2
    names = [name for name, p in run.net.named_parameters() if p.requires_grad]
    assert sum(name.startswith("optimiser/") for name in state) == 3 * len(names)


def test_the_order_of_parameters_does_not_matter(tmp_path: Path) -> None:
    run = Run(SGD, 0)
    run.learn(0, 2)
    other = Run(SGD, 1)
    for group in other.optimiser.param_groups:
        group["params"].reverse()
    restore(State(2, run.capture()), other.net, other.optimiser, other.average)
    assert equal(other.capture(), run.capture())


def test_tensors_are_restored_in_place() -> None:
    run, other = Run(ADAMW, 0), Run(ADAMW, 1)
    run.learn(0, 1)
    pointers = [p.data_ptr() for p in other.net.parameters()]
    momenta = [s["exp_avg"].data_ptr() for s in other.optimiser.state.values()]
    restore(State(1, run.capture()), other.net, other.optimiser, other.average)
    assert [p.data_ptr() for p in other.net.parameters()] == pointers
    assert [s["exp_avg"].data_ptr() for s in other.optimiser.state.values()] == momenta


class Scaler:
    """A loss scaler whose factor has moved."""

    def __init__(self, scale: float, tracker: int) -> None:
        self.state: dict[str, Any] = {"scale": scale, "growth_interval": 2000, "_growth_tracker": tracker}

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = dict(state)


def test_the_loss_scaler_goes_on(tmp_path: Path) -> None:
    run = Run(SGD, 0)
    tensors = capture(run.net, run.optimiser, None, Scaler(2.0**-20 / 3, 17))
    state = load(save(tmp_path, State(5, tensors), keep=1))
    scaler = Scaler(1.0, 0)
    restore(state, run.net, run.optimiser, None, scaler)
    assert scaler.state == {"scale": 2.0**-20 / 3, "growth_interval": 2000, "_growth_tracker": 17}
    assert isinstance(scaler.state["_growth_tracker"], int)
    real = torch.amp.GradScaler("cpu", init_scale=8.0)
    tensors = capture(run.net, run.optimiser, None, real)
    other = torch.amp.GradScaler("cpu", init_scale=2.0)
    restore(State(1, tensors), run.net, run.optimiser, None, other)
    assert other.state_dict() == real.state_dict()
    with pytest.raises(WeightError, match="loss scaler"):
        restore(State(1, run.capture()), run.net, run.optimiser, run.average, other)
    switched_off = torch.amp.GradScaler("cpu", enabled=False)
    restore(State(1, capture(run.net, run.optimiser, None, switched_off)), run.net, run.optimiser, None, switched_off)


def test_a_state_of_another_run_changes_nothing() -> None:
    run, other = Run(SGD, 0), Run(ADAMW, 1)
    before = other.capture()
    with pytest.raises(WeightError, match=r"step 9 is of another run: missing optimiser/.*, and \d+ more"):
        restore(State(9, run.capture()), other.net, other.optimiser, other.average)
    assert equal(other.capture(), before)
    tensors = run.capture()
    tensors["net/bbox_head.scales.0.scale"] = torch.zeros(1)
    tensors["average/n_averaged"] = torch.zeros(())
    with pytest.raises(WeightError, match=r"scale is float32 \(1,\), not float32 \(\); .* is float32 \(\), not int64"):
        restore(State(9, tensors), run.net, run.optimiser, run.average)


def test_words_and_dtypes_come_back(tmp_path: Path) -> None:
    tensors = {
        "half": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
        "wide": torch.tensor(1 / 3, dtype=torch.float64),
        "count": torch.tensor(2**60),
        "empty": torch.zeros(0, 3),
        "turned": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    state = State(
        12345678901, tensors, Recipe().to_json(), SPEC.to_json(), {"step": 3, "ap": 0.5}, {"seed": None, "é": [1]}
    )
    path = save(tmp_path, state, keep=3)
    again = load(path)
    assert equal(dict(again.tensors), {key: value.contiguous() for key, value in tensors.items()})
    assert {key: value.dtype for key, value in again.tensors.items()} == {k: v.dtype for k, v in tensors.items()}
    assert replace(again, tensors={}) == replace(state, tensors={})
    assert Recipe.from_json(again.recipe) == Recipe()
    readable = json.loads(path.with_suffix(".json").read_text())
    assert readable["recipe"]["optimiser"]["lr"] == 0.01
    assert readable["versions"].keys() == {"scrfdkit", "torch"}
    assert readable["best"] == {"step": 3, "ap": 0.5}


def steps(folder: Path) -> list[int]:
    files = sorted((folder / "checkpoints").iterdir())
    assert [f.stem for f in files[::2]] == [f.stem for f in files[1::2]]
    assert {f.suffix for f in files} <= {".safetensors", ".json"}
    return [int(f.stem.removeprefix("step-")) for f in files[::2]]


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    for step in range(100, 700, 100):
        save(tmp_path, replace(STATE, step=step, best={"step": 200} if step > 200 else {}), keep=2)
    assert steps(tmp_path) == [200, 500, 600]
    save(tmp_path, replace(STATE, step=700, best={"step": 700}), keep=0)
    assert steps(tmp_path) == [700]
    newest = latest(tmp_path)
    assert newest is not None
    assert newest.name == "step-00000700.safetensors"


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("step-best.safetensors", "notes.txt", ".step-00000009.safetensors.partial"):
        (folder / name).write_text("mine")
    save(tmp_path, STATE, keep=1)
    assert latest(tmp_path) == folder / "step-00000007.safetensors"
    assert len(list(folder.iterdir())) == 5


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "a bit of a tensor":
        data[-3] ^= 4
    elif how == "a word":
        place = data.index(b'\\"best\\"')
        data[place + 3] = ord("z")
    elif how == "cut short":
        data = data[:-1]
    elif how == "empty":
        data = bytearray()
    elif how == "zeros":
        data = bytearray(len(data))
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["a bit of a tensor", "a word", "cut short", "empty", "zeros"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, how: str) -> None:
    old = save(tmp_path, replace(STATE, step=8), keep=3)
    new = save(tmp_path, replace(STATE, step=9), keep=3)
    damage(new, how)
    with pytest.raises(WeightError, match=r"step-00000009\.safetensors: "):
        load(new)
    heard: list[str] = []
    assert latest(tmp_path, heard.append) == old
    assert len(heard) == 1
    assert "step-00000009" in heard[0]
    assert latest(tmp_path) == old
    save(tmp_path, replace(STATE, step=10), keep=1)
    assert steps(tmp_path) == [10]


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "w.safetensors", {"format": "pt"})
    with pytest.raises(WeightError, match="not a checkpoint of a run: its format is 'pt'"):
        load(tmp_path / "w.safetensors")
    with pytest.raises(WeightError, match="cannot be read: No such file"):
        load(tmp_path / "none.safetensors")


FULL = """
import resource, sys
from pathlib import Path
import torch
from scrfdkit.errors import ScrfdError
from scrfdkit.train.state import State, save
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for step in (2, 3):
    try:
        save(Path(sys.argv[1]), State(step, {"net/a": torch.zeros(100_000)}), keep=1)
    except ScrfdError as error:
        print(error)
"""


def test_a_full_disk_leaves_the_older_ones(tmp_path: Path) -> None:
    old = save(tmp_path, replace(STATE, step=1), keep=1)
    result = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    first, second = result.stdout.splitlines()
    assert "step-00000002.safetensors: cannot be written: File too large" in first
    assert "step-00000003.safetensors: cannot be written: File too large" in second
    assert latest(tmp_path) == old
    assert steps(tmp_path) == [1]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(ScrfdError, match=r"run/checkpoints/step-00000007\.safetensors: cannot be written"):
        save(tmp_path / "run", STATE, keep=1)


def test_a_network_and_its_average_are_published(tmp_path: Path) -> None:
    spec = ZOO["scrfd_500m_kps"].spec
    net = random_net(spec)
    x = torch.randn(1, 3, 64, 64)
    for source in (net, AveragedModel(net)):
        info = publish(tmp_path / "best.safetensors", source, name="mine", metrics={"ap": 0.9}, licence="L", source="S")
        again, found = load_weights(tmp_path / "best.safetensors")
        assert gap(again(x), net(x)) == 0
        assert info == found
        assert (found.name, found.spec, found.metrics, found.licence, found.source) == (
            "mine",
            spec,
            {"ap": 0.9},
            "L",
            "S",
        )
    assert [p.name for p in tmp_path.iterdir()] == ["best.safetensors"]
