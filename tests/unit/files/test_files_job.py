"""The work on one input where it goes wrong: faces beyond the picture, pictures that cannot be drawn, full memory."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from threading import Event
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from scrfdkit.files.inputs import Source
from scrfdkit.files.job import FrameFaces, Job, Task
from scrfdkit.files.names import Guard
from scrfdkit.files.records import Journal, Record
from scrfdkit.files.run import Outputs, run
from scrfdkit.types import Detections

BOXES = np.array([[520, 10, 560, 60], [100, 100, 200, 220], [-90, -90, -20, -5], [500, 500, 600, 600]], np.float32)
SCORES = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
POINTS = np.array([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]], np.float32)


def process(*arguments: Any, **how: Any) -> Iterator[FrameFaces]:
    pytest.importorskip("av", reason="needs PyAV: pip install 'scrfdkit[video]'")
    from scrfdkit import video

    return video.process(*arguments, **how)


def job(found: Detections | Exception) -> Job:
    def detect(_picture: Any) -> Detections:
        if isinstance(found, Exception):
            raise found
        return found

    return Job(detect, process, Guard([]))


def source(path: Path, kind: Any = "picture") -> Source:
    return Source(str(path), kind, PurePosixPath(path.name))


@pytest.fixture
def photo(tmp_path: Path, examples: Path) -> Path:
    """512 x 512 pixels."""
    return Path(shutil.copy(examples / "astronaut.jpg", tmp_path / "a.jpg"))


KINDS: dict[str, Callable[[], Detections]] = {
    "boxes": lambda: Detections(BOXES, SCORES),
    "points": lambda: Detections(BOXES, SCORES, np.repeat(POINTS[None], 4, axis=0) + BOXES[:, None, :2]),
    "points that coincide": lambda: Detections(BOXES, SCORES, np.repeat(BOXES[:, None, :2], 5, axis=1)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_face_beyond_the_picture_has_no_crop_and_the_others_keep_their_numbers(
    photo: Path, tmp_path: Path, kind: str
) -> None:
    task = Task(source(photo), crops=tmp_path / "crops/a")
    record = job(KINDS[kind]()).picture(task)
    assert "error" not in record
    assert len(record["faces"]) == 4
    assert sorted(path.name for path in (tmp_path / "crops").iterdir()) == ["a_1.png", "a_3.png"]
    if kind == "points":
        assert cv2.imread(str(tmp_path / "crops/a_1.png")).shape == (112, 112, 3)


def test_a_resumed_run_expects_just_these_crops(photo: Path, tmp_path: Path) -> None:
    tasks = [Task(source(photo), crops=tmp_path / "crops/a")]
    looked: list[int] = []

    def once() -> Record:
        def detect(_picture: Any) -> Detections:
            looked.append(1)
            return KINDS["boxes"]()

        outputs = Outputs(Journal(tmp_path / "out.jsonl", resume=True), [])
        run(tasks, Job(detect, process, Guard([])), outputs, jobs=1, stop=Event())
        return {"lines": (tmp_path / "out.jsonl").read_bytes()}

    first = once()
    assert once() == first
    assert len(looked) == 1, "nothing was missing"
    (tmp_path / "crops/a_3.png").unlink()
    assert once() == first
    assert len(looked) == 2
    assert (tmp_path / "crops/a_3.png").exists()


def test_faces_of_a_picture_that_cannot_be_drawn_are_kept(tmp_path: Path) -> None:
    """WebP ends at 16,383 pixels."""
    path = tmp_path / "wide.png"
    Pillow.new("RGB", (20_000, 4)).save(path)
    task = Task(source(path), picture=tmp_path / "out/wide.webp", crops=tmp_path / "out/wide")
    record = job(Detections(np.array([[1, 0, 30, 4]], np.float32), SCORES[:1])).picture(task)
    assert (record["width"], record["height"], len(record["faces"])) == (20_000, 4, 1)
    assert "cannot be written as .webp" in record["error"]
    assert not (tmp_path / "out/wide.webp").exists()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("out of luck")])
def test_any_error_in_a_video_is_a_failure_record(tmp_path: Path, error: Exception) -> None:
    pytest.importorskip("av", reason="needs PyAV: pip install 'scrfdkit[video]'")
    from video_files import make_video

    make_video(tmp_path / "v.mp4", 5)
    task = Task(source(tmp_path / "v.mp4", "video"), picture=tmp_path / "out/v.mp4")
    (record,) = job(error).video(task)
    reason = "not enough memory" if isinstance(error, MemoryError) else "RuntimeError: out of luck"
    assert record == {"file": str(tmp_path / "v.mp4"), "error": f"{tmp_path / 'v.mp4'}: {reason}"}
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_extra_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scrfdkit import video

    monkeypatch.setitem(sys.modules, "av", None)  # as if it were not installed
    (tmp_path / "v.mp4").write_bytes(b"any")
    task = Task(source(tmp_path / "v.mp4", "video"))
    (record,) = Job(lambda _: Detections.empty(), video.process, Guard([])).video(task)
    assert record["error"].startswith(f"{tmp_path / 'v.mp4'}: ")
    assert record["error"].endswith("needs the package av: pip install 'scrfdkit[video]'")


def test_crops_of_a_video_leave_out_what_lies_beyond_the_frame(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="needs PyAV: pip install 'scrfdkit[video]'")
    from video_files import make_video

    make_video(tmp_path / "v.mp4", 2)  # of 160 x 120 pixels
    task = Task(source(tmp_path / "v.mp4", "video"), crops=tmp_path / "crops/v")
    found = Detections(np.array([[161, 5, 190, 40], [10, 10, 40, 50]], np.float32), SCORES[:2])
    records = list(job(found).video(task))
    assert [len(record["faces"]) for record in records] == [2, 2]
    assert sorted(path.name for path in (tmp_path / "crops/v").iterdir()) == ["000000_1.png", "000001_1.png"]
