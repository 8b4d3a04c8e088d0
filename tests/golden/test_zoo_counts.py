"""Parameters, operations and state-dict keys of every official network, as counted with the reference's own code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scrfdkit.model.cost import cost
from scrfdkit.model.plan import state_shapes
from scrfdkit.zoo import ZOO

COUNTS = json.loads((Path(__file__).parent / "zoo_counts.json").read_text())
"""At 640x480, mmcv 1.3.3's counter: totals, number of state-dict entries, and [params, macs, flops] of each part."""


def test_every_row_has_golden_counts() -> None:
    assert list(COUNTS) == list(ZOO)


@pytest.mark.parametrize("name", ZOO)
def test_counts_are_exactly_the_references(name: str) -> None:
    golden, found = COUNTS[name], cost(ZOO[name].spec, 640, 480)
    assert (found.params, found.macs, found.flops) == (golden["params"], golden["macs"], golden["flops"])
    assert {p.name: [p.params, p.macs, p.flops] for p in found.parts} == golden["parts"]
    unused_buffer = 1  # bbox_head.integral.project of the reference
    assert len(state_shapes(ZOO[name].spec)) + unused_buffer == golden["keys"]


@pytest.mark.parametrize("name", ZOO)
def test_keys_and_shapes_are_the_references(name: str, shared: Path) -> None:
    file = shared / "reference" / "keys" / f"sd_{ZOO[name].config}.json"
    golden = {key: tuple(shape) for key, shape in json.loads(file.read_text()).items()}
    golden.pop("bbox_head.integral.project")
    assert state_shapes(ZOO[name].spec) == golden
