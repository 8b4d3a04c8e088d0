from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scrfdkit.errors import OptionError, ScrfdError
from scrfdkit.model.net import blank
from scrfdkit.search import measure as module
from scrfdkit.search.candidate import Candidate
from scrfdkit.search.latencies import Latencies, load, missing, save
from scrfdkit.search.measure import measure
from scrfdkit.spec import Backbone, ModelSpec, Neck
from scrfdkit.zoo import ZOO

SMALL = ZOO["scrfd_500m"].spec
SIZE = {"width": 64, "height": 32}


def own(channels: int) -> ModelSpec:
    """A network that no zoo has."""
    return replace(ZOO["scrfd_2.5g"].spec, neck=Neck(channels))


def watched(candidates: list[Candidate], **how: object) -> tuple[Latencies, list[tuple[int, int]]]:
    seen: list[tuple[int, int]] = []
    found = measure(candidates, **{**SIZE, **how}, progress=lambda *now: seen.append(now))  # type: ignore[arg-type]
    return found, seen


@pytest.fixture(scope="module")
def some() -> tuple[list[Candidate], Latencies]:
    """Four candidates of three networks, and their times."""
    candidates = [Candidate(n, own(c)) for n, c in ((1, 16), (2, 24), (3, 16), (5, 32))]
    return candidates, measure(candidates, rounds=2, **SIZE)  # type: ignore[arg-type]


def test_every_candidate_has_a_time_and_equal_networks_the_same(some: tuple[list[Candidate], Latencies]) -> None:
    _, found = some
    assert list(found.milliseconds) == [1, 2, 3, 5]
    assert all(ms > 0 for ms in found.milliseconds.values())
    assert found.milliseconds[1] == found.milliseconds[3]
    assert found.networks[1] == found.networks[3]
    assert len(set(found.networks.values())) == 3
    assert not found.failed
    assert (found.width, found.height, found.threads, found.rounds) == (64, 32, 1, 2)
    assert found.runtime.startswith("onnxruntime ")
    for word in ("64x32", found.runtime, "1 thread", found.machine["cpu"], "median of 2 runs"):
        assert word in found.words()


def test_times_go_to_the_networks_they_are_of() -> None:
    """The larger one has 65 times the work, which no noise turns round."""
    specs = [ZOO[name].spec for name in ("scrfd_34g", "scrfd_500m")]
    found = measure([Candidate(n, spec) for n, spec in enumerate(specs, 1)], width=160, height=160, rounds=3)
    assert found.milliseconds[1] > found.milliseconds[2]


def test_progress_counts_each_network_once() -> None:
    _, seen = watched([Candidate(1, own(16)), Candidate(2, own(24)), Candidate(3, own(16))], rounds=3)
    assert seen == [(n, 8) for n in range(1, 9)]


def test_nothing_else_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = torch.random.get_rng_state()
    measure([Candidate(1, own(16))], rounds=1, threads=2, **SIZE)  # type: ignore[arg-type]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not list(tmp_path.iterdir())


def test_groups_of_networks_that_fit_into_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """One at a time, each beside the reference."""
    monkeypatch.setattr(module, "_BYTES", 1.0)
    candidates = [Candidate(n, own(8 * n)) for n in range(1, 4)]
    how = module._How(module.Contract("maps", size=(64, 32), batch=1), 1, 1, "onnxruntime")
    groups = list(module._groups({c.name: c.spec for c in candidates}, how))
    assert groups == [{c.name: c.spec} for c in candidates]
    found, seen = watched(candidates, rounds=1)
    assert list(found.milliseconds) == [1, 2, 3]
    assert seen[-1] == (6, 6)


def test_only_what_is_new_is_measured(some: tuple[list[Candidate], Latencies]) -> None:
    candidates, known = some
    more = [*candidates, Candidate(6, own(40)), Candidate(7, own(24))]
    assert [c.number for c in missing(more, known)] == [6, 7]
    found, seen = watched(more, rounds=4, known=known)
    assert seen[-1] == (5, 5)  # opened, and four runs
    assert {n: found.milliseconds[n] for n in known.milliseconds} == known.milliseconds
    assert found.milliseconds[7] == known.milliseconds[2]
    assert found.milliseconds[6] > 0
    assert found.reference == known.reference
    assert not missing(more, found)
    # The new time is on the scale of the old ones: with a reference twice as slow, twice as long. Here a million times.
    slow = replace(known, reference=1e6 * known.reference)
    assert watched(more, rounds=4, known=slow)[0].milliseconds[6] > 1000 * max(known.milliseconds.values())


def test_nothing_new_is_nothing_measured(some: tuple[list[Candidate], Latencies]) -> None:
    candidates, known = some
    found, seen = watched(candidates[1:], rounds=2, known=known)
    assert not seen
    assert found.milliseconds == {n: known.milliseconds[n] for n in (2, 3, 5)}


@pytest.mark.parametrize("other", [{"threads": 2}, {"width": 96}, {"machine": {"cpu": "another"}}, {"runtime": "x 1"}])
def test_times_of_another_setting_are_not_kept(some: tuple[list[Candidate], Latencies], other: dict[str, int]) -> None:
    candidates, known = some
    found, seen = watched(candidates, rounds=1, known=replace(known, **other))  # type: ignore[arg-type]
    assert seen[-1] == (6, 6)
    assert (found.width, found.threads, found.machine) == (64, 1, known.machine)


def test_another_network_of_the_same_number_is_missing(some: tuple[list[Candidate], Latencies]) -> None:
    candidates, known = some
    changed = [replace(candidates[0], spec=own(48)), *candidates[1:]]
    assert missing(changed, known) == changed[:1]
    assert missing(changed, None) == changed


def test_a_network_that_fails_loses_no_other() -> None:
    """PyTorch opens ONNX files of the zoo's networks alone."""
    candidates = [Candidate(1, SMALL), Candidate(2, own(48)), Candidate(3, ZOO["scrfd_1g"].spec)]
    found, seen = watched(candidates, rounds=2, runtime="pytorch")
    assert list(found.milliseconds) == [1, 3]
    assert list(found.failed) == [2]
    assert "fit no known network" in found.failed[2]
    assert seen[-1] == (9, 9)
    assert missing(candidates, found) == candidates[1:2]
    assert "1 network could not be run" in found.words()
    assert Latencies.from_json(found.to_json()) == found


def test_a_network_that_cannot_be_built_loses_no_other() -> None:
    broken = replace(ZOO["scrfd_2.5g"].spec)
    broken = replace(broken, head=replace(broken.head))
    object.__setattr__(broken.head, "groups", 7)  # of 64 channels, as no valid spec has it
    found, seen = watched([Candidate(1, broken), Candidate(2, own(16))], rounds=2)
    assert list(found.milliseconds) == [2]
    assert found.failed[1].startswith("ValueError: ")
    assert seen[-1] == (6, 6)


def test_weights_keep_every_map_alive() -> None:
    """Else a deep network computes with denormal numbers, or with nothing but zeros, which takes another time."""
    deep = replace(SMALL, backbone=Backbone("separable", (16, 16), (10, 10, 10, 10), (64, 128, 256, 512)))
    for spec, dies in ((deep, True), (SMALL, False), (ZOO["scrfd_10g"].spec, True), (ZOO["base_34g"].spec, True)):
        net = blank(spec, fused=True)
        assert (_least(net) < torch.finfo(torch.float32).tiny) == dies
        module._fill(net)
        assert 1e-6 < _least(net) < 1e12


def _least(net: torch.nn.Module) -> float:
    """The smallest of all convolutions' largest numbers."""
    seen: list[float] = []
    hooks = [
        m.register_forward_hook(lambda m, x, y: seen.append(float(y.abs().max())))
        for m in net.modules()
        if isinstance(m, torch.nn.Conv2d)
    ]
    net(torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)))
    for hook in hooks:
        hook.remove()
    return min(seen)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"rounds": 0}, "rounds: 0"),
        ({"threads": 0}, "threads: 0"),
        ({"width": 100}, "size: 100x32"),
        ({"runtime": "ncnn"}, "runtime: ncnn runs no ONNX files; take one of onnxruntime"),
    ],
)
def test_settings_that_make_no_sense(how: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        watched([Candidate(1, own(16))], **how)


def test_no_candidates() -> None:
    with pytest.raises(OptionError, match="candidates"):
        measure([])


def test_no_place_for_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference cannot be opened either: that is no fault of a candidate."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(ScrfdError, match=r"gone: cannot be written"):
        watched([Candidate(1, own(16))], rounds=1)


def test_saved_and_loaded(some: tuple[list[Candidate], Latencies], tmp_path: Path) -> None:
    path = tmp_path / "search" / "latency.json"
    assert load(path) is None
    save(path, some[1])
    assert load(path) == some[1]
    found, seen = watched(some[0], rounds=2, known=load(path))
    assert not seen
    assert found == some[1]


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"milliseconds": {"1": -1.0, "2": 1.0, "3": 1.0, "5": 1.0}},
        {"milliseconds": {"1": float("nan"), "2": 1.0, "3": 1.0, "5": 1.0}},
        {"milliseconds": {"1": "2", "2": 1.0, "3": 1.0, "5": 1.0}},
        {"milliseconds": {"one": 1.0}},
        {"milliseconds": [1.0]},
        {"networks": {"1": "ab"}},
        {"reference": 0.0},
        {"threads": "1"},
        {"machine": None},
        {"more": 1},
    ],
)
def test_damaged_files(some: tuple[list[Candidate], Latencies], tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "latency.json"
    path.write_text(json.dumps({**json.loads(some[1].to_json()), **change}))
    with pytest.raises(ScrfdError, match=r"latency.json: damaged: .*remove it to measure again"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": "scrfdkit-latency-1"}'])
def test_files_of_something_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "latency.json"
    path.write_bytes(content)
    with pytest.raises(ScrfdError, match=r"latency.json: "):
        load(path)
