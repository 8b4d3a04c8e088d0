"""`scrfd data show`, as a user runs it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner, Result

from scrfdkit.cli.data import app
from scrfdkit.errors import ScrfdError

GREEN, BLUE = (80, 220, 60), (255, 170, 40)


def show(*words: object) -> Result:
    return CliRunner().invoke(app, ["show", *(str(word) for word in words)])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """labelv2.txt with two pictures in e/ and one in f/, beside it: faces with key points, without, and ignored."""
    for number, name in enumerate(("e/a", "e/b", "f/c")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Pillow.new("RGB", (300, 200), (90, 90, 90 + number)).save(tmp_path / f"{name}.png")
    face = "20 20 60 60 30 30 1 50 30 0"
    (tmp_path / "labelv2.txt").write_text(
        f"# e/a.png 300 200\n{face}\n120 20.5 160 60 1\n# e/b.png 300 200\n120 20 220 120\n# f/c.png 300 100\n{face}\n"
    )
    return tmp_path


def test_a_sheet(source: Path) -> None:
    out = source / "out/sheet.png"
    result = show(source, "-o", out, "--pictures", "a.png")
    assert result.exit_code == 0
    assert result.stdout == f"wrote {out}: 1 picture\n"
    assert [path.name for path in out.parent.iterdir()] == ["sheet.png"]  # nothing half-written beside it
    sheet = cv2.imread(str(out))
    left, top = 8 + 10, 8  # the narrowest cell has 320 pixels
    assert (sheet[top + 40, left + 20] == GREEN).all()
    assert {tuple(pixel) for pixel in sheet[top + 24 : top + 60, left + 120].tolist()} == {(0,) * 3, (255,) * 3}
    assert (sheet[top + 150, left + 100] == 90).all()  # the picture itself
    assert (sheet[-24:] > 150).any()  # the key


def test_the_same_seed_gives_the_same_sheet(source: Path) -> None:
    def made(seed: int) -> bytes:
        result = show(source, "-o", source / "s.png", "-n", 1, "--seed", seed)
        assert result.stdout == f"wrote {source}/s.png: 1 picture of 3\n"
        return (source / "s.png").read_bytes()

    sheets = [made(seed) for seed in range(8)]
    assert sheets == [made(seed) for seed in range(8)]
    assert len(set(sheets)) == 3


def test_one_by_one(source: Path) -> None:
    out = source / "marked"
    result = show(source, "-o", out, "--pictures", "e/*")
    assert result.exit_code == 0
    assert result.stdout == f"wrote {out}: 2 pictures\n"
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == ["e/a.png.png", "e/b.png.png"]
    picture = cv2.imread(str(out / "e/b.png.png"))
    assert picture.shape == (200, 300, 3)
    assert (picture[70, 120] == BLUE).all()  # a face without key points, where others have some


def test_small_faces_left_out(source: Path) -> None:
    out = source / "marked"
    assert show(source, "-o", out, "--min-face", 60).stdout == f"wrote {out}: 1 picture\n"
    assert [path.name for path in out.rglob("*.*")] == ["b.png.png"]
    result = show(source, "-o", out, "--min-face", 101)
    assert str(result.exception) == "--min-face: no picture has a face of 101 pixels"


def test_pictures_that_cannot_be_read(source: Path) -> None:
    (source / "e/b.png").unlink()
    (source / "f/c.png").write_bytes((source / "e/a.png").read_bytes()[:60])
    result = show(source, "-o", source / "sheet.jpg")
    assert result.exit_code == 1
    assert result.stdout == f"wrote {source}/sheet.jpg: 1 picture of 3\n"
    gone, broken = result.stderr.splitlines()
    assert gone == f"warning: {source}/e/b.png: there is no such file"
    assert broken.startswith(f"warning: {source}/f/c.png: ")
    (source / "e/a.png").unlink()
    (source / "sheet.jpg").write_text("older")
    result = show(source, "-o", source / "sheet.jpg")
    assert str(result.exception) == f"{source}: none of 3 pictures could be read; name their folder with --images"
    assert (source / "sheet.jpg").read_text() == "older"


def test_pictures_elsewhere(source: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    labels = tmp_path_factory.mktemp("labels") / "labelv2.txt"
    (source / "labelv2.txt").rename(labels)
    assert isinstance(show(labels, "-o", source / "s.png").exception, ScrfdError)
    assert show(labels, "--images", source, "-o", source / "s.png").exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "s.png", "--pictures", "d.png"], "--pictures: no labelled picture is called d.png"),
        (["-o", "s.png", "--format", "xls"], "--format: 'xls'"),
        (["-o", "labelv2.txt"], "--out: labelv2.txt is a file; name a .png, .jpg or .webp file, or a folder"),
    ],
)
def test_wrong_use(source: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str) -> None:
    monkeypatch.chdir(source)
    result = show(source, *words)
    assert isinstance(result.exception, ScrfdError)
    assert message in str(result.exception)
    assert not (source / "s.png").exists()


def test_wider_face(shared: Path, tmp_path: Path) -> None:
    train = shared / "data/widerface/train"
    result = show(train / "labelv2.txt", "--images", train / "images", "-o", tmp_path / "sheet.jpg", "-n", 4)
    assert result.exit_code == 0, result.stderr
    sheet = cv2.imread(str(tmp_path / "sheet.jpg"))
    assert min(sheet.shape[:2]) > 700
    near = np.abs(sheet.astype(int) - GREEN).max(axis=2) < 40
    assert near.sum() > 100
