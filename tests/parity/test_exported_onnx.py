"""Exported files give the faces of the weights they come from: in our detector, in `insightface`, and by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from export_files import export, outputs_of
from test_insightface import compare, peer

from scrfdkit import Detections, Detector, image, weights
from scrfdkit.errors import ModelError
from scrfdkit.export.contract import Contract, Suppression
from scrfdkit.export.faces import Faces
from scrfdkit.export.source import open_source
from scrfdkit.letterbox import Placement, blank, draw, place_fixed, place_long_side, unplace
from scrfdkit.spec import Input

OFFICIAL = ("scrfd_500m", "scrfd_500m_kps", "scrfd_1g", "scrfd_2.5g", "scrfd_2.5g_kps", "det_500m")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded weights in every layout."""
    place = tmp_path_factory.mktemp("exported")
    source = open_source(weights.embedded(".safetensors"))
    contracts = {
        "reference": Contract(),
        "fixed": Contract(size=(640, 640), batch=2),
        "maps": Contract("maps"),
        "probabilities": Contract("maps", sigmoid=True),
        "faces": Contract("end2end", suppression=Suppression(max_faces=50)),
    }
    for name, contract in contracts.items():
        assert export(source, place / f"{name}.onnx", contract).largest <= 1e-4
    return place


def same(found: Detections, wanted: Detections, tolerance: float = 0.01) -> None:
    assert len(found) == len(wanted)
    pairs = np.abs(found.boxes[:, None] - wanted.boxes).max(axis=2).argmin(axis=1)
    assert len(set(pairs.tolist())) == len(wanted)
    assert np.abs(found.boxes - wanted.boxes[pairs]).max() <= tolerance
    assert np.abs(found.scores - wanted.scores[pairs]).max() <= 1e-5
    assert (found.keypoints is None) == (wanted.keypoints is None)
    if found.keypoints is not None and wanted.keypoints is not None:
        assert np.abs(found.keypoints - wanted.keypoints[pairs]).max() <= tolerance


@pytest.mark.parametrize("name", ["reference", "maps", "probabilities"])
def test_detector_finds_the_same(name: str, folder: Path, examples: Path) -> None:
    photos = sorted(examples.glob("*.jpg"))
    ours, theirs = Detector.open(folder / f"{name}.onnx", device="cpu"), Detector.open(device="cpu")
    assert (ours.layout.maps, ours.layout.logits) == (name != "reference", name == "maps")
    assert ours.layout.batched
    for photo in photos:
        same(ours.detect(photo), theirs.detect(photo))
    together = ours.detect_batch([*photos, photos[0]], input_size=(640, 640))
    for found, photo in zip(together, [*photos, photos[0]], strict=True):
        same(found, theirs.detect(photo, input_size=(640, 640)))


def test_detector_with_a_fixed_size_and_batch(folder: Path, examples: Path) -> None:
    photos = sorted(examples.glob("*.jpg"))
    ours, theirs = Detector.open(folder / "fixed.onnx", device="cpu"), Detector.open(device="cpu")
    assert (ours.runtime.input_size, ours.runtime.batch_size) == ((640, 640), 2)
    for found, photo in zip(ours.detect_batch([*photos, photos[0]]), [*photos, photos[0]], strict=True):
        same(found, theirs.detect(photo, input_size=(640, 640)))


def test_insightface_reads_the_reference_layout(folder: Path, examples: Path) -> None:
    photos = sorted(examples.glob("*.jpg"))
    assert compare(folder / "reference.onnx", photos, 0.02) > 30


@pytest.mark.parametrize("static", [False, True])
def test_insightface_finds_what_it_finds_in_the_original(static: bool, folder: Path, examples: Path) -> None:
    """static: as by default, it rewrites the file for one size first."""
    from insightface.model_zoo.scrfd import SCRFD

    providers = ["CPUExecutionProvider"]
    picture = image.load(examples / "solvay_1927.jpg").pixels
    answers = []
    for path in (folder / "reference.onnx", weights.embedded()):
        model = SCRFD(str(path), onnxruntime.InferenceSession(str(path), providers=providers), None, static)
        model.prepare(-1, input_size=(640, 640))
        answers.append(model.detect(picture))
    (boxes, points), (wanted, wanted_points) = answers
    assert boxes.shape == (29, 5)
    assert np.abs(boxes - wanted).max() <= 0.01
    assert np.abs(points - wanted_points).max() <= 0.01


def canvas(picture: np.ndarray[Any, Any], placement: Placement) -> np.ndarray[Any, Any]:
    """(H, W, 3) uint8 BGR."""
    blob = blank(1, placement.canvas)[0]
    draw(picture, placement, blob, Input(0.0, 1.0))
    return blob[::-1].transpose(1, 2, 0).astype(np.uint8)


def test_end_to_end_file_finds_what_the_detector_finds(folder: Path, examples: Path) -> None:
    detector = Detector.open(device="cpu")
    photos = [image.load(path) for path in sorted(examples.glob("*.jpg"))]
    fixed = [place_fixed(photo.width, photo.height, (640, 640)) for photo in photos]
    outputs = outputs_of(
        folder / "faces.onnx", np.stack([canvas(p.pixels, where) for p, where in zip(photos, fixed, strict=True)])
    )
    faces = Faces(outputs["boxes"], outputs["scores"], outputs["keypoints"], outputs["counts"])
    assert sorted(faces.counts.tolist()) == [1, 29]
    for index, (photo, where) in enumerate(zip(photos, fixed, strict=True)):
        same(unplace(faces.of(index), where), detector.detect(photo.pixels, input_size=(640, 640)))
    for photo in photos:
        where = place_long_side(photo.width, photo.height, 640)
        outputs = outputs_of(folder / "faces.onnx", canvas(photo.pixels, where)[None])
        faces = Faces(outputs["boxes"], outputs["scores"], outputs["keypoints"], outputs["counts"])
        same(unplace(faces.of(0), where), detector.detect(photo.pixels))


def test_many_small_boxes_are_suppressed_as_in_the_detector(tmp_path: Path, examples: Path) -> None:
    """On a picture of the network's own size, where a pixel of the one is a pixel of the other."""
    photo = image.load(examples / "solvay_1927.jpg")
    picture = canvas(photo.pixels, place_fixed(photo.width, photo.height, (640, 640)))
    contract = Contract("end2end", suppression=Suppression(0.02, 0.4, 2000))
    path = export(open_source(weights.embedded(".safetensors")), tmp_path / "faces.onnx", contract).path
    outputs = outputs_of(path, picture[None])
    faces = Faces(outputs["boxes"], outputs["scores"], outputs["keypoints"], outputs["counts"])
    wanted = Detector.open(device="cpu").detect(picture, score_threshold=0.02, input_size=(640, 640))
    assert len(wanted) > 500
    same(faces.of(0), wanted)


def test_the_detector_refuses_an_end_to_end_file(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"faces\.onnx: is an end-to-end export"):
        Detector.open(folder / "faces.onnx")


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_weights(name: str, shared: Path, tmp_path: Path) -> None:
    """Exported again, they are what they were: names, order, and every number; a batch gives what its pictures give."""
    original = shared / "weights" / "official" / f"{name}.onnx"
    done = export(open_source(original), tmp_path / "again.onnx")
    assert done.certificate.metadata["licence"].startswith("non-commercial")
    before, after = Detector.open(original, device="cpu"), Detector.open(done.path, device="cpu")
    photos = sorted((shared / "data/widerface/val/images").rglob("*.jpg"))[::60]
    blobs = [blank(1, (640, 640)) for _ in photos]
    for photo, blob in zip(photos, blobs, strict=True):
        picture = image.load(photo)
        draw(picture.pixels, place_fixed(picture.width, picture.height, (640, 640)), blob[0], Input())
    together = after.runtime.run(np.concatenate(blobs))
    for index, blob in enumerate(blobs):
        for old, new in zip(before.runtime.run(blob), together, strict=True):
            assert np.abs(old.reshape(new[index].shape) - new[index]).max() <= 1e-3
    if not name.startswith("det"):  # whose names are numbers
        assert list(outputs_of(done.path, blobs[0])) == list(outputs_of(original, blobs[0]))
    assert compare(done.path, photos, 0.5) > 3
    theirs = peer(original, 0.5)
    assert len(theirs.detect(image.load(photos[0]).pixels)[0]) == len(after.detect(photos[0], input_size=(640, 640)))
