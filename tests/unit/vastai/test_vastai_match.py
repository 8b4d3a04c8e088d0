"""Outputs to pictures, however they are called."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from scrfdkit.errors import ScrfdError
from scrfdkit.vastai.match import Pairs, match, picture_folder, read_list

NAMES = [f"p{i}" for i in range(12)]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "data/val/images"
    for i, name in enumerate(NAMES):
        place = root / f"event{i % 3}" / f"{name}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    return root


def outputs(folder: Path, names: Iterable[str]) -> Path:
    folder.mkdir()
    for name in names:
        (folder / f"{name}.npz").touch()
    return folder


def pairs(tmp_path: Path, pictures: Path, names: Iterable[str]) -> tuple[Pairs, dict[str, str]]:
    found = match([Path(f"/packed/{n}.npz") for n in NAMES], outputs(tmp_path / "outputs", names), pictures)
    return found, {Path(pair.picture).stem: pair.file.stem for pair in found.pairs}


def test_by_name(tmp_path: Path, pictures: Path) -> None:
    found, by = pairs(tmp_path, pictures, ["p3", "p10", "p0", "other"])
    assert by == {"p0": "p0", "p3": "p3", "p10": "p10"}
    assert [pair.picture for pair in found.pairs] == ["event0/p0.jpg", "event0/p3.jpg", "event1/p10.jpg"]
    assert (found.how, found.extra) == ("name", ("other.npz",))
    assert found.missing == tuple(n for n in NAMES if n not in by)


@pytest.mark.parametrize("start", [0, 1, 7])
@pytest.mark.parametrize("digits", [1, 6])
def test_by_number(tmp_path: Path, pictures: Path, start: int, digits: int) -> None:
    """In the order of numbers: as text, output_10 is before output_2."""
    found, by = pairs(tmp_path, pictures, [f"output_{i + start:0{digits}d}" for i in range(12)])
    assert by == {f"p{i}": f"output_{i + start:0{digits}d}" for i in range(12)}
    assert (found.how, found.missing) == ("number", ())


@pytest.mark.parametrize("start", [0, 1])
def test_numbers_with_gaps(tmp_path: Path, pictures: Path, start: int) -> None:
    there = [i for i in range(12) if i not in (4, 5)]
    found, by = pairs(tmp_path, pictures, [f"r{i + start}" for i in there])
    assert by == {f"p{i}": f"r{i + start}" for i in there}
    assert found.missing == ("p4", "p5")


def test_by_order(tmp_path: Path, pictures: Path) -> None:
    found, by = pairs(tmp_path, pictures, [f"{letter}_result" for letter in "abcdefghijkl"])
    assert by["p0"] == "a_result"
    assert by["p11"] == "l_result"
    assert found.how == "order"


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([f"r{i}" for i in range(2, 9)], "their numbers go from 2 to 8"),
        ([f"r{i}" for i in range(20)], "their numbers go from 0 to 19"),
        (["a", "b"], "their names tell nothing"),
        (["a1", "b2"], "their names tell nothing"),
        (["r1", "r01"], "their names tell nothing"),
        ([], r"holds no \.npz files"),
    ],
)
def test_what_cannot_be_told(tmp_path: Path, pictures: Path, names: list[str], reason: str) -> None:
    with pytest.raises(ScrfdError, match=reason):
        pairs(tmp_path, pictures, names)


def test_pictures_that_are_not_there_or_twice(tmp_path: Path, pictures: Path) -> None:
    (pictures / "event0/p0.jpg").unlink()
    with pytest.raises(ScrfdError, match="p0 is on the list, and there is no such picture"):
        pairs(tmp_path, pictures, ["p0"])
    (pictures / "event0/p1.jpg").touch()
    with pytest.raises(ScrfdError, match=r"event0/p1\.jpg and event1/p1\.jpg are both called so"):
        match([Path("/packed/p1.npz")], outputs(tmp_path / "more", ["p1"]), pictures)
    found = match([Path("/packed/event1/p1.npz")], tmp_path / "more", pictures)
    assert found.pairs[0].picture == "event1/p1.jpg"


def test_lists(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("/a/b.npz\r\n\n  c.npz \n")
    assert read_list(file) == (Path("/a/b.npz"), Path("c.npz"))
    for text, reason in (("a.npz\nb/a.npz\n", r"list\.txt:2: a is on the list twice"), ("\n", "names no file")):
        file.write_text(text)
        with pytest.raises(ScrfdError, match=reason):
            read_list(file)
    with pytest.raises(ScrfdError, match=r"gone\.txt: cannot be read"):
        read_list(tmp_path / "gone.txt")


def test_where_pictures_are(tmp_path: Path, pictures: Path) -> None:
    assert picture_folder(tmp_path / "data") == picture_folder(pictures) == pictures
