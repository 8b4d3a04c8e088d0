"""COCO json: pictures, annotations with boxes x y w h and key points, and categories; `iscrowd` is our ignore."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scrfdkit.data.classes import face_class, no_choice
from scrfdkit.data.labels import LabelledImage
from scrfdkit.data.reading import Collector, Where, place, text_of
from scrfdkit.data.writing import Encoded, keypoints_of, shortest, sides
from scrfdkit.types import point_names

Json = dict[str, Any]


def read(path: Path, into: Collector) -> None:
    """Reads a file into the collector. Raises LabelError where it cannot be opened."""
    file = str(path)
    content = _content(path, into)
    if content is None:
        return
    images = _images(content["images"], file, into)
    faces: dict[Any, list[Json]] = {key: [] for key in images}
    category = _category(content, file, into)
    for index, note in enumerate(content["annotations"]):
        if not isinstance(note, dict):
            into.broken(file, f"annotations[{index}] is not an object")
        elif category is not None and note.get("category_id", category) != category:
            into.leave("annotations of other categories")
        elif not _hashable(note.get("image_id")) or note["image_id"] not in faces:
            into.broken(_at(file, note), f"its image_id {note.get('image_id')!r:.50} is not among the images")
        elif _is_face(into, _at(file, note), note):
            faces[note["image_id"]].append(note)
            into.leave("annotations' segmentations", int(bool(note.get("segmentation"))))
    for key, (name, size) in images.items():
        _add(into, file, (key, name, size), faces[key])


def _content(path: Path, into: Collector) -> Json | None:
    file = str(path)
    try:
        content = json.loads(text_of(path))
    except json.JSONDecodeError as error:
        into.broken(place(file, error.lineno), f"is not JSON: {error.msg}")
        return None
    except (RecursionError, ValueError) as error:
        into.broken(file, f"is not JSON that can be read: {error}")
        return None
    if isinstance(content, dict) and all(isinstance(content.get(k), list) for k in ("images", "annotations")):
        return content
    into.broken(file, "a COCO data set has the lists 'images' and 'annotations'; results alone have no picture names")
    return None


def _images(rows: list[Any], file: str, into: Collector) -> dict[Any, tuple[str, tuple[int, int]]]:
    images: dict[Any, tuple[str, tuple[int, int]]] = {}
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str) or not _hashable(row.get("id")):
            into.broken(file, f"images[{index}] needs an 'id' and a 'file_name'")
        elif row["id"] in images:
            into.broken(file, f"images[{index}]: the id {row['id']!r:.50} is there already")
        else:
            sides_ = row.get("width") or 0, row.get("height") or 0
            known = all(type(v) is int and 0 < v < 1 << 31 for v in sides_)
            if not known and any(sides_):
                into.broken(file, f"images[{index}]: width and height must be whole numbers above 0")
            images[row["id"]] = row["file_name"], (sides_ if known else (0, 0))
    return images


def _hashable(value: Any) -> bool:
    return isinstance(value, (int, str))


def _category(content: Json, file: str, into: Collector) -> Any:
    """The id of the category that is the faces, None where there is no choice to make."""
    rows = content.get("categories") or []
    if not isinstance(rows, list) or not all(isinstance(r, dict) and "id" in r for r in rows):
        into.broken(file, "categories must be a list of objects with an id and a name")
        return None
    used = {
        n.get("category_id") for n in content["annotations"] if isinstance(n, dict) and _hashable(n.get("category_id"))
    }
    names = {r["id"]: str(r.get("name", r["id"])) for r in rows if _hashable(r["id"])}
    names |= {key: str(key) for key in used if key is not None and key not in names}
    if len(names) < 2:
        return None
    name = face_class(names.values())
    if name is None:
        into.broken(file, no_choice(names.values()))
        return None
    return next(key for key, value in names.items() if value == name)


def _at(file: str, note: Json) -> str:
    key = note.get("id")
    return place(file, key if isinstance(key, int) else 0, "annotation")


def _is_face(into: Collector, at: str, note: Json) -> bool:
    """Whether box and key points are lists of numbers of the right length."""
    box, points = note.get("bbox"), note.get("keypoints") or []
    if not _is_numbers(box, 4):
        into.broken(at, f"bbox must be four finite numbers x y w h; got {box!r:.100}")
    elif not _is_numbers(points) or len(points) % 3:
        into.broken(at, "keypoints must be finite numbers, three for each")
    elif wrong := [name for name in ("iscrowd", "ignore") if note.get(name) not in (None, 0, 1)]:
        into.broken(at, f"{wrong[0]} must be 0 or 1; got {note[wrong[0]]!r:.50}")
    else:
        return True
    return False


def _is_numbers(values: Any, count: int | None = None) -> bool:
    if not isinstance(values, list) or not set(map(type, values)) <= {int, float}:
        return False
    # JSON's whole numbers have no limit, float32 has. (NaN, which compares with nothing, is found out later.)
    return max(map(abs, values), default=0) < 1e38 and (count is None or len(values) == count)


def _add(into: Collector, file: str, picture: tuple[Any, str, tuple[int, int]], notes: list[Json]) -> None:
    key, name, size = picture
    lines = np.array([n["id"] if type(n.get("id")) is int and abs(n["id"]) < 1 << 62 else 0 for n in notes], np.int64)
    where = Where(file, key if type(key) is int and abs(key) < 1 << 62 else 0, lines, "annotation")
    boxes = [(x, y, x + w, y + h) for x, y, w, h in (n["bbox"] for n in notes)]
    ignore = [bool(n.get("iscrowd") or n.get("ignore")) for n in notes]
    into.add(name, size, where, boxes, ignore, [_points(n.get("keypoints") or []) for n in notes])


def _points(values: list[float]) -> list[float]:
    """COCO's visibility is 2 visible, 1 hidden, 0 not labelled."""
    out: list[float] = []
    for x, y, v in zip(values[::3], values[1::3], values[2::3], strict=True):
        out += (x, y, v - 1) if v else (-1, -1, -1)
    return out


def encode(labels: Sequence[LabelledImage]) -> Encoded:
    """One file; nothing is lost."""
    k = keypoints_of(labels)
    category: Json = {"id": 1, "name": "face", "supercategory": "person"}
    if k:
        category |= {"keypoints": list(point_names(k)), "skeleton": []}
    images: list[Json] = []
    notes: list[Json] = []
    for number, image in enumerate(labels, 1):
        images.append({"id": number, "file_name": image.path, "width": image.width, "height": image.height})
        points = None if image.keypoints is None else _visibility(image)
        for i, box in enumerate(sides(image.boxes).tolist()):
            note = {"id": len(notes) + 1, "image_id": number, "category_id": 1, "bbox": box}
            note |= {"area": round(box[2] * box[3], 4), "iscrowd": int(image.ignore[i]), "segmentation": []}
            if points is not None:
                note |= {"keypoints": points[i], "num_keypoints": sum(v > 0 for v in points[i][2::3])}
            notes.append(note)
    content = {"images": images, "annotations": notes, "categories": [category]}
    return {"": (json.dumps(content, separators=(",", ":")) + "\n").encode()}, {}


def _visibility(image: LabelledImage) -> list[list[float]]:
    assert image.keypoints is not None
    points = image.keypoints.copy()
    points[:, :, 2] += 1
    points[image.keypoints[:, :, 2] < 0] = 0
    rows: list[list[float]] = shortest(points.reshape(len(points), 3 * points.shape[1])).tolist()
    return [[int(v) if i % 3 == 2 else v for i, v in enumerate(row)] for row in rows]
