"""One step at scale: several processes, accumulated parts, precisions, the running average."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from worlds import together

from scrfdkit.errors import OptionError
from scrfdkit.train import average
from scrfdkit.train import processes as processes_of
from scrfdkit.train.prepare import Ready, prepare
from scrfdkit.train.recipe import Recipe
from scrfdkit.train.recipes import find
from scrfdkit.train.schedule import learning_rate
from scrfdkit.train.settings import Settings

SMALL = {"size": 96, "batch": 4, "steps": 20, "crop.tries": 20}


def recipe(name: str = "reference", **changes: object) -> Recipe:
    return find(name).change(SMALL | {key.replace("__", "."): value for key, value in changes.items()})


def settings(toy: Path, folder: Path, chosen: Recipe, **options: object) -> Settings:
    model = str(options.pop("model", "scrfd_500m_kps"))
    return Settings(model, str(toy), str(folder / "run"), chosen, device="cpu", workers=1, seed=5, **options)  # type: ignore[arg-type]


def ready(chosen: Settings) -> Ready:
    return prepare(chosen, processes_of.start(chosen.device), lambda text: None, resume=False)


def learn(made: Ready, steps: int) -> Tensor:
    """(steps, 4) this process's share of the results of the first steps."""
    schedule, rule = made.settings.recipe.schedule, made.settings.recipe.optimiser
    results = []
    for step, parts in enumerate(made.batches(0, steps)):
        results.append(made.step(parts, learning_rate(schedule, rule.lr, step, made.steps)))
    return torch.stack(results)


def in_processes(folder: Path) -> tuple[Tensor, dict[str, Tensor]]:
    """20 steps of the settings in the folder, by one of several processes."""
    chosen = Settings.from_json((folder / "settings.json").read_text())
    made = ready(chosen)
    try:
        return learn(made, 20), {k: v.clone() for k, v in made.step.net.state_dict().items()}
    finally:
        made.processes.stop()


@pytest.mark.parametrize("rule", ["reference", "fast"])
def test_two_processes_equal_one_with_the_doubled_batch(toy_set: Path, tmp_path: Path, rule: str) -> None:
    """At full learning rate, in float64: fresh networks multiply every rounding of float32 from step to step."""
    chosen = settings(toy_set, tmp_path, recipe(rule, sync_norms=True, precision="fp64"), model="scrfd_2.5g_kps")
    (tmp_path / "settings.json").write_text(chosen.to_json())
    made = ready(chosen)
    alone = learn(made, 20)
    assert alone[-1, :3].sum() < 0.95 * alone[0, :3].sum()  # it has learnt something
    (first, weights), (second, others) = together(in_processes, tmp_path, world=2)
    assert ((first[:, :3] + second[:, :3]) / 2 - alone[:, :3]).abs().max() < 1e-6
    assert torch.allclose(first[:, 3], alone[:, 3], rtol=1e-5)
    assert all(torch.equal(weights[key], others[key]) for key in weights)
    for key, value in made.step.net.state_dict().items():
        assert torch.allclose(weights[key], value, atol=1e-9, rtol=1e-6), key


def test_two_processes_in_float32(toy_set: Path, tmp_path: Path) -> None:
    """As users run it, with the reference's own warm-up."""
    chosen = settings(toy_set, tmp_path, recipe(sync_norms=True, size=160, steps=0), model="scrfd_2.5g_kps")
    (tmp_path / "settings.json").write_text(chosen.to_json())
    alone = learn(ready(chosen), 20)
    (first, _), (second, _) = together(in_processes, tmp_path, world=2)
    apart = ((first[:, :3] + second[:, :3]) / 2 - alone[:, :3]).abs().amax(1)
    assert apart[:10].max() < 1e-5
    assert apart.max() < 1e-3


def test_without_synced_norms_processes_still_share_their_weights(toy_set: Path, tmp_path: Path) -> None:
    chosen = settings(toy_set, tmp_path, recipe(), freeze=("stem",))
    (tmp_path / "settings.json").write_text(chosen.to_json())
    (_, weights), (_, others) = together(in_processes, tmp_path, world=2)
    names = {name for name, _ in ready(chosen).step.net.named_parameters()}
    assert all(torch.equal(weights[key], others[key]) for key in names)


@pytest.mark.parametrize("model", ["scrfd_2.5g", "scrfd_500m_kps"])
def test_accumulated_parts_equal_the_large_batch(toy_set: Path, tmp_path: Path, model: str) -> None:
    """With norms that do not look at the batch; batch norms see one part at a time, whatever a trainer does."""
    results, nets = [], []
    for accumulate in (1, 4):
        made = ready(settings(toy_set, tmp_path, recipe(accumulate=accumulate, batch=8), model=model))
        for module in made.step.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        results.append(learn(made, 5))
        nets.append(made.step.net)
    assert torch.allclose(results[0], results[1], rtol=1e-4, atol=1e-5)
    for (key, a), b in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5), key


def test_looking_ahead_leaves_no_trace_in_batch_norms(toy_set: Path, tmp_path: Path) -> None:
    made = ready(settings(toy_set, tmp_path, recipe(accumulate=2)))
    learn(made, 1)
    tracked = [m.num_batches_tracked for m in made.step.net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {int(count) for count in tracked if count is not None} == {2}  # once a part, and not twice


def test_a_batch_that_cannot_be_dealt_out(toy_set: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="batch: 4 pictures cannot be dealt out"):
        ready(settings(toy_set, tmp_path, recipe(accumulate=3)))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precisions_learn_nearly_the_same(toy_set: Path, tmp_path: Path, precision: str) -> None:
    full = learn(ready(settings(toy_set, tmp_path, recipe(steps=0), model="scrfd_2.5g_kps")), 5)[:, :3]
    made = ready(settings(toy_set, tmp_path, recipe(steps=0, precision=precision), model="scrfd_2.5g_kps"))
    half = learn(made, 5)[:, :3]
    assert made.step.scaler.is_enabled() == (precision == "fp16")
    assert not torch.equal(half, full)
    assert torch.allclose(half, full, rtol=0.02, atol=2e-3)


def test_the_average_follows_the_weights(toy_set: Path, tmp_path: Path) -> None:
    made = ready(settings(toy_set, tmp_path, recipe("fast", average=0.5)))
    assert made.average is not None
    wanted: dict[str, Tensor] = {}
    schedule, rule = made.settings.recipe.schedule, made.settings.recipe.optimiser
    for step, parts in enumerate(made.batches(0, 6)):
        made.step(parts, learning_rate(schedule, rule.lr, step, made.steps))
        now = made.step.net.state_dict()
        if not wanted:
            wanted = {k: v.clone() for k, v in now.items()}
            continue
        share = 1 - min(0.5, (1 + step) / (10 + step))
        for key, value in now.items():
            wanted[key] = (
                value.clone() if not value.is_floating_point() else wanted[key] + share * (value - wanted[key])
            )
    for key, value in made.average.module.state_dict().items():
        assert torch.allclose(value, wanted[key], atol=1e-6), key
    assert int(made.average.n_averaged) == 6


def test_the_share_of_the_newest_weights() -> None:
    assert average.share(0.9998, 0) == pytest.approx(0.9)
    assert average.share(0.9998, 10**6) == pytest.approx(0.0002)


def test_settings_survive_their_file(toy_set: Path, tmp_path: Path) -> None:
    chosen = settings(toy_set, tmp_path, recipe("fast"), freeze=("stem", "neck"), minutes=2.5, val="x")
    assert Settings.from_json(chosen.to_json()) == chosen
    with pytest.raises(OptionError, match="not the settings"):
        Settings.from_json(json.dumps({"model": "x"}))
