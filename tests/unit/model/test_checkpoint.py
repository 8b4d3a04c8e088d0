"""Weight files: complete, verified, and honest about what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import CROWDHUMAN, gap, random_net
from safetensors.torch import save_file

from scrfdkit.errors import ScrfdError, WeightError
from scrfdkit.model import header
from scrfdkit.model.checkpoint import WeightInfo, file_shapes, import_pth, load, read_header, save
from scrfdkit.model.net import blank, build, fuse
from scrfdkit.spec import ModelSpec
from scrfdkit.zoo import ZOO

NAME = "scrfd_500m_kps"
SPEC = ZOO[NAME].spec


def write(path: Path) -> Path:
    save(path, random_net(SPEC), SPEC, name=NAME, metrics={"easy": 90.5}, licence="free", source="a test")
    return path


@pytest.mark.parametrize("fused", [False, True])
def test_round_trip_is_exact(tmp_path: Path, fused: bool) -> None:
    net = random_net(ZOO["scrfd_2.5g"].spec)
    net = fuse(net) if fused else net
    saved = save(
        tmp_path / "w.safetensors", net, net.spec, name="mine", fused=fused, metrics={"a": [1]}, licence="L", source="S"
    )
    again, info = load(tmp_path / "w.safetensors")
    x = torch.randn(1, 3, 64, 64)
    assert gap(net(x), again(x)) == 0
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    assert info == saved == read_header(tmp_path / "w.safetensors")
    assert (info.name, info.spec, info.fused, info.metrics) == ("mine", net.spec, fused, {"a": [1]})
    assert (info.licence, info.source, len(info.sha256)) == ("L", "S", 64)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_any_spec_can_be_saved(tmp_path: Path) -> None:
    net = random_net(CROWDHUMAN)
    save(tmp_path / "crowd.safetensors", net.state_dict(), CROWDHUMAN, name="crowd")
    again, info = load(tmp_path / "crowd.safetensors")
    assert info.spec == CROWDHUMAN
    assert gap(net(torch.ones(1, 3, 128, 128)), again(torch.ones(1, 3, 128, 128))) == 0


def test_sha256_depends_on_every_bit_and_on_nothing_else(tmp_path: Path) -> None:
    net = random_net(SPEC)
    state = net.state_dict()
    first = save(tmp_path / "1.safetensors", state, SPEC, name=NAME)
    backwards = {key: state[key] for key in reversed(list(state))}
    second = save(tmp_path / "2.safetensors", backwards, SPEC, name="other name", licence="other")
    assert first.sha256 == second.sha256
    state["neck.fpn_convs.0.conv.bias"][3] += 1e-6
    assert save(tmp_path / "3.safetensors", state, SPEC, name=NAME).sha256 != first.sha256


def test_other_float_types_become_float32(tmp_path: Path) -> None:
    net = random_net(SPEC).double()
    save(tmp_path / "w.safetensors", net, SPEC, name=NAME)
    again, _ = load(tmp_path / "w.safetensors")
    assert {v.dtype for v in again.state_dict().values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize("where", [0.2, 0.6, 0.999])
def test_a_flipped_bit_is_found(tmp_path: Path, where: float) -> None:
    path = write(tmp_path / "w.safetensors")
    data = bytearray(path.read_bytes())
    _, layout = header.read(path, whole=False)
    data[layout.offset + int(where * layout.num_bytes)] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightError, match=r"w\.safetensors: damaged: sha256"):
        load(path)


@pytest.mark.parametrize("keep", [0, 5, 3000, 2_000_000])
def test_a_file_cut_short_is_found_from_its_header(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "w.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    for read in (read_header, load):
        with pytest.raises(WeightError, match="cut short"):
            read(path)


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x02\0\0\0\0\0\0\0{}x",
        b"\x08\0\0\0\0\0\0\0" + b'{"a":1 }',
        b"\x04\0\0\0\0\0\0\0\xff\xfe\xff\xfe",
    ],
)
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(data)
    for read in (read_header, load):
        with pytest.raises(WeightError, match=r"w\.safetensors: "):
            read(tmp_path / "w.safetensors")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    for read in (read_header, load, import_pth):
        with pytest.raises(WeightError, match=r"nothing\.pth: .*[Nn]o such file"):
            read(tmp_path / "nothing.pth")
    (tmp_path / "file").touch()
    with pytest.raises(ScrfdError, match="cannot be written"):
        save(tmp_path / "file" / "w.safetensors", build(SPEC), SPEC, name=NAME)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "has format None"),
        ({"format": "pt"}, "has format 'pt'"),
        ({"model": "yolo"}, "no network is called 'yolo'"),
        ({"format": "scrfdkit-1", "name": "x"}, "lacks 'spec'"),
        ({"format": "scrfdkit-1", "name": "x", "spec": "{}"}, "missing fields"),
    ],
)
def test_a_safetensors_file_of_somebody_else_is_refused(
    tmp_path: Path, metadata: dict[str, str] | None, message: str
) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "w.safetensors", metadata)
    for read in (read_header, load):
        with pytest.raises(WeightError, match=message):
            read(tmp_path / "w.safetensors")


def test_a_plain_file_with_a_zoo_name_is_read(tmp_path: Path) -> None:
    net = random_net(SPEC)
    state = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "w.safetensors", {"model": "scrfd_500m_bnkps"})
    again, info = load(tmp_path / "w.safetensors")
    assert (info.name, info.sha256, info.fused) == (NAME, "", False)
    x = torch.randn(1, 3, 64, 64)
    assert gap(net(x), again(x)) == 0


def test_tensors_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    state = build(SPEC).state_dict()
    del state["backbone.stem.0.0.weight"]
    state["extra"] = torch.ones(1)
    state["neck.fpn_convs.0.conv.bias"] = torch.ones(5)
    with pytest.raises(WeightError) as caught:
        save(tmp_path / "w.safetensors", state, SPEC, name=NAME)
    for part in ("missing backbone.stem.0.0.weight", "unexpected extra", "fpn_convs.0.conv.bias is (5,), not (16,)"):
        assert part in str(caught.value)
    assert not list(tmp_path.iterdir())
    save_file(state, tmp_path / "w.safetensors", {"model": NAME})
    with pytest.raises(WeightError, match=r"do not fit the network: missing backbone.stem.0.0.weight"):
        load(tmp_path / "w.safetensors")


def checkpoint(name: str, **more: object) -> dict[str, object]:
    """As mmcv writes it."""
    state = random_net(ZOO[name].spec).state_dict()
    state["bbox_head.integral.project"] = torch.arange(9.0)
    meta = {"epoch": 640, "iter": 1000, "config": "model = dict()", "CLASSES": ("FG",), "env": {"GPU": None}}
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    return {"meta": meta, "state_dict": state, "optimizer": optimizer} | more


def test_pth_comes_in_three_forms(tmp_path: Path) -> None:
    whole = checkpoint("scrfd_1g")
    state = whole["state_dict"]
    assert isinstance(state, dict)
    parallel = {f"module.{key}": value for key, value in state.items()}
    for data in (whole, state, {"state_dict": parallel}):
        torch.save(data, tmp_path / "model.pth")
        net, name, spec = import_pth(tmp_path / "model.pth")
        assert (name, spec) == ("scrfd_1g", ZOO["scrfd_1g"].spec)
        assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
        assert not net.training


def test_pth_may_lack_batch_counters(tmp_path: Path) -> None:
    whole = checkpoint(NAME)
    state = whole["state_dict"]
    assert isinstance(state, dict)
    whole["state_dict"] = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save(whole, tmp_path / "model.pth")
    assert import_pth(tmp_path / "model.pth").name == NAME


def test_pth_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save(checkpoint("scrfd_2.5g"), tmp_path / "model.pth")
    assert import_pth(tmp_path / "model.pth", "scrfd_2.5g").name == "scrfd_2.5g"
    with pytest.raises(WeightError, match="as scrfd_10g: the tensors do not fit"):
        import_pth(tmp_path / "model.pth", "scrfd_10g")
    with pytest.raises(WeightError, match="no network is called 'yolo'"):
        import_pth(tmp_path / "model.pth", "yolo")


def test_pth_of_no_known_network_gives_the_nearest(tmp_path: Path) -> None:
    state = build(ZOO["scrfd_10g"].spec).state_dict()
    state["neck.lateral_convs.1.conv.bias"] = torch.zeros(57)
    torch.save({"state_dict": state}, tmp_path / "model.pth")
    with pytest.raises(WeightError, match=r"nearest is scrfd_10g: neck.lateral_convs.1.conv.bias is \(57,\)"):
        import_pth(tmp_path / "model.pth")


@pytest.mark.parametrize("old_format", [False, True])
def test_pth_may_hold_numpy_numbers(tmp_path: Path, old_format: bool) -> None:
    """Training tools put measured figures into `meta`, as numpy gave them."""
    figures = {"ap": np.float64(0.9), "lr": np.float32(0.1), "epoch": np.int64(3), "best": np.True_, "at": np.str_("x")}
    whole = checkpoint("scrfd_1g", figures=figures)
    torch.save(whole, tmp_path / "model.pth", _use_new_zipfile_serialization=not old_format)
    assert import_pth(tmp_path / "model.pth").name == "scrfd_1g"


class Anything:
    """A class that a checkpoint must not be able to bring to life."""


def test_pth_with_pickled_objects_is_refused(tmp_path: Path) -> None:
    torch.save(checkpoint(NAME, hooks=Anything()), tmp_path / "model.pth")
    with pytest.raises(WeightError, match=r"cannot be loaded safely.*Anything"):
        import_pth(tmp_path / "model.pth")


@pytest.mark.parametrize("data", [{}, {"state_dict": {}}, [torch.ones(1)], {"epoch": 3}, torch.ones(2)])
def test_pth_without_a_state_dict_is_refused(tmp_path: Path, data: object) -> None:
    torch.save(data, tmp_path / "model.pth")
    with pytest.raises(WeightError, match="holds no state dict"):
        import_pth(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"the file is empty \(zero bytes\)"),
        (b"hello there, this is no checkpoint", "it starts with b'hello there, thi'"),
        (json.dumps({"a": 1}).encode(), "it starts with b'{\"a\": 1}'"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html>", "it is a web page"),
        (b"\x80\x02.", "or damaged: "),
        (b"PK\x03\x04 cut off", "or damaged: "),
    ],
)
def test_files_that_are_no_checkpoint_are_refused_with_the_reason(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "model.pth").write_bytes(data)
    with pytest.raises(WeightError, match=rf"model\.pth: not a PyTorch checkpoint.*{reason}") as caught:
        import_pth(tmp_path / "model.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("spec", [*(row.spec for row in ZOO.values()), CROWDHUMAN])
def test_shapes_are_known_without_a_network(spec: ModelSpec, fused: bool) -> None:
    state = blank(spec, fused).state_dict()
    assert file_shapes(spec, fused) == {name: tuple(value.shape) for name, value in state.items()}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("neck", "channels", 60_000, "lateral_convs"),
        ("backbone", "widths", [60_000, 60_000, 60_000, 60_000], "layer1"),
        ("backbone", "blocks", [60_000, 3, 2, 6], "more layers than there are tensors"),
        ("head", "depth", 60_000, "more layers than there are tensors"),
    ],
)
def test_a_header_with_absurd_numbers_is_refused_before_a_network_is_built(
    tmp_path: Path, fused: bool, part: str, field: str, value: object, message: str
) -> None:
    spec = json.loads(SPEC.to_json())
    spec[part][field] = value
    net = random_net(SPEC)
    net = fuse(net) if fused else net
    metadata = WeightInfo(NAME, SPEC, fused, sha256="0" * 64).to_metadata() | {"spec": json.dumps(spec)}
    save_file(net.state_dict(), tmp_path / "w.safetensors", metadata)
    for read in (read_header, load):
        with pytest.raises(WeightError, match=rf"w\.safetensors: the tensors do not fit the network: .*{message}"):
            read(tmp_path / "w.safetensors")


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    spec = ZOO["scrfd_500m"].spec
    net = build(spec)
    facts = {"name": "a", "licence": "b", "source": "c", "metrics": {"d": 1}}
    for name in ("one", "two", "three"):
        save(tmp_path / name, net, spec, **facts)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == (tmp_path / "three").read_bytes()
