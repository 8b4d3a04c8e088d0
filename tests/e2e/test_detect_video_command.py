"""`scrfd detect` on videos, alone and among pictures."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("av", reason="needs PyAV: pip install 'scrfdkit[video]'")

import av
from video_files import make_video, picture

COMMAND = [sys.executable, "-m", "scrfdkit", "detect"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def media(tmp_path: Path, examples: Path) -> Path:
    """A video of twelve frames with one face in each, between two pictures."""
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(examples / "astronaut.jpg", folder / "a.jpg")
    make_video(folder / "b.mp4", 12, size=(384, 288))
    shutil.copy(examples / "astronaut.jpg", folder / "c.jpg")
    return folder


def black_ends(path: Path) -> None:
    """Ten frames, with a face in the two in the middle."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "16", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 384, 288, "yuv420p"
        for number in range(10):
            shown = picture(0, 384, 288) if 4 <= number <= 5 else np.zeros((288, 384, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode(None))


def detect(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, capture_output=True, env=ENVIRONMENT, timeout=120, check=False
    )


def records(text: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_frames_between_pictures(media: Path) -> None:
    done = detect(
        *("in", "--json", "a.jsonl", "--coco", "a.json", "--wider", "w", "--crops", "crops", "--save-dir", "out"),
        cwd=media.parent,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    found = records((media.parent / "a.jsonl").read_bytes())
    assert [r["file"] for r in found] == ["in/a.jpg", *["in/b.mp4"] * 12, "in/c.jpg"]
    frames = found[1:-1]
    assert [r["frame"] for r in frames] == list(range(12))
    assert [r["time"] for r in frames] == pytest.approx([i / 30 for i in range(12)], abs=1e-3)
    assert all(list(r) == ["file", "frame", "time", "faces"] and len(r["faces"]) == 1 for r in frames)
    images = json.loads((media.parent / "a.json").read_text())["images"]
    assert (images[3]["file_name"], images[3]["width"], images[3]["height"]) == ("in/b.mp4#2", 384, 288)
    assert (media.parent / "w/b/000011.txt").read_text().startswith("b.mp4#11\n1\n")
    assert cv2.imread(str(media.parent / "crops/b/000005_0.png")).shape == (112, 112, 3)
    assert sorted(p.name for p in (media.parent / "out").iterdir()) == ["a.jpg", "b.mp4", "c.jpg"]
    marked = records(detect("out/b.mp4", cwd=media.parent).stdout)
    assert len(marked) == 12


def test_anonymized_video(media: Path) -> None:
    done = detect("in/b.mp4", "--save-dir", "out", "--anonymize", "black", cwd=media.parent)
    assert (done.returncode, done.stdout) == (0, b"")
    assert [r["faces"] for r in records(detect("out/b.mp4", cwd=media.parent).stdout)] == [[]] * 12


def test_every_and_track(media: Path) -> None:
    pytest.importorskip("trackforge", reason="needs trackforge: pip install 'scrfdkit[track]'")
    found = records(detect("in/b.mp4", "--every", "3", "--track", cwd=media.parent).stdout)
    assert [r["frame"] for r in found] == list(range(12))
    assert {face["id"] for r in found for face in r["faces"]} == {1}


def test_faces_that_are_kept_in_place_say_so(media: Path) -> None:
    """Every fourth frame is looked at; between them faces are filled in, which are no results."""
    make_video(media / "b.mp4", 9, size=(384, 288))
    words = ("in/b.mp4", "--every", "4", "--json", "a.jsonl", "--csv", "a.csv", "--coco", "a.json", "--wider", "w")
    assert detect(*words, cwd=media.parent).returncode == 0
    found = records((media.parent / "a.jsonl").read_bytes())
    flags = [[face.get("bridged", False) for face in record["faces"]] for record in found]
    assert [flags[frame] for frame in (0, 4, 8)] == [[False]] * 3
    assert all(row and all(row) for frame, row in enumerate(flags) if frame % 4)
    lines = (media.parent / "a.csv").read_text().splitlines()
    assert len(lines) == 1 + sum(map(len, flags))
    assert [line.split(",")[5] for line in lines[1:]] == [str(int(flag)) for row in flags for flag in row]
    assert len(json.loads((media.parent / "a.json").read_text())["annotations"]) == 3
    assert (media.parent / "w/b/000001.txt").read_text() == "b.mp4#1\n0\n"


def test_hold_reaches_the_video(media: Path) -> None:
    """A face that is there in the middle only: black frames before and after it."""
    black_ends(media / "b.mp4")
    plain = records(detect("in/b.mp4", cwd=media.parent).stdout)
    held = records(detect("in/b.mp4", "--hold", "2", cwd=media.parent).stdout)
    assert [bool(record["faces"]) for record in plain] == [4 <= i <= 5 for i in range(10)]
    assert [bool(record["faces"]) for record in held] == [2 <= i <= 7 for i in range(10)]
    assert all(face["bridged"] for record in held if record["frame"] not in (4, 5) for face in record["faces"])


def test_a_broken_video_is_one_failure_among_inputs(media: Path) -> None:
    (media / "b.mp4").write_bytes((media / "b.mp4").read_bytes()[:300])
    done = detect("in", cwd=media.parent)
    assert done.returncode == 3
    found = records(done.stdout)
    assert [r["file"] for r in found if "faces" in r] == ["in/a.jpg", "in/c.jpg"]
    assert "in/b.mp4" in [r["file"] for r in found if "error" in r]
    assert b"failed: in/b.mp4" in done.stderr


def test_a_missing_camera_is_a_failure(media: Path) -> None:
    done = detect("97", cwd=media.parent)
    assert done.returncode == 3
    assert records(done.stdout)[0]["file"] == "97"


def test_interrupted_in_a_video_and_resumed(media: Path) -> None:
    make_video(media / "b.mp4", 400, size=(384, 288))
    home = media.parent
    whole = detect("in", cwd=home).stdout
    running = subprocess.Popen([*COMMAND, "in", "--json", "a.jsonl"], cwd=home, env=ENVIRONMENT, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    partial = home / "a.jsonl.partial"
    while not partial.exists() or partial.read_bytes().count(b"\n") < 20:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    assert running.communicate(timeout=60)[1] == b"interrupted\n"
    assert running.returncode == 130
    broken = (home / "a.jsonl").read_bytes()
    assert whole.startswith(broken)
    assert 20 <= broken.count(b"\n") < 400
    assert detect("in", "--json", "a.jsonl", "--resume", cwd=home).returncode == 0
    assert (home / "a.jsonl").read_bytes() == whole
