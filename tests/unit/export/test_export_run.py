"""The road that every format takes: nothing is lost when it breaks off, and certificates tell the truth."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from export_files import SPECS, export, source

from scrfdkit import certificate
from scrfdkit.errors import ModelError, OptionError, ScrfdError
from scrfdkit.export import run
from scrfdkit.export.agreement import Agreement
from scrfdkit.export.contract import Contract
from scrfdkit.export.measure import Outcome, Trial, faces_complaint
from scrfdkit.export.order import Order, Target
from scrfdkit.export.run import verify
from scrfdkit.export.source import Source, open_source
from scrfdkit.export.targets import TARGETS
from scrfdkit.model.checkpoint import save
from scrfdkit.runtime.formats import open_runtime

ONNX = TARGETS["onnx"]
SMALL = Contract(size=(128, 128))


@pytest.fixture
def weights(tmp_path: Path) -> Source:
    one = source(SPECS["basic, bn"])
    path = tmp_path / "weights" / "small.safetensors"
    path.parent.mkdir()
    save(path, one.net, one.info.spec, name="small", fused=True, licence="mine")
    return open_source(path)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "out" / "face.onnx"


def content(folder: Path) -> dict[str, bytes]:
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_what_is_left_behind(weights: Source, place: Path) -> None:
    made = export(weights, place, SMALL).certificate
    assert sorted(content(place.parent)) == ["face.onnx", "face.onnx.certificate.json"]
    assert certificate.beside(place).read_text() == made.to_json()
    assert certificate.check(place) is not None
    assert (made.passed, made.source, list(made.files)) == (True, "../weights/small.safetensors", ["face.onnx"])
    measured = made.measured
    assert measured["parity"]["passed"]
    assert 0 <= measured["batch_difference"] < 1e-4
    assert measured["faces"]["missing"] == 0
    assert measured["latency"]["milliseconds"]["median"] > 0
    assert measured["latency"]["size"] == [128, 128]


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def full(_: Source, path: Path, order: Order) -> None:
    path.write_bytes(b"x" * 100_000)


def broken(one: Source, path: Path, order: Order) -> None:
    ONNX.write(one, path, order)
    path.write_bytes(path.read_bytes()[:-1000])


@contextmanager
def small_disk() -> Any:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("write", [interrupted, full, broken])
def test_what_was_there_stays(write: Callable[..., None], weights: Source, place: Path) -> None:
    export(weights, place, SMALL)
    before = content(place.parent)
    with pytest.raises((KeyboardInterrupt, ScrfdError)) as found:
        if write is full:
            with small_disk():
                run.export(weights, place, replace(ONNX, write=write), Order(SMALL))
        else:
            run.export(weights, place, replace(ONNX, write=write), Order(SMALL))
    assert content(place.parent) == before
    assert [f.name for f in place.parent.iterdir() if f.is_dir()] == []
    if write is not interrupted:
        assert str(found.value).startswith(str(place.parent))


def test_what_breaks_while_files_are_moved_is_put_back(
    weights: Source, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate, the last of them, cannot be written."""
    export(weights, place, SMALL)
    before = content(place.parent)

    def refuse(path: Path, data: bytes) -> None:
        if path == certificate.beside(place):
            raise ScrfdError("disk full")
        path.write_bytes(data)

    monkeypatch.setattr(run.atomic, "save", refuse)
    with pytest.raises(ScrfdError, match="disk full"):
        export(weights, place, replace(SMALL, size=(64, 64)))
    assert content(place.parent) == before
    assert certificate.check(place) is not None


def with_companion(one: Source, path: Path, order: Order) -> None:
    ONNX.write(one, path, order)
    path.with_suffix(".bin").write_bytes(b"mine")


def test_companions_replace_only_their_own(weights: Source, place: Path) -> None:
    target = replace(ONNX, write=with_companion)
    run.export(weights, place, target, Order(SMALL))
    run.export(weights, place, target, Order(SMALL))
    before = content(place.parent)
    other = replace(target, suffix=".onx")
    with pytest.raises(ModelError, match=r"face\.bin: is there already, and no certificate says"):
        run.export(weights, place.with_suffix(".onx"), other, Order(SMALL))
    assert content(place.parent) == before


def test_the_network_itself_is_not_overwritten(weights: Source) -> None:
    with pytest.raises(ModelError, match="is the network that is exported"):
        run.export(weights, weights.path, replace(ONNX, suffix=".safetensors"), Order(SMALL))


def test_a_link_is_followed(weights: Source, place: Path) -> None:
    place.parent.mkdir()
    real = place.parent / "real.onnx"
    real.write_bytes(b"old")
    place.symlink_to(real)
    export(weights, place, SMALL)
    assert place.is_symlink()
    assert certificate.check(real) is not None


@pytest.mark.parametrize("kind", ["pictures", "score"])
def test_what_an_end_to_end_file_is_not_tried_on(kind: str, weights: Source, place: Path, examples: Path) -> None:
    trial = Trial(**{kind: [examples / "astronaut.jpg"] if kind == "pictures" else lambda _: {"ap": 1.0}})
    with pytest.raises(OptionError, match="--data and --pictures: an end2end file"):
        run.export(weights, place, ONNX, Order(replace(SMALL, layout="end2end")), trial)
    assert not place.exists()


def test_leftovers_of_a_killed_export_go(weights: Source, place: Path) -> None:
    hidden = place.parent / ".face.onnx.partial.999999999"
    hidden.mkdir(parents=True)
    (hidden / "old.bin").write_bytes(b"old")
    made = export(weights, place, SMALL).certificate
    assert not hidden.exists()
    assert list(made.files) == ["face.onnx"]


def folder_target() -> Target:
    def write(one: Source, path: Path, order: Order) -> None:
        ONNX.write(one, path / "deep" / "face.onnx", order)

    return replace(ONNX, name="folder", suffix="", write=write, folder=True)


def test_a_folder_is_replaced_whole(weights: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring is not what this is about, and there is no runtime for this folder."""
    monkeypatch.setattr(run, "measure", lambda *_: Outcome({}, ran=False))
    place = tmp_path / "out" / "repository"
    run.export(weights, place, replace(folder_target(), write=two_files), Order(SMALL))
    assert list(content(place)) == ["deep/face.onnx", "old.txt"]
    made = run.export(weights, place, folder_target(), Order(SMALL))
    assert list(content(place)) == ["deep/face.onnx"]
    assert list(made.files) == ["repository/deep/face.onnx"]
    assert certificate.check(place) is not None
    more = place / "more" / "2" / "model.py"
    more.parent.mkdir(parents=True)
    more.write_text("import os")
    with pytest.raises(ModelError, match=r"repository/more/2/model\.py: is not in its certificate"):
        certificate.check(place)
    more.unlink()
    (place / "deep" / "face.onnx").write_bytes(b"other")
    with pytest.raises(ModelError, match=r"repository/deep/face\.onnx: its sha256"):
        certificate.check(place)


def two_files(one: Source, path: Path, order: Order) -> None:
    folder_target().write(one, path, order)
    (path / "old.txt").write_text("of the first export")


def test_a_folder_of_somebody_else_is_not_replaced(weights: Source, tmp_path: Path) -> None:
    place = tmp_path / "repository"
    (place / "theirs").mkdir(parents=True)
    (place / "theirs" / "model.onnx").write_bytes(b"theirs")
    with pytest.raises(ModelError, match=r"repository: holds theirs/model\.onnx, which no export wrote"):
        run.export(weights, place, folder_target(), Order(SMALL))
    assert content(place) == {"theirs/model.onnx": b"theirs"}


def test_a_changed_file_is_not_opened(weights: Source, place: Path) -> None:
    export(weights, place, SMALL)
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 1
    place.write_bytes(data)
    with pytest.raises(ModelError, match="was changed"):
        open_runtime(place)


def test_verify_measures_again(weights: Source, place: Path) -> None:
    old = export(weights, place, SMALL).certificate
    new = verify(place, weights, ONNX)
    assert new.passed
    assert new.measured["parity"]["cases"] == old.measured["parity"]["cases"]
    assert new.measured["complaints"] == ()


def test_verify_sees_weights_that_the_file_was_not_made_from(weights: Source, place: Path) -> None:
    export(weights, place, SMALL)
    other = weights.path.with_name("other.safetensors")
    one = source(SPECS["basic, bn"], seed=1)
    save(other, one.net, one.info.spec, name="small", fused=True)
    with pytest.raises(ModelError, match=r"other\.safetensors: is not what face\.onnx was made from"):
        verify(place, open_source(other), ONNX)


def test_verify_sees_a_file_that_computes_something_else(weights: Source, place: Path) -> None:
    """With hashes that fit, so that only running it can tell."""
    export(weights, place, SMALL)
    wrong = place.with_name("wrong.onnx")
    export(source(SPECS["basic, bn"], seed=1), wrong, SMALL)
    shutil.copy(wrong, place)
    record = certificate.read(place)
    assert record is not None
    renamed = {place.name: certificate.read(wrong).files[wrong.name]}  # type: ignore[union-attr]
    certificate.beside(place).write_text(replace(record, files=renamed).to_json())
    new = verify(place, weights, ONNX)
    assert new.passed is False
    assert "differs from PyTorch" in new.measured["complaints"][0]


def test_verify_needs_a_certificate(weights: Source, place: Path) -> None:
    export(weights, place, SMALL)
    certificate.beside(place).unlink()
    with pytest.raises(ModelError, match=r"face\.onnx: has no certificate beside it"):
        verify(place, weights, ONNX)


def test_the_gate_tells_the_numbers(weights: Source, place: Path) -> None:
    scores = iter([{"easy": 90.0, "hard": 70.0}, {"easy": 90.0, "hard": 68.5}] * 2)
    trial = Trial(score=lambda _: next(scores), max_drop=1.0)
    with pytest.raises(ModelError, match=r"AP \(hard\) is 68\.50 and PyTorch's 70\.00: 1\.50 less, and .* allows 1;"):
        run.export(weights, place, ONNX, Order(SMALL), trial)
    assert not place.exists()
    made = run.export(weights, place, ONNX, Order(SMALL), replace(trial, max_drop=1.6))
    assert made.measured["ap"] == {"easy": 90.0, "hard": 68.5}


def test_a_few_faces_may_change_with_int8() -> None:
    many = Agreement(pictures=50, faces=300, missing=2, extra=1)
    assert faces_complaint(many, Order(precision="int8")) == ""
    assert "2 of 300 faces" in faces_complaint(many, Order(precision="fp16"))
    assert "2 are found" in faces_complaint(replace(many, extra=2), Order(precision="int8"))
    assert "1 of 30" in faces_complaint(Agreement(pictures=1, faces=30, missing=1), Order(precision="int8"))
    assert "not numbers" in faces_complaint(replace(many, keypoints=np.nan), Order(precision="int8"))


def test_pictures_without_faces_are_not_all_that_a_file_is_judged_by(place: Path, tmp_path: Path) -> None:
    grey = tmp_path / "grey.png"
    cv2.imwrite(str(grey), np.full((64, 64, 3), 128, np.uint8))
    made = run.export(open_source("scrfd_500m_kps"), place, ONNX, Order(), Trial(pictures=[grey]))
    assert made.measured["faces"]["faces"] == 1


def test_a_score_that_is_no_number_does_not_pass(weights: Source, place: Path) -> None:
    scores = iter([{"hard": 70.0}, {"hard": np.nan}])
    with pytest.raises(ModelError, match="nan"):
        run.export(weights, place, ONNX, Order(SMALL), Trial(score=lambda _: next(scores)))


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (Order(Contract("maps"), settings={"max_batch": 3}), "max_batch: means nothing for onnx files"),
        (Order(precision="int8"), "calibrate: int8 takes its ranges from pictures"),
        (Order(precision="int4"), "precision: onnx files are "),  # type: ignore[arg-type]
    ],
)
def test_what_the_target_cannot_do(order: Order, message: str, weights: Source, place: Path) -> None:
    with pytest.raises(OptionError) as found:
        run.export(weights, place, replace(ONNX, precisions=("fp32", "int8")), order)
    assert str(found.value).startswith(message)
