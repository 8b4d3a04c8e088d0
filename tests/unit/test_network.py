"""Descriptions of networks: files that are used as names of the zoo are."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from networks import CROWDHUMAN, random_net

from scrfdkit import Detector, network, weights
from scrfdkit.atomic import sha256
from scrfdkit.cli import bench, calibrate
from scrfdkit.errors import ModelError, OptionError, ScrfdError, WeightError
from scrfdkit.evaluate.names import run_name
from scrfdkit.export.source import open_source
from scrfdkit.model import checkpoint
from scrfdkit.model.checkpoint import WeightInfo
from scrfdkit.network import Network, Weights, described, find, find_weights, read, save
from scrfdkit.spec import ModelSpec
from scrfdkit.train.start import begin
from scrfdkit.zoo import ZOO

SPEC = ZOO["scrfd_500m"].spec


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SCRFDKIT_WEIGHTS", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a description and its weights, one folder further down. Not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    file = folder / "run" / "last.safetensors"
    file.parent.mkdir()
    checkpoint.save(
        file, random_net(SPEC), SPEC, name="0017", metrics={"step": 9}, source="trained from random weights"
    )
    save(folder / "winner.json", Network("best of all", SPEC, Weights.of(file, "mine"), {"hard": 41.25}, "a search"))
    return folder


@pytest.fixture
def winner(made: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    shutil.copytree(made, tmp_path / "own")
    return tmp_path / "own" / "winner.json"


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))
    return path


def test_what_is_saved_is_read(made: Path) -> None:
    found = read(made / "winner.json")
    assert (found.name, found.spec, found.measured, found.source) == ("best of all", SPEC, {"hard": 41.25}, "a search")
    file = made / "run" / "last.safetensors"
    assert found.weights == Weights(file, sha256(file), "mine")
    stored = json.loads((made / "winner.json").read_text())
    assert list(stored) == ["format", "name", "spec", "weights", "measured", "source"]
    assert stored["format"] == "scrfdkit-network-1"
    assert stored["spec"] == json.loads(SPEC.to_json())
    assert stored["weights"] == {"file": "run/last.safetensors", "sha256": sha256(file), "licence": "mine"}


@pytest.mark.parametrize("spec", [CROWDHUMAN, *(row.spec for row in ZOO.values())])
def test_every_network_comes_back_equal(spec: ModelSpec, tmp_path: Path) -> None:
    plain = Network("a network, 2.5 GF", spec)
    save(tmp_path / "deep" / "n.json", plain)
    assert read(tmp_path / "deep" / "n.json") == plain
    assert "weights" not in json.loads((tmp_path / "deep" / "n.json").read_text())


def test_a_bare_spec_is_a_network_of_its_files_name(tmp_path: Path) -> None:
    (tmp_path / "crowd.json").write_text(CROWDHUMAN.to_json())
    assert read(str(tmp_path / "crowd.json")) == Network("crowd", CROWDHUMAN)
    long = tmp_path / f"{'x' * 200}.json"
    long.write_text(CROWDHUMAN.to_json())
    assert read(long).name == "x" * 100


def test_the_folder_may_move(winner: Path) -> None:
    moved = winner.parent.rename(winner.parent.with_name("moved"))
    assert find_weights(moved / "winner.json")[0] == moved / "run" / "last.safetensors"


def test_weights_beside_and_above_and_behind_links(made: Path, tmp_path: Path) -> None:
    file = made / "run" / "last.safetensors"
    real = tmp_path / "real" / "deeper"
    real.mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    for path in (tmp_path / "link" / "a.json", tmp_path / "b.json", made / "run" / "c.json"):
        save(path, Network("n", SPEC, Weights.of(file)))
        found, _ = find_weights(path)
        assert found.samefile(file)
        assert not Path(json.loads(path.read_text())["weights"]["file"]).is_absolute()
    (made / "run" / "c.json").unlink()


def test_saved_under_json_names_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"n\.txt: the name of a description must end in \.json"):
        save(tmp_path / "n.txt", Network("n", SPEC))
    (tmp_path / "file").touch()
    with pytest.raises(ScrfdError, match=r"n\.json: cannot be written"):
        save(tmp_path / "file" / "n.json", Network("n", SPEC))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


NOT = r"winner\.json: not the description of a network: "
DAMAGE: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (
        lambda d: d.update(format="scrfdkit-certificate-1"),
        "format: 'scrfdkit-certificate-1' is not 'scrfdkit-network-1'",
    ),
    (lambda d: d.update(format=None), "format: None is not"),
    (lambda d: d.pop("name"), "name: is missing"),
    (lambda d: d.pop("spec"), "spec: is missing"),
    (lambda d: d.update(licence="x"), "licence: is no field of a description"),
    (lambda d: d.update(name=""), "name: 1 to 100 printable characters"),
    (lambda d: d.update(name="  "), "name: 1 to 100"),
    (lambda d: d.update(name="a\nb"), "name: 1 to 100"),
    (lambda d: d.update(name="x" * 101), "name: 1 to 100"),
    (lambda d: d.update(name=7), "name: 1 to 100"),
    (lambda d: d.update(source=None), "source: a text"),
    (lambda d: d.update(measured=[41.0]), "measured: an object with numbers"),
    (lambda d: d.update(measured={"hard": "41"}), "measured: "),
    (lambda d: d.update(measured={"hard": True}), "measured: "),
    (lambda d: d.update(measured={"hard": float("nan")}), "measured: "),
    (lambda d: d.update(measured={"hard": float("inf")}), "measured: "),
    (lambda d: d.update(spec=5), "a model spec is a JSON object"),
    (lambda d: d["spec"].pop("neck"), "model spec: missing fields .'neck'."),
    (lambda d: d["spec"]["head"].update(depth=0), "head.depth"),
    (lambda d: d["spec"]["head"].update(towers=2), "model spec: head has unknown fields .'towers'."),
    (lambda d: d["spec"]["backbone"].update(blocks=3), "model spec: backbone: "),
    (lambda d: d.update(weights="last.safetensors"), "weights: must be an object"),
    (lambda d: d["weights"].pop("file"), "weights.file: is missing"),
    (lambda d: d["weights"].pop("sha256"), "weights.sha256: is missing"),
    (lambda d: d["weights"].update(url="x"), "weights.url: is no field"),
    (lambda d: d["weights"].update(file="/etc/w.safetensors"), "weights.file: a path from the folder"),
    (lambda d: d["weights"].update(file=3), "weights.file: a path from the folder"),
    (lambda d: d["weights"].update(file=""), r"weights.file: the name of a \.safetensors file"),
    (lambda d: d["weights"].update(file="w.onnx"), r"weights.file: the name of a \.safetensors file"),
    (lambda d: d["weights"].update(sha256="0" * 63), "weights.sha256: 64 hex digits"),
    (lambda d: d["weights"].update(sha256="X" * 64), "weights.sha256: 64 hex digits"),
    (lambda d: d["weights"].update(sha256=None), "weights.sha256: 64 hex digits"),
    (lambda d: d["weights"].update(licence=1), "weights.licence: a text"),
]


@pytest.mark.parametrize(("edit", "message"), DAMAGE)
def test_a_wrong_field_is_named(edit: Callable[[dict[str, Any]], object], message: str, winner: Path) -> None:
    with pytest.raises(ModelError, match=NOT + message):
        read(change(winner, edit))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"7", b"\xff\xfe", b'{"name": "n", "spec": {}}', b"[" * 100_000, b" " * (1 << 20) + b"{}"],
    ids=["empty", "half", "list", "number", "no text", "no format", "deep", "large"],
)
def test_what_is_no_description_is_refused(content: bytes, winner: Path) -> None:
    winner.write_bytes(content)
    with pytest.raises(ModelError, match=NOT):
        read(winner)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.json: cannot be read: No such file"):
        read(tmp_path / "gone.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ModelError, match=r"folder\.json: cannot be read: Is a directory"):
        read(tmp_path / "folder.json")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ModelError, match=r"pipe\.json: .*no regular file"):
        read(tmp_path / "pipe.json")


def test_weights_are_compared_when_they_are_used(winner: Path) -> None:
    file = winner.parent / "run" / "last.safetensors"
    path, found = find_weights(winner)
    assert (path, found) == (file, read(winner))
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    assert read(winner) == found
    changed = r"last\.safetensors: its sha256 is not the \w{12}\.\.\. of .*winner\.json: it was changed"
    for use in (find_weights, Detector.open, open_source, lambda path: begin(path, weights=path)):
        with pytest.raises(WeightError, match=changed):
            use(winner)
    assert begin(winner).spec == SPEC  # which needs none of them
    file.unlink()
    for use in (find_weights, Detector.open, open_source, lambda path: begin(path, weights=path)):
        with pytest.raises(
            WeightError, match=r"last\.safetensors: there is no such file; it has the weights that .*winner"
        ):
            use(str(winner))


def test_weights_of_another_network_are_refused(winner: Path) -> None:
    with pytest.raises(WeightError, match=r"last\.safetensors: is of another network than .*winner\.json"):
        find_weights(change(winner, lambda d: d["spec"]["input"].update(mean=100.0)))


def test_damaged_weights_are_refused(winner: Path) -> None:
    file = winner.parent / "run" / "last.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(WeightError, match=r"last\.safetensors: "):
        find_weights(change(winner, lambda d: d["weights"].update(sha256=sha256(file))))
    with pytest.raises(WeightError, match=r"last\.safetensors: "):
        Weights.of(file)


def test_without_weights_it_is_to_be_trained_first(tmp_path: Path) -> None:
    path = tmp_path / "my net.json"
    for content in (Network("n", SPEC), None):
        path.write_text(SPEC.to_json())
        if content is not None:
            save(path, content)
        for use in (find_weights, Detector.open, open_source, lambda path: begin("scrfd_500m", weights=path)):
            with pytest.raises(
                WeightError, match=r"my net\.json: has no weights; .*`scrfd train --model '.*my net\.json'"
            ):
                use(path)


def test_names_of_the_zoo_are_found_by_the_same_functions() -> None:
    entry = ZOO["scrfd_500m_kps"]
    assert find("SCRFD_500M_bnkps") == Network(entry.name, entry.spec)
    assert find_weights("scrfd_500m_kps") == (weights.embedded(), None)
    assert find_weights("det_500m", (".safetensors",)) == (weights.embedded(".safetensors"), None)
    with pytest.raises(WeightError, match="not on this machine"):
        find_weights("scrfd_10g")


def test_neither_a_name_nor_a_file(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").touch()
    for use in (find, find_weights):
        for name in ("yolo", "", "x" * 5000, "nul\0byte"):
            with pytest.raises(ModelError, match=r"no network is called .*nor is there a file of that name"):
                use(name)
        with pytest.raises(
            ModelError, match=r"net\.yaml: is neither the description of a network \(\.json\) nor weights"
        ):
            use(tmp_path / "net.yaml")
    with pytest.raises(OptionError, match=r"weights: .*net\.yaml: is neither"):
        begin("scrfd_500m", weights=tmp_path / "net.yaml")
    with pytest.raises(ModelError, match=r"net\.yaml: only \.onnx, \.safetensors, \.pth, \.json files can be exported"):
        open_source(tmp_path / "net.yaml")


def test_a_file_is_told_what_its_description_knows(made: Path) -> None:
    found = read(made / "winner.json")
    told = described(WeightInfo("0017", SPEC, metrics={"step": 9}, source="trained"), found)
    assert (told.name, told.licence, told.source) == ("best of all", "mine", "a search; trained")
    assert told.metrics == {"step": 9, "hard": 41.25}
    assert described(WeightInfo("n", SPEC, licence="theirs"), found).licence == "theirs"
    assert described(WeightInfo("n", SPEC), Network("m", SPEC)) == WeightInfo("m", SPEC)


def test_weights_have_the_licence_of_their_file(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "w.safetensors", random_net(SPEC), SPEC, name="n", licence="theirs")
    assert Weights.of(tmp_path / "w.safetensors").licence == "theirs"
    assert Weights.of(tmp_path / "w.safetensors", "mine").licence == "mine"


def test_detected_exported_and_trained_with(made: Path) -> None:
    path = made / "winner.json"
    detector = Detector.open(path)
    assert detector.path == made / "run" / "last.safetensors"
    assert type(detector.runtime).__name__ == "PyTorchRuntime"
    with pytest.raises(ModelError, match=r"last\.safetensors: onnxruntime reads \.onnx"):
        Detector.open(path, runtime="onnxruntime")
    source = open_source(path)
    assert (source.path, source.safe_name, source.info.fused) == (detector.path, "best_of_all", True)
    assert (source.info.licence, source.info.metrics) == ("mine", {"step": 9, "hard": 41.25})
    fresh = begin(path)
    assert (fresh.name, fresh.spec, fresh.notes, fresh.licence) == ("best of all", SPEC, ("all weights are fresh",), "")
    start = begin("scrfd_500m", weights=str(path))
    assert (start.name, start.licence, start.source) == ("scrfd_500m", "mine", "a search; trained from random weights")
    assert all(value.equal(start.net.state_dict()[key]) for key, value in random_net(SPEC).state_dict().items())


def test_verbs_know_it_by_its_suffix(made: Path) -> None:
    assert run_name("sub/winner.json") == "winner"
    assert bench._sort(["a.jpg", "winner.json"], None) == ("winner.json", ["a.jpg"])
    with pytest.raises(OptionError, match="one network at a time"):
        bench._sort(["winner.json", "b.onnx"], None)
    with pytest.raises(OptionError, match=r"--store: .*whose sha256 winner\.json holds; make a copy with --output"):
        calibrate._check_output("winner.json", store=True, output=None, force=False)
    assert network.is_description("gone.json")
    assert not any(map(network.is_description, ("scrfd_2.5g", "w.onnx", "json", made)))
