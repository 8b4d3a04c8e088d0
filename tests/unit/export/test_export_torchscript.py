"""TorchScript files and exported programs of small networks of every kind, in every layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_files import SPECS, export, noise, source, sparse, write

from scrfdkit.decode import decode, suppress
from scrfdkit.errors import ModelError, OptionError
from scrfdkit.export.contract import Contract, Suppression
from scrfdkit.export.parity import blob_of, levels
from scrfdkit.export.torch_modules import Candidates, layout_module
from scrfdkit.export.torch_modules import Suppression as Loop
from scrfdkit.layout import identify
from scrfdkit.runtime.formats import open_runtime
from scrfdkit.runtime.torch_archive import load_exported, load_script
from scrfdkit.types import Detections

SUFFIXES = {"torchscript": ".torchscript", "torchexport": ".pt2"}
CLOSE = 1e-3


@pytest.mark.parametrize(("to", "kind"), [*(("torchscript", k) for k in SPECS), ("torchexport", "separable, gn")])
def test_reference_rows_are_those_of_the_official_files(to: str, kind: str, tmp_path: Path) -> None:
    one = sparse(SPECS[kind])
    done = export(one, tmp_path / f"net{SUFFIXES[to]}", to=to)
    assert 0 < done.largest <= CLOSE
    assert [case["batch"] for case in done.certificate.measured["parity"]["cases"]] == [1, 2, 3]
    assert done.certificate.measured["batch_difference"] <= CLOSE
    blob = blob_of(noise(2, 160, 128), one.info.spec.input)
    anchors = one.info.spec.head.num_anchors
    for rows, values in zip(open_runtime(done.path).run(blob), one.net(torch.from_numpy(blob)), strict=True):
        width = values.shape[1] // anchors
        wanted = values.numpy().reshape(2, anchors, width, *values.shape[2:]).transpose(0, 3, 4, 1, 2)
        wanted = wanted.reshape(2, -1, width)
        wanted = 1 / (1 + np.exp(-wanted)) if width == 1 else wanted
        assert rows.shape == wanted.shape
        assert np.abs(rows - wanted).max() <= CLOSE


@pytest.mark.parametrize("sigmoid", [False, True])
def test_maps_are_what_the_network_gives(sigmoid: bool, tmp_path: Path) -> None:
    one = sparse(SPECS["five levels"])
    path = write(one, tmp_path / "net.torchscript", Contract("maps", sigmoid=sigmoid), "torchscript")
    blob = blob_of(noise(3, 256, 128), one.info.spec.input)
    outputs = open_runtime(path).run(blob)
    assert [o.shape for o in outputs] == [tuple(m.shape) for m in one.net(torch.from_numpy(blob))]
    assert identify(outputs, (256, 128)).logits is not sigmoid


def test_exported_maps_of_a_fixed_size_and_batch(tmp_path: Path) -> None:
    one = sparse(SPECS["basic, bn"])
    contract = Contract("maps", size=(96, 64), batch=2)
    path = export(one, tmp_path / "net.pt2", contract, to="torchexport").path
    opened = open_runtime(path)
    assert (opened.input_size, opened.batch_size) == ((96, 64), 2)
    blob = blob_of(noise(2, 96, 64), one.info.spec.input)
    for found, wanted in zip(opened.run(blob), one.net(torch.from_numpy(blob)), strict=True):
        assert np.abs(found - wanted.numpy()).max() <= CLOSE
    with pytest.raises(ModelError, match="this file takes 2 picture"):
        opened.run(blob[:1])


def program(path: Path) -> Any:
    if path.suffix == ".pt2":
        return load_exported(path)[0].module(check_guards=False)
    return load_script(path)[0]


def faces(path: Path, canvases: Any, score: float, overlap: float) -> np.ndarray:
    with torch.inference_mode():
        found = program(path)(torch.from_numpy(canvases), torch.tensor([score]), torch.tensor([overlap]))
    array: np.ndarray = found.numpy()
    return array


def expected(one: Any, canvases: Any, score: float, overlap: float) -> list[Detections]:
    size = canvases.shape[2], canvases.shape[1]
    blob = blob_of(canvases, one.info.spec.input)
    with torch.inference_mode():
        maps = [m.numpy() for m in one.net(torch.from_numpy(blob))]
    found = []
    for i in range(len(canvases)):
        of = levels([m[i : i + 1] for m in maps], size, 1, logits=True)
        found.append(suppress(decode(of, score), overlap))
    return found


def check(rows: np.ndarray, wanted: Detections, most: int) -> None:
    """Rows of one picture: the faces, best first, zeros behind them."""
    number = min(len(wanted), most)
    assert (rows[:, 4] > 0).sum() == number
    assert not rows[number:].any()
    wanted = wanted[:number]
    assert np.abs(rows[:number, 4] - wanted.scores).max(initial=0) <= CLOSE
    for face in range(number):  # those of one score may stand in any order
        away = np.abs(wanted.boxes - rows[face, :4]).max(axis=1)
        assert away.min() <= 0.01
        if wanted.keypoints is not None:
            near = wanted.keypoints[away.argmin()].reshape(-1)
            assert np.abs(near - rows[face, 5:]).max() <= 0.01


@pytest.mark.parametrize(
    ("to", "kind"), [("torchscript", "basic, bn"), ("torchscript", "separable, gn"), ("torchexport", "bottleneck, gn")]
)
def test_faces_are_those_of_decode_and_suppress(to: str, kind: str, tmp_path: Path) -> None:
    """Thresholds are inputs: one file is tried with several, on another size and number than it was made with."""
    one = source(SPECS[kind])
    size = (128, 96) if to == "torchexport" else None
    contract = Contract("end2end", size=size, suppression=Suppression(max_faces=40))
    done = export(one, tmp_path / f"net{SUFFIXES[to]}", contract, to=to)
    assert done.certificate.passed
    assert done.largest <= CLOSE
    canvases = noise(3, 128, 96)
    for score, overlap in ((0.5, 0.4), (0.9, 0.1), (1.0, 0.4)):
        rows = faces(done.path, canvases, score, overlap)
        assert rows.shape == (3, 40, 5 + 2 * one.info.spec.head.num_keypoints)
        for found, wanted in zip(rows, expected(one, canvases, score, overlap), strict=True):
            check(found, wanted, 40)
    if to == "torchscript":
        whole = faces(done.path, canvases, 0.9, 0.4)
        assert np.array_equal(faces(done.path, canvases.astype(np.float32), 0.9, 0.4), whole)


@pytest.mark.slow
def test_an_exported_program_finds_faces_at_any_size(tmp_path: Path) -> None:
    one = source(SPECS["bottleneck, gn"])
    rule = Suppression(max_faces=40)
    done = export(one, tmp_path / "net.pt2", Contract("end2end", suppression=rule), to="torchexport")
    assert done.largest <= CLOSE
    for width, height in ((32, 32), (320, 64)):
        canvases = noise(3, width, height)
        rows = faces(done.path, canvases, 0.5, 0.4)
        for found, wanted in zip(rows, expected(one, canvases, 0.5, 0.4), strict=True):
            check(found, wanted, 40)


def test_equal_inverted_and_empty_boxes() -> None:
    """As in `decode.nms`: a better box takes the other along where they overlap with a pixel added to both sides."""
    boxes = [
        [0, 0, 9, 9],
        [0, 0, 9, 9],
        [10, 0, 19, 9],
        [50, 50, 40, 40],
        [9, 0, 0, 9],
        [30, 30, 30, 30],
        [30, 30, 30, 30],
    ]
    scores = [0.9, 0.8, 0.7, 0.65, 0.6, 0.55, 0.54]
    wanted = suppress(Detections(np.float32(boxes), np.float32(scores), None), 0.4)
    values = torch.cat([torch.tensor(boxes).float(), torch.tensor(scores)[:, None]], 1)[None]
    found = Loop(10)(values, torch.tensor([0.1]), torch.tensor([0.4]))[0].numpy()
    assert len(wanted) < len(boxes)
    assert np.array_equal(found[: len(wanted), :4], wanted.boxes)
    assert not found[len(wanted) :].any()


def test_fp16_halves_the_file(tmp_path: Path) -> None:
    one = sparse(SPECS["basic, bn"])
    before = {k: v.clone() for k, v in one.net.state_dict().items()}
    whole = write(one, tmp_path / "whole.torchscript", Contract(), "torchscript")
    done = export(one, tmp_path / "half.torchscript", to="torchscript", precision="fp16")
    assert 1e-5 < done.largest < 0.1
    device = done.certificate.measured["device"]
    told = {"cpu": "float32 on the CPU", "cuda": "float16 on CUDA"}[device]
    assert done.certificate.metadata["arithmetic"] == f"float16 weights; compared in {told}"
    assert done.path.stat().st_size < whole.stat().st_size
    assert {p.dtype for p in load_script(done.path)[0].parameters()} == {torch.float16}
    assert all(torch.equal(v, before[k]) for k, v in one.net.state_dict().items())
    assert open_runtime(done.path, device="cpu").run(np.zeros((1, 3, 64, 64), np.float32))[0].dtype == np.float32


def test_half_weights_compute_in_half_until_told_otherwise() -> None:
    one = sparse(SPECS["basic, bn"])
    module = layout_module(one.net, one.info.spec, Contract("end2end"), half=True)
    assert isinstance(module, Candidates)
    images = torch.from_numpy(noise(1, 64, 64))
    kinds: list[torch.dtype] = []
    conv = next(m for m in module.modules() if isinstance(m, torch.nn.Conv2d))
    conv.register_forward_hook(lambda *given: kinds.append(given[2].dtype))
    with torch.inference_mode():
        half = module(images)
        whole = module.float()(images)
    assert kinds == [torch.float16, torch.float32]
    assert {v.dtype for v in (*half, *whole)} == {torch.float32}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_exported_programs_are_fp32(precision: Any, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="precision: torchexport files are fp32"):
        export(sparse(SPECS["basic, bn"]), tmp_path / "net.pt2", to="torchexport", precision=precision)


@pytest.mark.parametrize("layout", ["reference", "end2end"])
def test_a_file_that_differs_is_not_written(layout: Any, tmp_path: Path) -> None:
    one = sparse(SPECS["basic, bn"])
    with torch.no_grad():
        one.net.get_parameter("bbox_head.stride_reg.(8, 8).weight").mul_(float("nan"))
    with pytest.raises(ModelError, match=r"differs from PyTorch .* nothing was written"):
        export(one, tmp_path / "net.torchscript", Contract(layout), to="torchscript")
    assert not list(tmp_path.iterdir())
