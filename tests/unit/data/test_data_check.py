"""Every kind of fault is found, in the file and line where it is, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from scrfdkit.data.check import KINDS, Report, check


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three different pictures of 100 x 50."""
    (tmp_path / "images").mkdir()
    for number, name in enumerate("abc"):
        Pillow.new("RGB", (100, 50), (number, 0, 0)).save(tmp_path / f"images/{name}.png")
    return tmp_path


def report(folder: Path, text: str, *, pictures: bool = True) -> Report:
    (folder / "labelv2.txt").write_text(text)
    return check(folder / "labelv2.txt", images=folder / "images" if pictures else None, jobs=2)


def found(result: Report) -> list[tuple[str, str, int]]:
    """Kind, level and line."""
    return [(f.kind, f.level, int(f.place.rsplit(":", 1)[1])) for f in result.findings]


GOOD = (
    "# a.png 100 50\n10 10 30 30 15 15 1 25 15 0\n-1 -1 101 51\n# b.png 100 50\n10 10 30 30\n# c.png 100 50\n0 0 4 4\n"
)


def test_a_clean_set(folder: Path) -> None:
    result = report(folder, GOOD)
    assert result.findings == ()
    assert result.problems == 0
    s = result.summary
    assert (s.pictures, s.faces, s.ignored, s.with_landmarks, s.num_keypoints) == (3, 4, 0, 1, 2)
    assert {name: n for name, n in s.sizes.items() if n} == {"4-8": 1, "16-32": 2, "64-128": 1}


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ("30 10 10 30", "inverted"),
        ("10 10 10 30", "empty"),
        ("100 10 120 30", "outside"),
        ("10 -20 20 0", "outside"),
        ("90 10 101.5 30", "over-edge"),
        ("-1.5 10 10 30", "over-edge"),
        ("10 10 30 30 41 20 1", "far-point"),
        ("10 10 30 30 20 -1 0", "far-point"),
        ("10 10 inf 30", "broken"),
        ("10 10 30", "broken"),
        ("10 10 30 30 0.5", "broken"),
        ("10 10 30 30 2", "broken"),
    ],
)
def test_a_bad_face(folder: Path, lines: str, kind: str) -> None:
    text = GOOD.replace("10 10 30 30 15 15 1 25 15 0", lines)
    assert found(report(folder, text)) == [(kind, "problem", 2)]


@pytest.mark.parametrize("lines", ["10 10 30 30 40 20 1", "10 10 30 30 -1 -1 -1"])
def test_points_near_the_box_or_not_labelled_are_fine(folder: Path, lines: str) -> None:
    assert report(folder, GOOD.replace("10 10 30 30 15 15 1 25 15 0", lines)).findings == ()


def test_an_ignored_face_does_no_harm(folder: Path) -> None:
    result = report(folder, GOOD.replace("10 10 30 30 15 15 1 25 15 0", "10 10 10 30 1"))
    assert found(result) == [("empty", "remark", 2)]
    assert result.problems == 0


def test_remarks(folder: Path) -> None:
    result = report(folder, GOOD.replace("0 0 4 4", "0 0 4 3.9"))
    assert found(result) == [("tiny", "remark", 7)]
    assert found(report(folder, "# a.png 100 50\n", pictures=False)) == [("no-faces", "remark", 1)]


def test_what_is_not_read_is_told(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 100}]
    notes = [{"id": i, "image_id": 1, "category_id": c, "bbox": [9 * i, 1, 8, 8]} for i, c in enumerate((1, 2, 2), 1)]
    kinds = [{"id": 1, "name": "face"}, {"id": 2, "name": "hat"}]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": images, "annotations": notes, "categories": kinds}))
    result = check(path)
    assert [(f.kind, f.level, f.place, f.text) for f in result.findings] == [
        ("not-read", "remark", str(path), "2 x annotations of other categories")
    ]
    assert result.problems == 0


def test_what_had_to_be_assumed_is_told(folder: Path) -> None:
    (folder / "labels").mkdir()
    for name in "abc":
        (folder / f"labels/{name}.txt").write_text("0 0.5 0.5 0.2 0.2 0.5 0.5 0.51 0.5\n")
    (finding,) = check(folder).findings
    assert (finding.kind, finding.level) == ("assumed", "remark")
    assert "key points" in finding.text


def test_what_is_listed_twice(folder: Path) -> None:
    result = report(folder, GOOD + "# ./b.png 100 50\n5 5 20 20\n6 6 20 20\n5 5 20 20\n")
    assert found(result) == [("twice-boxed", "problem", 11), ("twice-labelled", "problem", 8)]
    assert result.findings[0].text.endswith(":9 again")
    assert result.findings[1].text.endswith(":4 already")


def test_pictures(folder: Path) -> None:
    images = folder / "images"
    images.joinpath("b.png").write_bytes(images.joinpath("a.png").read_bytes())
    data = images.joinpath("c.png").read_bytes()
    images.joinpath("c.png").write_bytes(data[: len(data) // 2])
    images.joinpath("d.png").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (50, 100, 3), np.uint8)
    exif = Pillow.Exif()
    exif[0x0112] = 6
    Pillow.fromarray(noise).save(images / "e.jpg", exif=exif)
    more = "".join(f"# {name} 100 50\n1 1 9 9\n" for name in ("gone.png", "d.png", "e.jpg"))
    result = report(folder, GOOD + more)
    assert found(result) == [
        ("same-picture", "problem", 4),
        ("unreadable", "problem", 6),
        ("missing", "problem", 8),
        ("unreadable", "problem", 10),
        ("size", "problem", 12),
    ]
    assert "EXIF" in result.findings[-1].text
    assert report(folder, GOOD + more, pictures=False).findings == ()


def test_every_picture_is_told_of(folder: Path) -> None:
    (folder / "labelv2.txt").write_text(GOOD)
    told: list[tuple[int, int]] = []
    check(folder, images=folder / "images", watch=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_all_kinds_are_explained(folder: Path) -> None:
    text = GOOD + "# a.png 7 7\n1 1 0 0\n"
    assert {f.kind for f in report(folder, text).findings} <= set(KINDS)


def test_official_ground_truth_has_eleven_faces_without_area(shared: Path) -> None:
    result = check(shared / "data/widerface/gt/wider_face_val_bbx_gt.txt")
    kinds = [f.kind for f in result.findings if f.level == "problem"]
    assert sorted(kinds) == ["empty"] * 11 + ["twice-boxed"]


def test_real_pictures(shared: Path) -> None:
    result = check(shared / "data/widerface/val", images=shared / "data/widerface/val/images", jobs=2)
    assert result.problems == 0
    assert (result.summary.pictures, result.summary.faces) == (401, 4321)
