"""The network that a training begins with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from networks import CROWDHUMAN, gap, random_net
from torch import nn

from scrfdkit.errors import OptionError, ScrfdError, WeightError
from scrfdkit.model.checkpoint import load, save
from scrfdkit.model.net import SCRFD, fuse
from scrfdkit.train.start import begin, freeze_parts
from scrfdkit.weights import embedded
from scrfdkit.zoo import ZOO

NAME = "scrfd_500m_kps"
SPEC = ZOO[NAME].spec
X = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SCRFDKIT_WEIGHTS", str(tmp_path / "cache"))
    return tmp_path / "cache"


@torch.no_grad()
def outputs(net: SCRFD) -> list[torch.Tensor]:
    return net.eval()(X)  # type: ignore[no-any-return]


def same(first: nn.Module, second: nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


def test_a_name_gives_fresh_weights_from_the_seed() -> None:
    torch.manual_seed(3)
    first = begin("scrfd_500m_bnkps")
    torch.manual_seed(3)
    second = begin(NAME)
    assert same(first.net, second.net)
    assert not same(first.net, begin(NAME).net)
    assert (first.name, first.spec, first.notes, first.new, first.folded) == (
        NAME,
        SPEC,
        ("all weights are fresh",),
        (),
        False,
    )
    assert first.net.training
    assert all(p.requires_grad for p in first.net.parameters())


def test_a_description_is_a_network(tmp_path: Path) -> None:
    (tmp_path / "crowd.json").write_text(CROWDHUMAN.to_json())
    for model in (CROWDHUMAN, tmp_path / "crowd.json", str(tmp_path / "crowd.json")):
        assert begin(model).spec == CROWDHUMAN
    assert begin(tmp_path / "crowd.json").name == "crowd"
    assert begin(CROWDHUMAN).name == "custom"


@pytest.mark.parametrize("text", ["{}", "[]", "no json", '{"backbone": 1, "neck": 2, "head": 3}', "\x80"])
def test_a_damaged_description_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "net.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(OptionError, match=r"net\.json: not the description of a network"):
        begin(tmp_path / "net.json")
    with pytest.raises(OptionError, match=r"none\.json: cannot be read: No such file"):
        begin(tmp_path / "none.json")


def test_weights_by_name_are_the_packages(tmp_path: Path) -> None:
    start = begin(NAME, weights=NAME)
    trained, info = load(embedded(".safetensors"))
    assert same(start.net, trained)
    assert start.net.training
    assert all(p.requires_grad for p in start.net.parameters())
    assert (start.licence, start.source) == (info.licence, info.source)
    assert any(info.licence in note for note in start.notes)


def test_weights_with_norms_are_preferred_in_the_cache(cache: Path) -> None:
    net = random_net(SPEC)
    cache.mkdir()
    save(cache / f"{NAME}.safetensors", fuse(net), SPEC, name=NAME, fused=True)
    assert begin(NAME, weights=NAME).folded
    torch.save({"state_dict": net.state_dict()}, cache / f"{NAME}.pth")
    start = begin(NAME, weights=NAME)
    assert not start.folded
    assert same(start.net, net)


def test_a_weight_file_is_a_network_with_its_weights(tmp_path: Path) -> None:
    net = random_net(CROWDHUMAN)
    save(tmp_path / "crowd.safetensors", net, CROWDHUMAN, name="crowd", licence="mine", source="here")
    start = begin(tmp_path / "crowd.safetensors")
    assert (start.spec, start.name, start.licence, start.source) == (CROWDHUMAN, "crowd", "mine", "here")
    assert same(start.net, net)


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx"])
def test_folded_weights_compute_the_same_with_new_norms(tmp_path: Path, suffix: str) -> None:
    if suffix == ".onnx":
        pytest.importorskip("onnx")
        path = embedded(".onnx")
    else:
        path = tmp_path / "folded.safetensors"
        save(path, fuse(load(embedded(".safetensors"))[0]), SPEC, name=NAME, fused=True)
    start = begin(str(path))
    assert start.folded
    assert start.name == NAME
    assert any("folded" in note for note in start.notes)
    assert gap(outputs(start.net), outputs(load(embedded(".safetensors"))[0])) < 1e-4


def test_official_files(shared: Path) -> None:
    pytest.importorskip("onnx")
    for name in ("scrfd_2.5g_kps", "scrfd_1g", "scrfd_2.5g"):
        start = begin(shared / "weights" / "official" / f"{name}.onnx")
        assert (start.name, start.folded) == (name, True)
        assert "non-commercial research only" in start.licence
        assert any(start.licence in note for note in start.notes)


def test_a_pth_file_of_no_known_network_needs_its_description(tmp_path: Path) -> None:
    net = random_net(CROWDHUMAN)
    torch.save({"state_dict": net.state_dict()}, tmp_path / "crowd.pth")
    assert same(begin(CROWDHUMAN, weights=tmp_path / "crowd.pth").net, net)
    with pytest.raises(WeightError, match="fits no known network"):
        begin(tmp_path / "crowd.pth")
    with pytest.raises(WeightError, match=r"crowd\.pth: the tensors do not fit"):
        begin(NAME, weights=tmp_path / "crowd.pth")


def test_a_changed_head_keeps_the_rest_and_says_what_is_new() -> None:
    start = begin(NAME, weights=NAME, num_keypoints=3)
    assert (start.name, start.spec.head.num_keypoints) == (f"{NAME}_3points", 3)
    assert len(start.new) == 6
    assert start.notes[-1] == "fresh weights: 6 tensors of bbox_head.stride_kps"
    assert gap(outputs(start.net)[:6], outputs(load(embedded(".safetensors"))[0])[:6]) == 0
    again = begin(NAME, weights=NAME, norm="gn")
    assert again.name == f"{NAME}_gn"
    assert any("the finest level's is the start" in note for note in again.notes)
    assert {key.split(".")[1] for key in again.new} == {"cls_stride_convs", "scales"}
    assert begin(NAME, num_keypoints=0, norm="gn").name == "scrfd_500m"
    assert begin("scrfd_500m", norm="bn").name == "scrfd_500m_bn"


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "w.safetensors", random_net(ZOO["scrfd_1g"].spec), ZOO["scrfd_1g"].spec, name="scrfd_1g")
    with pytest.raises(WeightError, match=r"w\.safetensors: .*another backbone: scrfd_1g instead of scrfd_10g"):
        begin("scrfd_10g", weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("model", "weights", "message"),
    [
        ("yolo", None, "model: no network is called 'yolo'"),
        (NAME, "yolo", "weights: no network is called 'yolo'"),
        (NAME, "scrfd_10g", "not on this machine"),
        ("missing.pth", None, r"missing\.pth: no such file"),
        ("missing.onnx", None, r"missing\.onnx: "),
        (NAME, "missing.safetensors", r"missing\.safetensors: cannot be read: No such file"),
    ],
)
def test_words_that_mean_nothing_are_refused(model: str, weights: str | None, message: str) -> None:
    with pytest.raises(ScrfdError, match=message):
        begin(model, weights=weights)


@pytest.mark.parametrize(
    ("names", "frozen"),
    [
        (["backbone"], {"backbone"}),
        (["stem"], {"backbone.stem"}),
        (["backbone.layer1", "neck"], {"backbone.layer1", "neck"}),
        (["head"], {"bbox_head"}),
        (["bbox_head.stride_cls.(8, 8)"], {"bbox_head.stride_cls.(8, 8)"}),
    ],
)
def test_parts_are_frozen_with_their_norms(names: list[str], frozen: set[str]) -> None:
    start = begin(NAME, freeze=names)
    count = 0
    for key, p in start.net.named_parameters():
        inside = any(key.startswith(f"{prefix}.") for prefix in frozen)
        assert p.requires_grad != inside, key
        count += p.numel() * inside
    whole = sum(p.numel() for p in start.net.parameters())
    assert 0 < count < whole
    assert start.notes[-1] == f"frozen: {', '.join(names)} ({count} of {whole} weights)"
    for key, module in start.net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training != any(key.startswith(f"{prefix}.") for prefix in frozen)


@pytest.mark.parametrize("name", ["tail", "backbone.layer", "", ".", "backbone.layer9"])
def test_a_part_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=r"freeze: .* there are backbone, neck, head, stem, .*backbone\.layer1"):
        begin(NAME, freeze=[name])


def test_nothing_is_frozen_unasked() -> None:
    net = begin(NAME).net
    assert freeze_parts(net, []) == 0
