"""A search as it was planned: kept as it is, made whole or not at all, and refused where it is damaged."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from search_processes import FORK, end, plan_of_many, quick_disk, start, tiny_plan, tiny_space, together

from scrfdkit.errors import OptionError, ScrfdError
from scrfdkit.search import plan as plans
from scrfdkit.search.candidate import Candidate
from scrfdkit.search.plan import Plan
from scrfdkit.search.space import CropSpace
from scrfdkit.search.store import Store
from scrfdkit.zoo import ZOO

__all__ = ["quick_disk"]

pytestmark = pytest.mark.usefixtures("quick_disk")


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path / "deep" / "s", 3)
    assert plans.load(plan.folder) == plan
    assert plan.run_folder(plan.candidate(2)) == plan.folder / "candidates" / "0002"
    spec = ZOO["scrfd_500m"].spec
    recipe = {"crop.ratios": (0.3, 0.45), "optimiser.lr": 0.01}
    candidates = (Candidate(1, spec, recipe, {"smallest": 0.3}),)
    crops = plans.make(CropSpace(spec), candidates, 7, 1, 1, "postgresql+psycopg://me@server/x", "scrfd_500m")
    found = plans.save(crops, tmp_path / "crops", lambda plan: None)
    assert plans.load(tmp_path / "crops") == found
    assert found.candidates == candidates


def test_numbers_that_are_not_there(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 2)
    for number in (0, 3, -1):
        with pytest.raises(OptionError, match="there are 1 to 2"):
            plan.candidate(number)


def test_all_of_a_folder_or_nothing(tmp_path: Path) -> None:
    space = tiny_space()
    plan = plans.make(space, (Candidate(1, space.template),), 0, 1, 1)

    def stop(plan: Plan) -> None:
        (plan.folder / "store.db").write_bytes(b"half")
        raise OptionError("the database is away")

    with pytest.raises(OptionError, match="away"):
        plans.save(plan, tmp_path / "s", stop)
    assert list(tmp_path.iterdir()) == []
    tiny_plan(tmp_path / "s", 1)
    with pytest.raises(OptionError, match="holds a search already"):
        tiny_plan(tmp_path / "s", 1)
    (tmp_path / "other").mkdir()
    tiny_plan(tmp_path / "other", 1)  # an empty one is as good as none
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.jpg").touch()
    with pytest.raises(OptionError, match="is not empty"):
        tiny_plan(tmp_path / "full", 1)
    (tmp_path / "file").touch()
    with pytest.raises(ScrfdError, match="file: cannot be written"):
        tiny_plan(tmp_path / "file", 1)
    assert {path.name for path in tmp_path.iterdir()} == {"s", "other", "full", "file"}


def test_two_plans_of_one_folder_at_the_same_moment(tmp_path: Path) -> None:
    gate = FORK.Barrier(3)
    with together([start(plan_at, tmp_path / "s", gate) for _ in range(3)]) as processes:
        codes = [end(process) for process in processes]
    assert sorted(codes) == [0, 2, 2], "one wins"
    plan = plans.load(tmp_path / "s")
    assert [o.state for o in Store(plan).outcomes()] == ["waiting"] * 20
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def plan_at(folder: Path, gate: threading.Barrier) -> None:
    gate.wait(60)
    try:
        plan_of_many(folder, 20)
    except ScrfdError:
        os._exit(2)


def test_no_folder_of_a_search(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"is no folder of a search; begin one with `scrfd search plan"):
        plans.load(tmp_path)
    (tmp_path / "search.json").mkdir()
    with pytest.raises(ScrfdError, match="cannot be read"):
        plans.load(tmp_path)


def test_a_damaged_plan_is_refused_by_name(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 2)
    path = plan.folder / "search.json"
    whole = path.read_text()
    data = json.loads(whole)

    def refused(text: str | bytes) -> str:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ScrfdError) as caught:
            plans.load(plan.folder)
        assert str(caught.value).startswith(f"{path}: ")
        return str(caught.value)

    for part in (0, 1, len(whole) // 2, len(whole) - 3):
        assert "damaged" in refused(whole[:part])
    assert "damaged" in refused(b"\xff\xfe{}")
    assert "its format is 'scrfdkit-search-9'" in refused(json.dumps(data | {"format": "scrfdkit-search-9"}))
    assert "not numbered" in refused(json.dumps(data | {"candidates": data["candidates"][::-1]}))
    for name in data:
        assert "damaged" in refused(json.dumps({key: value for key, value in data.items() if key != name})), name
    for value in ("[]", "3", "null", json.dumps(data | {"candidates": [{}]}), json.dumps(data | {"space": {}})):
        assert "damaged" in refused(value), value
    row = data["candidates"][0]
    for name, value in (("storage", 5), ("drawn", "x"), ("seed", True), ("origin", None)):
        assert f"damaged: {name}" in refused(json.dumps(data | {name: value}))
    assert "damaged" in refused("[" * 100_000)
    for change in ({"spec": {}}, {"traits": {"stem": "much"}}, {"recipe": None}, {"number": "x"}):
        assert "damaged" in refused(json.dumps(data | {"candidates": [row | change]})), change
    path.write_text(whole)
    assert plans.load(plan.folder) == plan


@pytest.mark.parametrize(
    ("storage", "place"),
    [
        ("postgresql+psycopg://me:secret@server/x", "postgresql+psycopg://me:***@server/x"),
        ("postgresql+psycopg://me:se/cr:et@server:5432/x", "postgresql+psycopg://me:***@server:5432/x"),
        ("postgresql+psycopg://server/x?user=me&password=secret", "postgresql+psycopg://server/x?user=me&password=***"),
        ("postgresql+psycopg://me@server/x", "postgresql+psycopg://me@server/x"),
        ("postgresql+psycopg://server:5432/x", "postgresql+psycopg://server:5432/x"),
    ],
)
def test_no_message_tells_a_password(storage: str, place: str) -> None:
    spec = ZOO["scrfd_500m"].spec
    plan = plans.make(CropSpace(spec), (Candidate(1, spec),), 0, 1, 1, storage)
    assert plan.place() == place
    assert plan.url() == storage
