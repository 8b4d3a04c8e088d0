"""The ncnn runtime: what it opens and gives, and that no damaged file reaches ncnn."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from export_files import SPECS, export, noise, sparse

from scrfdkit import certificate
from scrfdkit.detector import Detector
from scrfdkit.errors import ModelError
from scrfdkit.export.contract import Contract
from scrfdkit.export.parity import blob_of
from scrfdkit.runtime.formats import bindings, open_runtime
from scrfdkit.runtime.ncnn import NcnnRuntime
from scrfdkit.runtime.ncnn_file import check_weights, read_param

SPEC = SPECS["bottleneck, gn"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(sparse(SPEC), tmp_path_factory.mktemp("ncnn") / "net.param", Contract("maps"), to="ncnn").path


def copied(made: Path, folder: Path) -> Path:
    """The two files, without their certificate."""
    for suffix in (".param", ".bin"):
        shutil.copy(made.with_suffix(suffix), folder / f"net{suffix}")
    return folder / "net.param"


def blob(width: int = 96, height: int = 64, seed: int = 0) -> np.ndarray:
    return blob_of(noise(1, width, height, seed), SPEC.input)


def test_it_says_what_it_is(made: Path) -> None:
    opened = open_runtime(made, device="cuda", threads=1)
    assert isinstance(opened, NcnnRuntime)
    assert (opened.device, opened.input_size, opened.batch_size) == ("cpu", None, 1)
    assert opened.metadata["spec"] == SPEC.to_json()
    outputs = opened.run(blob())
    assert [o.shape for o in outputs] == [(1, c, 64 // s, 96 // s) for c in (2, 8, 12) for s in (8, 16, 32)]
    assert {o.dtype for o in outputs} == {np.dtype(np.float32)}


def test_bindings(made: Path) -> None:
    first, *rest = bindings(made)
    assert (first.name, first.kind, first.dtype, first.shape) == (
        "input.1",
        "input",
        "float32",
        (1, 3, "height", "width"),
    )
    assert [b.name for b in rest] == [f"{k}_{s}" for k in ("score", "bbox", "kps") for s in (8, 16, 32)]
    assert rest[-1].shape == (1, 12, "?", "?")


def test_without_a_certificate_it_still_finds_faces(made: Path, tmp_path: Path) -> None:
    path = copied(made, tmp_path)
    detector = Detector.open(path)
    assert (detector.runtime.metadata, detector.num_keypoints) == ({}, 3)
    detector.detect(noise(1, 96, 64)[0])


def test_threads_share_it(made: Path) -> None:
    opened = open_runtime(made, threads=1)
    blobs = [blob(64 + 32 * (i % 3), 64, i) for i in range(8)]
    wanted = [opened.run(b) for b in blobs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for found, right in zip(pool.map(opened.run, blobs), wanted, strict=True):
                assert all(np.array_equal(a, b) for a, b in zip(found, right, strict=True))


@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        ((3, 64, 64), np.float32, "a picture a run"),
        ((2, 3, 64, 64), np.float32, "a picture a run"),
        ((1, 1, 64, 64), np.float32, "a picture a run"),
        ((1, 3, 64, 64), np.float64, "float64"),
        ((1, 3, 64, 80), np.float32, "multiples of 32"),
    ],
)
def test_bad_blobs_are_refused(made: Path, shape: tuple[int, ...], kind: type, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        open_runtime(made).run(np.zeros(shape, kind))


def test_a_fixed_size_is_the_only_one(tmp_path: Path) -> None:
    made = export(sparse(SPEC), tmp_path / "net.param", Contract("maps", size=(96, 64)), to="ncnn").path
    opened = open_runtime(made)
    assert opened.input_size == (96, 64)
    assert bindings(made)[0].shape == (1, 3, 64, 96)
    with pytest.raises(ModelError, match="takes 96x64 only, got 64x64"):
        opened.run(blob(64, 64))


def changed(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


def without_layer(text: str) -> str:
    """One layer less, and the head says so."""
    head, *layers = text.splitlines()[1:]
    del layers[len(layers) // 2]
    counts = [int(n) for n in head.split()]
    return "\n".join(["7767517", f"{counts[0] - 1} {counts[1] - 1}", *layers]) + "\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "does not begin with 7767517"),
        (changed("7767517", "7767518"), "does not begin with 7767517"),
        (lambda text: text[: len(text) // 2], "lines miss|is no layer|reads|makes|say how many|not known"),
        (without_layer, "no layer before it makes|lines miss"),
        (changed("Convolution", "MagicLayer"), "a layer of the kind MagicLayer"),
        (changed("input.1", "input.2"), "input.1, which no layer before it makes"),
        (changed(" 1=3", " 1=300"), "1=300, which cannot be run here"),
        (changed(" 0=", " 0=-"), "0=-.*which cannot be run here"),
        (changed(" 0=", " 0=9999999999"), "is not known"),
        (changed(" 6=", " 6=1"), "weights, which do not fit"),
        (lambda text: " 13=1".join(text.rsplit(" 13=2", 1)), "different shapes"),
        (changed(" 1=2.0", " 1=999.0"), "enlarges"),
        (changed("Input", "Input é"), "no plain text"),
        (lambda text: text + "ReLU more 1 1 nothing more\n", "lines miss|tells another number"),
        (lambda text: text + "x" * (5 << 20), "larger than"),
    ],
)
def test_a_damaged_param_file_is_refused(
    made: Path, tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    path = copied(made, tmp_path)
    path.write_text(change(path.read_text()), "utf-8")
    for reader in (open_runtime, bindings):
        with pytest.raises(ModelError, match=message) as caught:
            reader(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-4], "is cut off"),
        (lambda data: b"", "is damaged|is cut off"),
        (lambda data: data + bytes(4), "of another network"),
        (lambda data: b"\x38\x4b\x0d\x00" + data[4:], "damaged, or quantised"),
        (lambda data: b"\x47\x6b\x30\x01" + data[4:], "damaged|cut off|of another"),
    ],
)
def test_damaged_weights_are_refused(
    made: Path, tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    path = copied(made, tmp_path)
    weights = path.with_suffix(".bin")
    weights.write_bytes(change(weights.read_bytes()))
    with pytest.raises(ModelError, match=message):
        open_runtime(path)


def test_missing_files_are_named(made: Path, tmp_path: Path) -> None:
    path = copied(made, tmp_path)
    path.with_suffix(".bin").unlink()
    with pytest.raises(ModelError, match=r"net\.bin: cannot be read, and a \.param file needs it"):
        open_runtime(path)
    with pytest.raises(ModelError, match=r"gone\.param: cannot be read"):
        open_runtime(tmp_path / "gone.param")


def test_every_cut_and_flipped_byte_is_an_error_or_harmless(made: Path, tmp_path: Path) -> None:
    """Damage that keeps the form of a network runs and gives nonsense, but never ends the process."""
    path = copied(made, tmp_path)
    whole = path.read_bytes()
    random = np.random.default_rng(5)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        data[random.integers(len(data))] = random.integers(32, 127)
        path.write_bytes(data)
        try:
            open_runtime(path, threads=1).run(blob(64, 64))
        except ModelError:
            refused += 1
    assert refused > 100


def test_a_changed_companion_breaks_the_certificate(made: Path, tmp_path: Path) -> None:
    path = copied(made, tmp_path)
    shutil.copy(certificate.beside(made), certificate.beside(path))
    open_runtime(path)
    weights = path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ModelError, match=r"net\.bin: its sha256 is not"):
        open_runtime(path)


def test_what_is_read_is_written_again(made: Path) -> None:
    graph = read_param(made)
    assert graph.text() == made.read_text()
    check_weights(graph, made.with_suffix(".bin"))
