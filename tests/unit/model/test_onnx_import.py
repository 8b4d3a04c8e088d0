"""Weights out of ONNX files: made here by torch's exporter, then disturbed in every way that exporters differ."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from networks import CROWDHUMAN, gap, random_net
from onnx import helper, numpy_helper
from torch import nn

from scrfdkit.errors import WeightError
from scrfdkit.model.net import SCRFD, fuse
from scrfdkit.model.onnx_graph import Signatures, plan_sites
from scrfdkit.model.onnx_import import import_onnx, recognise_onnx
from scrfdkit.model.plan import plan
from scrfdkit.zoo import ZOO

FAMILIES = ("scrfd_500m", "scrfd_500m_kps", "scrfd_1gbn", "scrfd_2.5g", "scrfd_2.5g_kps", "scrfd_34g")
CLOSE = 1e-4


def export(net: nn.Module, path: Path, opset: int = 17, **options: Any) -> onnx.ModelProto:
    with warnings.catch_warnings():  # this exporter announces its successor
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (torch.zeros(1, 3, 64, 64),),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=["data"],
            **options,
        )
    return onnx.load(str(path))


def assert_same(path: Path, net: SCRFD, name: str) -> None:
    found, found_name, spec = import_onnx(path)
    assert (found_name, spec) == (name, ZOO[name].spec)
    x = torch.randn(2, 3, 96, 64)
    outputs = net(x)
    assert gap(outputs, found(x)) <= CLOSE * max(1.0, *(float(o.abs().max()) for o in outputs))


@pytest.mark.parametrize("name", ZOO)
def test_no_two_places_of_a_network_look_alike(name: str) -> None:
    walked = plan(ZOO[name].spec, 64, 64)
    places = plan_sites(walked, Signatures())
    assert len(places) == sum(op.kind == "conv" for op in walked.ops)


def test_no_two_networks_look_alike() -> None:
    signatures = Signatures()
    structures = {name: frozenset(plan_sites(plan(row.spec, 64, 64), signatures)) for name, row in ZOO.items()}
    assert len(set(structures.values())) == len(ZOO)


@pytest.mark.parametrize("name", FAMILIES)
def test_fresh_export(tmp_path: Path, name: str) -> None:
    net = random_net(ZOO[name].spec)
    export(net, tmp_path / "net.onnx")
    assert_same(tmp_path / "net.onnx", net, name)


@pytest.mark.parametrize("name", ("scrfd_500m_kps", "scrfd_2.5g"))
def test_batch_norms_that_were_not_folded(tmp_path: Path, name: str) -> None:
    net = random_net(ZOO[name].spec)
    model = export(net, tmp_path / "net.onnx", training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False)
    assert any(node.op_type == "BatchNormalization" for node in model.graph.node)
    assert_same(tmp_path / "net.onnx", net, name)


def test_group_norm_as_one_operation(tmp_path: Path) -> None:
    """Opset 21 has a GroupNormalization with a weight a channel; the graph is rewritten to have it."""
    net = random_net(ZOO["scrfd_2.5g"].spec)
    model = export(net, tmp_path / "net.onnx")
    maker = {out: node for node in model.graph.node for out in node.output}
    constants = {i.name: i for i in model.graph.initializer}
    constants |= {n.output[0]: n.attribute[0].t for n in model.graph.node if n.op_type == "Constant"}
    copies = [n for n in model.graph.node if n.op_type == "Identity" and n.input[0] in constants]
    constants |= {n.output[0]: constants[n.input[0]] for n in copies}
    dropped: list[str] = []
    for node in [n for n in model.graph.node if n.op_type == "InstanceNormalization"]:
        source = maker[node.input[0]].input[0]
        (back,) = [n for n in model.graph.node if node.output[0] in n.input]
        (scaled,) = [n for n in model.graph.node if back.output[0] in n.input]
        (shifted,) = [n for n in model.graph.node if scaled.output[0] in n.input]
        flat = []
        for n in (scaled, shifted):
            (constant,) = [i for i in n.input if i in constants]
            flat.append(f"{constant}_flat_{node.name}")
            array = numpy_helper.to_array(constants[constant]).reshape(-1)
            model.graph.initializer.append(numpy_helper.from_array(array, flat[-1]))
        dropped += [n.name for n in (maker[node.input[0]], node, back, scaled, shifted)]
        norm = helper.make_node("GroupNormalization", [source, *flat], [shifted.output[0]], num_groups=16)
        model.graph.node.append(norm)
    kept = [n for n in model.graph.node if n.name not in dropped]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    onnx.save(model, str(tmp_path / "net.onnx"))
    assert sum(n.op_type == "GroupNormalization" for n in kept) == 6
    assert_same(tmp_path / "net.onnx", net, "scrfd_2.5g")


def test_names_and_order_mean_nothing(tmp_path: Path) -> None:
    net = random_net(ZOO["scrfd_2.5g_kps"].spec)
    model = export(net, tmp_path / "net.onnx")
    names: dict[str, str] = {"": ""}

    def new(name: str) -> str:
        return names.setdefault(name, str(len(names) * 7919 % 100_003))

    for node in model.graph.node:
        node.name = ""
        node.input[:] = [new(i) for i in node.input]
        node.output[:] = [new(o) for o in node.output]
    for value in [*model.graph.initializer, *model.graph.input, *model.graph.output]:
        value.name = new(value.name)
    nodes, tensors = list(model.graph.node), list(model.graph.initializer)
    random.Random(3).shuffle(nodes)
    random.Random(4).shuffle(tensors)
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(tensors)
    onnx.save(model, str(tmp_path / "net.onnx"))
    assert_same(tmp_path / "net.onnx", net, "scrfd_2.5g_kps")


class OfficialLayout(nn.Module):
    """Sigmoid and rows, as the official files have them; without a batch axis as the old ones."""

    def __init__(self, net: SCRFD, batched: bool) -> None:
        super().__init__()
        self.net, self.batched = net, batched

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        outputs = []
        for i, tensor in enumerate(self.net(x)):
            anchors = self.net.spec.head.num_anchors
            rows = tensor.permute(0, 2, 3, 1).reshape(-1, tensor.shape[1] // anchors)
            rows = rows.reshape(x.shape[0], -1, rows.shape[1]) if self.batched else rows
            outputs.append(rows.sigmoid() if i < 3 else rows)
        return outputs


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("name", ("scrfd_500m_kps", "scrfd_2.5g"))
def test_official_layouts(tmp_path: Path, name: str, dynamic: bool, batched: bool) -> None:
    net = random_net(ZOO[name].spec)
    axes = {"data": {0: "b", 2: "h", 3: "w"}} if dynamic else None
    export(OfficialLayout(net, batched).eval(), tmp_path / "net.onnx", opset=11, dynamic_axes=axes)
    assert_same(tmp_path / "net.onnx", net, name)


def test_scales_that_the_network_has_no_place_for_go_into_the_convolution(tmp_path: Path) -> None:
    net = random_net(ZOO["scrfd_500m_kps"].spec)

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net
            self.register_buffer("factors", torch.tensor([0.5, 0.7, 3.0]))

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            outputs = self.net(x)
            return [o * self.factors[i - 3] if 3 <= i < 6 else o for i, o in enumerate(outputs)]

    scaled = Scaled().eval()
    export(scaled, tmp_path / "net.onnx")
    found, _, _ = import_onnx(tmp_path / "net.onnx")
    x = torch.randn(1, 3, 64, 64)
    outputs = scaled(x)
    assert gap(outputs, found(x)) <= CLOSE * max(1.0, *(float(o.abs().max()) for o in outputs))


def test_scales_that_the_exporter_folded_are_one(tmp_path: Path) -> None:
    net = random_net(ZOO["scrfd_2.5g_kps"].spec)
    for level, key in enumerate(net.bbox_head.keys):
        scale = net.bbox_head.scales[level].scale.clone()
        net.bbox_head.stride_reg[key].weight *= scale
        net.bbox_head.stride_reg[key].bias *= scale
        net.bbox_head.scales[level] = nn.Identity()
    export(net, tmp_path / "net.onnx")
    found, name, _ = import_onnx(tmp_path / "net.onnx")
    assert name == "scrfd_2.5g_kps"
    assert [float(s.scale) for s in found.bbox_head.scales] == [1, 1, 1]
    x = torch.randn(1, 3, 64, 64)
    assert gap(net(x), found(x)) <= CLOSE * max(1.0, *(float(o.abs().max()) for o in net(x)))


def test_recognition_alone(tmp_path: Path) -> None:
    export(random_net(ZOO["base_1g"].spec), tmp_path / "net.onnx")
    assert recognise_onnx(tmp_path / "net.onnx") == ("base_1g", ZOO["base_1g"].spec)


def test_a_name_that_does_not_fit(tmp_path: Path) -> None:
    net = random_net(ZOO["scrfd_2.5g"].spec)
    export(net, tmp_path / "net.onnx")
    assert import_onnx(tmp_path / "net.onnx", "scrfd_2.5g").name == "scrfd_2.5g"
    with pytest.raises(WeightError, match="fit not scrfd_10g"):
        import_onnx(tmp_path / "net.onnx", "scrfd_10g")
    with pytest.raises(WeightError, match="no network is called 'yolo'"):
        import_onnx(tmp_path / "net.onnx", "yolo")


def test_a_network_outside_the_zoo(tmp_path: Path) -> None:
    export(fuse(random_net(CROWDHUMAN)), tmp_path / "net.onnx")
    with pytest.raises(WeightError, match=r"net\.onnx: its 69 convolutions fit no known network"):
        import_onnx(tmp_path / "net.onnx")


def test_levels_of_a_shared_head_must_agree(tmp_path: Path) -> None:
    """The graph uses one weight for three levels; give one of them its own."""
    model = export(random_net(ZOO["scrfd_2.5g"].spec), tmp_path / "net.onnx")
    name = "bbox_head.stride_cls.0.weight"
    (array,) = [numpy_helper.to_array(i) for i in model.graph.initializer if i.name == name]
    model.graph.initializer.append(numpy_helper.from_array(array + np.float32(1), "other"))
    user = [node for node in model.graph.node if name in node.input][1]
    user.input[1] = "other"
    onnx.save(model, str(tmp_path / "net.onnx"))
    with pytest.raises(WeightError, match=r"levels that should share bbox_head.stride_cls.0.weight differ"):
        import_onnx(tmp_path / "net.onnx")


@pytest.mark.parametrize("data", [b"", b"no onnx file at all"])
def test_other_files(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(data)
    with pytest.raises(WeightError, match=r"net\.onnx: not "):
        import_onnx(tmp_path / "net.onnx")


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match=r"net\.onnx"):
        import_onnx(tmp_path / "net.onnx")
