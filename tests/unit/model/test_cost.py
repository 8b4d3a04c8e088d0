"""The analytic cost against the module that torch really runs."""

from __future__ import annotations

import subprocess
import sys
from math import prod

import pytest
import torch
from networks import CROWDHUMAN
from torch import nn

from scrfdkit.errors import ModelError
from scrfdkit.model.cost import FLOAT_BYTES, cost, peak
from scrfdkit.model.net import build
from scrfdkit.model.plan import Map, Op, Plan, check_size, plan
from scrfdkit.zoo import ZOO

WIDTH, HEIGHT = 96, 160  # odd multiples of 32
SPECS = {name: row.spec for name, row in ZOO.items()} | {"crowdhuman": CROWDHUMAN}


@pytest.mark.parametrize("name", SPECS)
def test_params_macs_and_maps_are_those_of_the_module(name: str) -> None:
    spec = SPECS[name]
    with torch.device("meta"):
        net = build(spec).eval()
        macs: list[int] = []

        def count(conv: nn.Module, _: object, output: torch.Tensor) -> None:
            assert isinstance(conv, nn.Conv2d)
            macs.append(output.numel() * prod(conv.weight.shape[1:]))

        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(count)
        outputs = net(torch.empty(1, 3, HEIGHT, WIDTH))
    found = cost(spec, WIDTH, HEIGHT)
    assert found.params == sum(p.numel() for p in net.parameters())
    assert found.macs == sum(macs)
    walked = plan(spec, WIDTH, HEIGHT)
    assert [op.macs for op in walked.ops if op.kind == "conv"] == macs  # one by one, in the order they run
    maps = [walked.maps[i] for i in walked.outputs]
    assert [(m.channels, m.height, m.width) for m in maps] == [tuple(o.shape[1:]) for o in outputs]


def test_sizes_that_are_no_multiple_of_32() -> None:
    spec = ZOO["scrfd_2.5g"].spec
    walked = plan(spec, 101, 75)
    with torch.inference_mode():
        outputs = build(spec).eval()(torch.zeros(1, 3, 75, 101))
    assert [walked.maps[i].size for i in walked.outputs] == [o.numel() for o in outputs]


def test_parts_add_up() -> None:
    found = cost(ZOO["scrfd_34g"].spec, 640, 640)
    for field in ("params", "macs", "flops"):
        assert sum(getattr(part, field) for part in found.parts) == getattr(found, field)
    assert found.weight_bytes == FLOAT_BYTES * found.params
    assert found.to_dict()["parts"][0]["name"] == "stem"


def test_peak_counts_what_is_alive() -> None:
    """A (10) -> B (6), B -> C (4), B + C -> B, B -> D (1): the worst moment holds A and B; C is dead before D."""
    maps = (Map(1, 1, 10), Map(1, 1, 6), Map(1, 1, 4), Map(1, 1, 1))
    ops = (
        Op("stem", "conv", "", (0,), 1),
        Op("stem", "conv", "", (1,), 2),
        Op("stem", "add", "", (1, 2), 1),
        Op("stem", "conv", "", (1,), 3),
    )
    assert peak(Plan(ops, maps, (3,))) == 16
    assert peak(Plan(ops[1:], (Map(1, 1, 0), *maps[1:]), (3,))) == 10
    kept_to_the_end = Plan(ops, (Map(1, 1, 10), Map(1, 1, 6), Map(1, 1, 40), Map(1, 1, 1)), (3, 2))
    assert peak(kept_to_the_end) == 47  # B, C and D


def test_peak_of_a_network_is_where_paper_and_pencil_say() -> None:
    """500M at 640x640: the stem's point-wise convolution reads and writes 16 maps of 320x320."""
    assert cost(ZOO["scrfd_500m_kps"].spec, 640, 640).peak_activation_bytes == 2 * 16 * 320 * 320 * 4


def test_cost_needs_no_torch() -> None:
    code = (
        "import sys; from scrfdkit.zoo import ZOO; from scrfdkit.model.cost import cost; "
        "from scrfdkit.model.checkpoint import read_header; from scrfdkit.model.onnx_import import recognise_onnx; "
        "cost(ZOO['scrfd_34g'].spec); sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_size_below_a_pixel_is_refused() -> None:
    with pytest.raises(ModelError, match="0x480"):
        cost(ZOO["scrfd_500m"].spec, 0, 480)


def test_check_size() -> None:
    check_size(640, 352)
    with pytest.raises(ModelError, match=r"640x350.*multiples of 32.*640x352"):
        check_size(640, 350)
    with pytest.raises(ModelError, match="32x64"):
        check_size(0, 64)
