"""Outputs to faces: the exact way is the evaluation's, the published way is Vastai's."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from scrfdkit.errors import OptionError, ScrfdError
from scrfdkit.evaluate import results
from scrfdkit.vastai import decode
from scrfdkit.vastai.decode import Fed, Rules
from scrfdkit.vastai.match import Pair

CANVAS = (64, 64)


def maps(faces: list[tuple[int, int, float, float]], kind: type = np.float32) -> list[Any]:
    """Logits and distances of a network of two anchors and 64x64: faces at stride 8, as cell x, y, half side, logit."""
    cells = [8, 4, 2]
    scores = [np.full((1, 2, n, n), -20, kind) for n in cells]
    boxes = [np.zeros((1, 8, n, n), kind) for n in cells]
    for x, y, half, logit in faces:
        scores[0][0, 1, y, x] = logit
        boxes[0][0, 4:, y, x] = half / 8
    return scores + boxes


def save(path: Path, arrays: list[Any]) -> Path:
    np.savez(path, **{f"output_{i}": array for i, array in enumerate(arrays)})
    return path


# A picture of 128x64 becomes 64x32: in the centre, 16 rows lie above it.
@pytest.mark.parametrize(("fed", "row"), [("corner", 2), ("centre", 4)])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_the_exact_way(tmp_path: Path, fed: Fed, row: int, kind: type) -> None:
    file = save(tmp_path / "a.npz", maps([(3, row, 5, 2.0), (3, row + 1, 1, -3.0), (6, row, 4, -3.9)], kind))
    found = decode.faces(file, (128, 64), Rules(CANVAS, fed))
    assert found.boxes.tolist() == [[38, 22, 58, 42], [46, 46, 50, 50]]  # the last one's score is 0.0198
    assert found.scores == pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(3))], abs=1e-6)


def test_outputs_may_come_in_any_order_and_without_a_batch_axis(tmp_path: Path) -> None:
    arrays = maps([(3, 2, 5, 2.0)])
    one = decode.faces(save(tmp_path / "a.npz", arrays), (128, 64), Rules(CANVAS, "corner"))
    other = decode.faces(save(tmp_path / "b.npz", [a[0] for a in arrays[::-1]]), (128, 64), Rules(CANVAS, "corner"))
    assert np.array_equal(one.boxes, other.boxes)


def test_the_published_way(tmp_path: Path) -> None:
    """100x37 becomes 64x23.68 with 20.16 rows above: a scale of 0.64 and fractions of pixels."""
    file = save(tmp_path / "a.npz", maps([(3, 4, 5, 2.0), (0, 4, 5, 1.0), (3, 3, 5, 0.9), (6, 4, 2, -0.1)]))
    found = decode.faces(file, (100, 37), Rules(CANVAS, "centre", published=True))
    first = np.array([24 - 5, 32 - 5 - 20.16, 24 + 5, 32 + 5 - 20.16]) / 0.64
    second = np.array([24 - 5, 24 - 5 - 20.16, 24 + 5, 24 + 5 - 20.16]) / 0.64
    cut = np.array([0, 32 - 5 - 20.16, 5, 32 + 5 - 20.16]) / 0.64
    assert found.boxes.tolist() == [np.rint(first).tolist(), np.rint(cut).tolist(), [*np.rint(second.clip(0)).tolist()]]
    assert (found.scores > 0.5).all()


def test_overlaps_of_the_published_way_count_a_pixel_more(tmp_path: Path) -> None:
    """2x2 boxes a pixel apart: counted as 3x3, their IoU is 6/12, above 0.45; as they are, 2/6."""
    arrays = maps([(3, 3, 1, 2.0)])
    arrays[0][0, 0, 3, 3] = 1.0
    arrays[3][0, :4, 3, 3] = np.array([0, 1, 2, 1]) / 8
    file = save(tmp_path / "a.npz", arrays)
    assert len(decode.faces(file, (64, 64), Rules(CANVAS, "centre", published=True))) == 1
    assert len(decode.faces(file, (64, 64), Rules(CANVAS, "centre"))) == 2


def test_result_files_are_read_by_the_evaluation(tmp_path: Path, examples: Path) -> None:
    pictures = tmp_path / "pictures"
    (pictures / "0--Party").mkdir(parents=True)
    (pictures / "0--Party/a.jpg").symlink_to(examples / "astronaut.jpg")
    pair = Pair(save(tmp_path / "out.npz", maps([(3, 2, 5, 2.0), (6, 2, 4, -1.0)])), "0--Party/a.jpg")
    exact, published = Rules(CANVAS, "corner"), Rules(CANVAS, "centre", published=True)
    for rules, count, title in ((exact, 2, "0--Party/a.jpg"), (published, 1, "0--Party/a")):
        target = tmp_path / title.replace("/", "_")
        assert decode.write_all([pair], pictures, target, rules) == []
        assert (target / "0--Party/a.txt").read_text().startswith(f"{title}\n{count}\n")
        read = results.read(target)
        assert (read.images, read.counts.tolist(), read.notes) == (("0--Party/a",), [count], ())
    assert re.search(r"^\d+\.0 \d+\.0 \d+\.0 \d+\.0 0\.8807\d+$", (target / "0--Party/a.txt").read_text(), re.M)


def fed_pairs(tmp_path: Path, faces: list[tuple[int, tuple[int, int]]]) -> list[Pair]:
    """A blank picture of a size each, and outputs with a face in a row of cells."""
    for i, (row, (width, height)) in enumerate(faces):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.zeros((height, width, 3), np.uint8))
        save(tmp_path / f"{i}.npz", maps([(3, row, 4, 3.0)]))
    return [Pair(tmp_path / f"{i}.npz", f"{i}.png") for i in range(len(faces))]


def test_where_pictures_lay_is_told_by_faces(tmp_path: Path) -> None:
    """A picture of 128x64 has rows 0 to 4 of the cells in the corner, and 2 to 6 in the centre."""
    wide, square = (128, 64), (64, 64)
    for row, told in ((1, ("corner", 1, 2 / 3)), (5, ("centre", 1, 2 / 3))):
        pairs = fed_pairs(tmp_path, [(row, wide), (3, wide), (7, square)])
        assert decode.where_fed(pairs, tmp_path, CANVAS) == pytest.approx(told)
    with pytest.raises(OptionError, match="--fed: it cannot be told"):
        decode.where_fed(fed_pairs(tmp_path, [(3, wide)]), tmp_path, CANVAS)
    assert decode.where_fed(fed_pairs(tmp_path, [(3, square)]), tmp_path, CANVAS) == ("corner", 1, 1)
    pairs[0].file.write_bytes(b"")
    assert decode.where_fed(pairs[:1], tmp_path, CANVAS) == ("corner", 1, 1)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({}, "has no arrays output_0"),
        ({"output_1": np.zeros(1)}, "output_0"),
        ({"output_0": np.zeros((1, 2, 8, 8))}, "not an SCRFD head.*--size must be"),
        ({"output_0": np.array(["text"])}, "cannot be read"),
        ({"output_0": np.array([{}])}, "cannot be read"),
    ],
)
def test_other_files(tmp_path: Path, arrays: dict[str, Any], reason: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ScrfdError, match=rf"(?s)a\.npz: .*{reason}"):
        decode.faces(tmp_path / "a.npz", (64, 64), Rules(CANVAS, "corner"))


def test_damaged_files_are_told_and_the_others_decoded(tmp_path: Path, examples: Path) -> None:
    good = save(tmp_path / "a.npz", maps([(3, 2, 5, 2.0)]))
    half, empty, wrong = (tmp_path / name for name in ("b.npz", "c.npz", "d.npz"))
    half.write_bytes(good.read_bytes()[:700])
    empty.touch()
    save(wrong, [a[:, :, :1] for a in maps([])])
    pairs = [Pair(file, "astronaut.jpg") for file in (half, empty, good, wrong)] + [Pair(good, "gone.jpg")]
    told = decode.write_all(pairs, examples, tmp_path / "out", Rules(CANVAS, "corner"))
    names = [str(error).partition(":")[0].rpartition("/")[2] for error in told]
    assert names == ["b.npz", "c.npz", "d.npz", "gone.jpg"]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["astronaut.txt"]


def member(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """An .npy file with a header of one's own."""
    text = header.encode("latin1")
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version[0] == 1 else 4, "little") + text + data


def archive(path: Path, content: bytes, patch: tuple[int, int, bytes] | None = None, **how: Any) -> Path:
    """A file of one member. patch: offsets in the local and the central header, and the bytes to put at both."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **how) as file:
        file.writestr("output_0.npy", content)
    data = bytearray(buffer.getvalue())
    if patch:
        local, central, new = patch
        for start in (local, data.rindex(b"PK\x01\x02") + central):
            data[start : start + len(new)] = new
    path.write_bytes(data)
    return path


def header_of(sides: str, descr: str = "'<f4'", order: bool = False) -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {sides}}}\n"


HOSTILE: dict[str, tuple[bytes, dict[str, Any]]] = {
    "4 TiB": (member(header_of(f"({1 << 42},)")), {}),
    "more than any number": (member(header_of(f"({1 << 80},)")), {}),
    "fewer than it says": (member(header_of("(2, 2)"), bytes(12)), {}),
    "more than it says": (member(header_of("(2, 2)"), bytes(20)), {}),
    "negative": (member(header_of("(-2, -2)"), bytes(16)), {}),
    "no sides": (member(header_of("'all'"), bytes(16)), {}),
    "objects": (member(header_of("(1,)", "'|O'"), bytes(8)), {}),
    "records": (member(header_of("(1,)", "[('a', '<f4')]"), bytes(4)), {}),
    "no type": (member(header_of("(1,)", "'<q9'"), bytes(4)), {}),
    "half a header": (member("{'descr': (")[:18], {}),
    "half a line": (member("{'descr': ("), {}),
    "deep": (member("(" * 9000), {}),
    "version 3": (member(header_of("(1,)"), bytes(4), b"\x03\x00"), {}),
    "version 99": (member(header_of("(1,)"), bytes(4), b"\x63\x00"), {}),
    "unknown compression": (member(header_of("(1,)"), bytes(4)), {"patch": (8, 10, b"\x63\x00")}),
    "encrypted": (member(header_of("(1,)"), bytes(4)), {"patch": (6, 8, b"\x01\x00")}),
    "wrong LZMA": (member(header_of("(1,)"), bytes(4)), {"patch": (8, 10, b"\x0e\x00")}),
    "wrong BZ2": (member(header_of("(1,)"), bytes(4)), {"patch": (8, 10, b"\x0c\x00")}),
    "wrong deflate": (member(header_of("(1,)"), bytes(4)), {"patch": (8, 10, b"\x08\x00")}),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_files_that_lie(what: str, tmp_path: Path, examples: Path) -> None:
    content, how = HOSTILE[what]
    bad = archive(tmp_path / "bad.npz", content, **how)
    good = save(tmp_path / "good.npz", maps([(3, 2, 5, 2.0)]))
    pairs = [Pair(bad, "astronaut.jpg"), Pair(good, "astronaut.jpg")]
    (told,) = decode.write_all(pairs, examples, tmp_path / "out", Rules(CANVAS, "corner"))
    assert re.match(rf"{re.escape(str(bad))}: cannot be read as outputs in an \.npz file: \S", str(told))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["astronaut.txt"]


def test_how_arrays_may_be_saved(tmp_path: Path) -> None:
    """Compressed, by columns, as float64 and in the second version of the format; further arrays are left."""
    arrays = [np.asfortranarray(array, np.float64) for array in maps([(3, 2, 5, 2.0)])]
    named = {f"output_{i}": array for i, array in enumerate(arrays)}
    np.savez_compressed(tmp_path / "a.npz", names=np.array(["text"]), **named)
    for array, wanted in zip(decode.load(tmp_path / "a.npz"), arrays, strict=True):
        assert array.dtype == np.float32
        assert np.array_equal(array, wanted.astype(np.float32))
    second = member(header_of("(1, 2, 1, 1)"), np.array([3, 4], np.float32).tobytes(), b"\x02\x00")
    (found,) = decode.load(archive(tmp_path / "b.npz", second))
    assert found.ravel().tolist() == [3, 4]
