"""InsightFace's `labelv2.txt`: `# path width height`, then a line a face.

A face is x1 y1 x2 y2, then a triple x y flag for each key point, then 1 if it is to be ignored; triple and number may
be left out. The flag is 1 visible, 0 hidden; -1 -1 -1 is a key point that is not labelled. Published sets have a score
between 0 and 1 in place of the last number, which is not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scrfdkit.data.labels import LabelledImage
from scrfdkit.data.reading import Collector, Where, numbers, place, text_of, whole
from scrfdkit.data.words import plural
from scrfdkit.data.writing import Encoded, shortest, text


def read(path: Path, into: Collector) -> None:
    """Reads a file into the collector. Raises LabelError where it cannot be opened."""
    file = str(path)
    header: tuple[str, int, int, int] | None = None  # path, width, height, line
    faces: list[tuple[int, list[float]]] = []
    lost = False  # below a broken header, whose faces belong nowhere
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if line.startswith("#"):
            _add(into, file, header, faces)
            header, faces = _header(into, place(file, number), line, number), []
            lost = header is None
        elif words := line.split():
            if header is None:
                if not lost:
                    into.broken(place(file, number), "a face before the first line '# path width height'")
                lost = True
            elif (values := _face(into, place(file, number), words)) is not None:
                faces.append((number, values))
    _add(into, file, header, faces)


def _header(into: Collector, at: str, line: str, number: int) -> tuple[str, int, int, int] | None:
    parts = line[1:].strip().rsplit(maxsplit=2)
    if len(parts) == 3 and (width := whole(parts[1])) and (height := whole(parts[2])):
        return parts[0], width, height, number
    into.broken(at, f"'# path width height' is needed, with whole numbers above 0; got {line.strip()!r:.200}")
    return None


def _face(into: Collector, at: str, words: list[str]) -> list[float] | None:
    values = numbers(words)
    if values is None:
        into.broken(at, f"a face is a line of numbers; got {' '.join(words)!r:.200}")
    elif len(values) < 4 or len(values) % 3 == 0:
        into.broken(
            at,
            f"{plural(len(values), 'number')}: 4 are a box, 3 more are needed for each key point, 1 more if ignored",
        )
    elif len(values) % 3 == 2 and values[-1] not in (0, 1) and not (len(values) > 5 and 0 < values[-1] < 1):
        into.broken(at, f"the last number must be 1 if the face is to be ignored, else 0; got {words[-1]!r:.50}")
    else:
        return values
    return None


def _add(
    into: Collector, file: str, header: tuple[str, int, int, int] | None, faces: list[tuple[int, list[float]]]
) -> None:
    if header is None:
        return
    path, width, height, line = header
    # 4 + 3 K numbers, one more where it is said whether the face is ignored.
    values = [v for _, v in faces]
    flags = [v.pop() if len(v) % 3 == 2 else 0.0 for v in values]
    into.leave("scores at the end of faces with key points", sum(flag not in (0, 1) for flag in flags))
    into.add(
        path,
        (width, height),
        Where(file, line, np.array([number for number, _ in faces], np.int64)),
        [v[:4] for v in values],
        [flag == 1 for flag in flags],
        [v[4:] for v in values],
    )


def encode(labels: Sequence[LabelledImage]) -> Encoded:
    """One file; nothing is lost."""
    lines: list[str] = []
    for image in labels:
        lines.append(f"# {image.path} {image.width} {image.height}")
        rows = shortest(image.boxes).tolist()
        if image.keypoints is not None:
            points = shortest(image.keypoints.reshape(len(rows), 3 * image.keypoints.shape[1])).tolist()
            labelled = (image.keypoints[:, :, 2] >= 0).any(axis=1)
            # An ignored face without labelled points is the short line of five that others know.
            plain = image.ignore & ~labelled
            rows = [row if bare else row + extra for row, extra, bare in zip(rows, points, plain, strict=True)]
        for row, ignored in zip(rows, image.ignore, strict=True):
            lines.append(" ".join(map(text, row)) + (" 1" if ignored else ""))
    return {"": "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")}, {}
