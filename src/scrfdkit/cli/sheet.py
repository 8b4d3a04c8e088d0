"""Labelled pictures drawn, one by one or on a contact sheet. Loads OpenCV: commands import it when they run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from scrfdkit import draw
from scrfdkit.data.labels import LabelledImage
from scrfdkit.data.words import plural
from scrfdkit.errors import ScrfdError
from scrfdkit.image import load
from scrfdkit.types import Detections, Image

_CELL, _TITLE, _GAP = 480, 40, 8  # pixels


def drawn(labels: LabelledImage, folder: Path, *, small: bool) -> Image:
    """The picture with its faces, shrunk to a sheet's cell first if `small`, so that lines stay legible.

    Raises ImageError where it cannot be read.
    """
    picture = load(folder / labels.path)
    pixels = picture.pixels
    scale = min(1.0, _CELL / max(pixels.shape[:2])) if small else 1.0
    if scale < 1:
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    points = None
    if labels.keypoints is not None:
        # What is not labelled is put where nothing is drawn.
        points = np.where(labels.keypoints[:, :, 2:] < 0, np.float32(-1e6), labels.keypoints[:, :, :2])
    faces = Detections(labels.boxes, np.ones(len(labels.boxes), np.float32), points).scale(scale, scale)
    out = draw.annotate(pixels, faces[~labels.ignore], scores=False)
    line = max(1, round(min(out.shape[:2]) / 400))
    for x1, y1, x2, y2 in np.clip(faces.boxes[labels.ignore], -30000, 30000).round().astype(int).tolist():
        cv2.rectangle(out, (x1, y1), (x2, y2), (160, 160, 160), line)
        cv2.line(out, (x1, y1), (x2, y2), (160, 160, 160), line)
        cv2.line(out, (x1, y2), (x2, y1), (160, 160, 160), line)
    return out


def cell(labels: LabelledImage, picture: Image) -> Image:
    """A square with the picture in its middle and two lines of text below."""
    out = np.full((_CELL + _TITLE, _CELL, 3), 32, np.uint8)
    height, width = picture.shape[:2]
    top, left = (_CELL - height) // 2, (_CELL - width) // 2
    out[top : top + height, left : left + width] = picture
    ignored = int(labels.ignore.sum())
    facts = f"{labels.width}x{labels.height}, {plural(len(labels.boxes), 'face')}"
    facts += f", {ignored} ignored" if ignored else ""
    name = labels.path.rsplit("/", 1)[-1]
    name = name if len(name) <= 60 else f"{name[:28]}...{name[-29:]}"
    for row, words in enumerate((name, facts)):
        # OpenCV's letters are ASCII only.
        plain = words.encode("ascii", "replace").decode()
        at = (4, _CELL + 15 + 18 * row)
        cv2.putText(out, plain, at, cv2.FONT_HERSHEY_SIMPLEX, 0.43, (230, 230, 230), 1, cv2.LINE_AA)
    return out


def sheet(cells: Sequence[Image]) -> Image:
    """As square as it goes."""
    across = max(n for n in range(1, len(cells) + 1) if (n - 1) ** 2 < len(cells))
    down = -(-len(cells) // across)
    width, height = cells[0].shape[1] + _GAP, cells[0].shape[0] + _GAP
    out = np.full((down * height + _GAP, across * width + _GAP, 3), 16, np.uint8)
    for i, cell in enumerate(cells):
        y, x = _GAP + i // across * height, _GAP + i % across * width
        out[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
    return out


def encoded(picture: Image, suffix: str) -> bytes:
    """The bytes of a picture file. Raises ScrfdError where its format cannot hold the size."""
    good, data = cv2.imencode(suffix.lower(), picture)
    if not good:
        raise ScrfdError(f"a sheet of {picture.shape[1]}x{picture.shape[0]} pixels cannot be written as {suffix}")
    content: Any = data
    return bytes(content.tobytes())
