"""`scrfd models`, `info` and `convert`, run as commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from networks import CROWDHUMAN, random_net
from typer.testing import CliRunner

from scrfdkit.cli import convert, info, models
from scrfdkit.errors import ScrfdError
from scrfdkit.model.checkpoint import OFFICIAL_LICENCE, load, read_header, save
from scrfdkit.weights import embedded
from scrfdkit.zoo import ZOO

app = typer.Typer()
app.command("models")(models.command)
app.command("info")(info.command)
app.command("convert")(convert.command)


def run(*words: object) -> str:
    """What a command prints; its error is raised."""
    return str(CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=False).stdout)


def run_json(*words: object) -> Any:
    return json.loads(run(*words, "--json"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty weight cache."""
    monkeypatch.setenv("SCRFDKIT_WEIGHTS", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pth(tmp_path: Path) -> Path:
    path = tmp_path / "SCRFD_1G.pth"
    torch.save({"meta": {"epoch": 1}, "state_dict": random_net(ZOO["scrfd_1g"].spec).state_dict()}, path)
    return path


def test_models_lists_every_row() -> None:
    text = run("models")
    for name in ZOO:
        assert f" {name} " in text
    (row,) = [line.split() for line in text.splitlines() if " scrfd_500m_kps " in line]
    assert row == ["scrfd_500m_kps", "0.63", "M", "0.58", "90.97", "88.44", "69.49", "yes", "here"]
    (row,) = [line.split() for line in text.splitlines() if " scrfd_1gbn " in line]
    assert row[-6:] == ["0.99", "-", "-", "-", "no", "none"]


def test_models_as_json() -> None:
    rows = {row["name"]: row for row in run_json("models")}
    assert list(rows) == list(ZOO)
    assert rows["scrfd_34g"]["params"] == 9_802_737
    assert rows["scrfd_34g"]["gflops"] == pytest.approx(34.1433822)
    assert rows["scrfd_34g"]["published"] == {"easy": 96.06, "medium": 94.92, "hard": 85.29}
    assert rows["scrfd_34g"]["weights"] is None
    assert Path(rows["scrfd_500m_kps"]["weights"]).is_file()
    assert rows["scrfd_10g_kps"]["official"][0]["name"] == "SCRFD_10G_KPS.pth"


def test_info_of_a_name() -> None:
    text = run("info", "scrfd_2.5g")
    (row,) = [line.split() for line in text.splitlines() if " C3 " in line]
    assert row[1:-1] == ["C3", "│", "199,200", "│", "951.1", "│", "958.9", "│", "37.9%"]
    assert "671,761" in text
    assert "weights 2.6 MiB" in text


def test_info_at_several_sizes() -> None:
    text = run("info", "scrfd_2.5g", "--size", "640x480", "--size", "320X320")
    assert "2.532" in text
    assert "320x320" in text
    data = run_json("info", "scrfd_2.5g", "--size", "640x480", "--size", "320x320")
    assert [(c["width"], c["height"]) for c in data["costs"]] == [(640, 480), (320, 320)]
    assert data["costs"][0]["flops"] == 2_532_178_200
    assert data["file"] is None


def test_info_of_a_weight_file(tmp_path: Path) -> None:
    net = random_net(CROWDHUMAN)
    made = save(
        tmp_path / "w.safetensors", net, CROWDHUMAN, name="people", metrics={"hard": 70}, licence="mine", source="here"
    )
    text = run("info", tmp_path / "w.safetensors")
    for part in ("people", "mine", "here", "metrics", "hard", "70", made.sha256, "kept"):
        assert part in text
    data = run_json("info", tmp_path / "w.safetensors")
    assert data["name"] == "people"
    assert data["spec"] == json.loads(CROWDHUMAN.to_json())
    assert data["costs"][0]["params"] == sum(p.numel() for p in net.parameters())


def test_info_of_an_onnx_file() -> None:
    text = run("info", embedded(".onnx"))
    for part in ("scrfd_500m_kps", "input input.1", "tensor(float) ['b', 3, 'h', 'w']", "output kps_32", "631,410"):
        assert part in text
    assert "trained from scratch for scrfdkit" in text


def test_info_of_a_checkpoint(pth: Path) -> None:
    assert run_json("info", pth)["name"] == "scrfd_1g"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("info", "yolo"), "no network is called 'yolo'"),
        (("info", "nothing.onnx"), r"nothing\.onnx: there is no such file"),
        (("info", "scrfd_1g", "--size", "640"), "--size 640: WIDTHxHEIGHT"),
        (("info", "scrfd_1g", "--size", "0x640"), "--size 0x640"),
        (("info", __file__), "not a safetensors file"),
        (("convert", "nothing.pth"), r"nothing\.pth: there is no such file"),
        (("convert", __file__), r"only \.pth and \.onnx"),
    ],
)
def test_mistakes_are_one_line(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ScrfdError, match=message) as caught:
        run(*words)
    assert "\n" not in str(caught.value)


def test_info_of_an_onnx_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    with pytest.raises(ScrfdError, match=r"x\.onnx: onnxruntime cannot load it"):
        run("info", tmp_path / "x.onnx")


def test_convert_into_the_cache(pth: Path, cache: Path) -> None:
    text = run("convert", pth)
    assert "is scrfd_1g" in text
    assert 'Detector.open("scrfd_1g", runtime="pytorch")' in text
    found = read_header(cache / "scrfd_1g.safetensors")
    assert (found.name, found.fused, found.source) == ("scrfd_1g", False, "SCRFD_1G.pth")
    assert found.licence == OFFICIAL_LICENCE
    assert found.metrics == {}
    (row,) = [row for row in run_json("models") if row["name"] == "scrfd_1g"]
    assert row["weights"] == str(cache / "scrfd_1g.safetensors")


def test_convert_to_a_file_with_a_licence(tmp_path: Path) -> None:
    out = tmp_path / "new" / "mine.safetensors"
    text = run("convert", embedded(".onnx"), out, "--licence", "as trained", "--model", "scrfd_500m_kps")
    assert f"wrote {out}" in text
    net, found = load(out)
    assert (found.licence, found.fused) == ("as trained", True)
    assert [o.shape[1] for o in net(torch.zeros(1, 3, 64, 64))] == [2, 2, 2, 8, 8, 8, 20, 20, 20]


def test_convert_overwrites_only_when_told(pth: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    out.write_text("precious")
    with pytest.raises(ScrfdError, match="is there already; --force overwrites it"):
        run("convert", pth, out)
    assert out.read_text() == "precious"
    run("convert", pth, out, "--force")
    assert read_header(out).name == "scrfd_1g"


def test_convert_needs_a_safetensors_name_and_the_right_network(pth: Path, tmp_path: Path) -> None:
    with pytest.raises(ScrfdError, match=r"must end in \.safetensors"):
        run("convert", pth, tmp_path / "mine.onnx")
    with pytest.raises(ScrfdError, match="as scrfd_10g: the tensors do not fit"):
        run("convert", pth, "--model", "scrfd_10g")


def test_convert_keeps_the_published_ap_of_a_known_file(shared: Path, cache: Path) -> None:
    run("convert", shared / "weights/official/scrfd_2.5g.onnx")
    published = read_header(cache / "scrfd_2.5g.safetensors").metrics["published_wider_face_val"]
    assert published == {"easy": 93.78, "medium": 92.16, "hard": 77.87}
