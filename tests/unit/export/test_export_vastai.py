"""The folder for Vastai: graph, build files, parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from export_files import SPECS, export, noise, outputs_of, source

from scrfdkit import certificate
from scrfdkit.detector import Detector
from scrfdkit.errors import ModelError, OptionError
from scrfdkit.export.contract import Contract
from scrfdkit.export.run import verify
from scrfdkit.export.targets import TARGETS

SMALL = Contract("maps", size=(64, 64), batch=1)
ALL = ["README.md", "build_fp16.yaml", "build_int8.yaml", "maps.onnx", "vdsp_params.json"]


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_the_folder(tmp_path: Path) -> None:
    one = source(SPECS["bottleneck, gn"])  # mean 100, std 50
    folder, made = export(one, tmp_path / "out", SMALL, to="vastai")
    assert names(folder) == ALL
    assert sorted(made.files) == [f"out/{name}" for name in ALL]
    assert made.passed
    assert made.measured["parity"]["candidate"].startswith("onnxruntime")

    for dtype in ("fp16", "int8"):
        build = load(folder / f"build_{dtype}.yaml")
        assert build["name"] == f"small_{dtype}"
        assert build["frontend"] == {
            "type": "onnx",
            "checkpoint": "maps.onnx",
            "dtype": "fp32",
            "shape": {"input.1": [1, 3, 64, 64]},
        }
        backend = {"type": "tvm_vacc", "dtype": dtype, "compile": {"data_transport_mode": 1, "cluster_mode": 0}}
        quantize = {"quantize": {"calibrate_mode": "max", "quantize_per_channel": True}} if dtype == "int8" else {}
        assert build["backend"] == backend | quantize
        assert build["dataset"]["type"] == "tvm"
        assert build["dataset"]["sampler"] == {"suffix": "jpg", "get_data_num": 50}
        steps = {step.pop("type"): step for step in build["dataset"]["process_ops"]}
        assert list(steps) == ["DecodeImage", "Resize", "Pad", "Normalize", "ToTensor"]
        assert steps["Resize"] == {"size": [64, -1], "adaptive_side": "long"}
        assert steps["Pad"] == {"pad_to_square": True}
        assert steps["Normalize"] == {"div255": None, "mean": [100.0] * 3, "std": [50.0] * 3}
        assert build["workspace"] == {"path": "./deploy_weights/"}

    vdsp = json.loads((folder / "vdsp_params.json").read_text())
    assert vdsp["OpType"] == "FUSION_OP_RGB_LETTERBOX_CVTCOLOR_NORM_TENSOR"
    sides = {key: value for key, value in vdsp["OpConfig"].items() if key.endswith(("Width", "Height", "Pitch"))}
    assert len(sides) == 6
    assert set(sides.values()) == {64}
    assert vdsp["OpConfig"]["Mean"] == [100.0] * 3
    assert vdsp["OpConfig"]["Std"] == [50.0] * 3
    assert "-s [3,64,64]" in (folder / "README.md").read_text()


def test_the_graph_is_what_the_files_say(tmp_path: Path) -> None:
    folder, _ = export(source(SPECS["basic, bn"]), tmp_path / "out", SMALL, to="vastai")
    outputs = outputs_of(folder / "maps.onnx", noise(1, 64, 64).transpose(0, 3, 1, 2).astype(np.float32))
    shapes = [array.shape for array in outputs.values()]
    assert shapes == [(1, c, s, s) for c in (2, 8, 20) for s in (8, 4, 2)]
    assert min(array.min() for array in list(outputs.values())[:3]) < 0  # logits
    assert Detector.open(folder / "maps.onnx", device="cpu").num_keypoints == 5


def test_usual_size_batch_and_any_name(tmp_path: Path) -> None:
    one = source(SPECS["separable, gn"])
    object.__setattr__(one.info, "name", '../null: "7" ä😀\n- x`; $(id)')
    folder, made = export(one, tmp_path / "out", Contract("maps"), to="vastai")
    assert load(folder / "build_fp16.yaml")["name"] == "null_7_-_x_id_fp16"
    readme = (folder / "README.md").read_text()
    assert readme.startswith("# null_7_-_x_id for Vastai\n")
    assert "vamp -m deploy_weights/null_7_-_x_id_fp16/mod" in readme
    assert load(folder / "build_fp16.yaml")["frontend"]["shape"] == {"input.1": [1, 3, 640, 640]}
    assert (made.contract["size"], made.contract["batch"]) == ((640, 640), 1)
    folder, _ = export(one, tmp_path / "more", Contract("maps", size=(32, 32), batch=4), to="vastai")
    assert load(folder / "build_int8.yaml")["frontend"]["shape"] == {"input.1": [4, 3, 32, 32]}


def test_calibration_pictures_come_along(tmp_path: Path, examples: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8")
    pictures = (examples / "astronaut.jpg", tmp_path / "broken.jpg", examples / "solvay_1927.jpg")
    folder, made = export(source(SPECS["separable, gn"]), tmp_path / "out", SMALL, to="vastai", calibration=pictures)
    listed = (folder / "calibration.txt").read_text().splitlines()
    assert listed == ["calibration/000.jpg", "calibration/001.jpg"]
    assert load(folder / "build_int8.yaml")["dataset"]["sampler"]["get_data_num"] == 2
    assert load(folder / "build_int8.yaml")["dataset"]["path"] == "calibration"
    for name, original in zip(listed, pictures[::2], strict=True):
        saved, given = cv2.imread(str(folder / name)), cv2.imread(str(original))
        assert saved is not None
        assert given is not None
        assert np.abs(saved.astype(int) - given).mean() < 3
        assert f"out/{name}" in made.files
    with pytest.raises(OptionError, match="calibrate: none"):
        export(source(SPECS["separable, gn"]), tmp_path / "b", SMALL, to="vastai", calibration=pictures[1:2])


def test_verified_again_and_changes_found(tmp_path: Path) -> None:
    one = source(SPECS["separable, gn"])
    folder, made = export(one, tmp_path / "out", SMALL, to="vastai")
    assert verify(folder, one, TARGETS["vastai"]).measured["parity"] == made.measured["parity"]
    (folder / "vdsp_params.json").write_text("{}")
    with pytest.raises(ModelError, match=r"vdsp_params\.json: its sha256 is not"):
        certificate.check(folder)


@pytest.mark.parametrize(
    ("contract", "order", "reason"),
    [
        (Contract("maps", sigmoid=True), {}, "layout: .* leave out --sigmoid"),
        (Contract("maps", size=(64, 32)), {}, "size: .* must be the same"),
        (Contract("reference"), {}, "layout: vastai files have maps"),
        (Contract("maps"), {"precision": "int8"}, "precision: vastai files are fp32"),
    ],
)
def test_what_the_flow_cannot_do(tmp_path: Path, contract: Contract, order: dict[str, Any], reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        export(source(SPECS["separable, gn"]), tmp_path / "out", contract, to="vastai", **order)
    assert list(tmp_path.iterdir()) == []
