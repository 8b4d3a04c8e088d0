"""The steps around the network: views to a blob, outputs to faces, faces of all views of a picture to one answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from numpy.typing import NDArray

from scrfdkit import decode, letterbox
from scrfdkit.image import Picture
from scrfdkit.layout import Layout, levels_of
from scrfdkit.options import Options
from scrfdkit.spec import Input
from scrfdkit.types import Detections, Floats
from scrfdkit.views import View, restore, views


@dataclass(frozen=True, eq=False)
class Batch:
    """One run of the network: views with canvases of one size, and the number of the picture each belongs to."""

    canvas: tuple[int, int]
    views: tuple[View, ...]
    pictures: tuple[int, ...]


def plan(
    pictures: Sequence[Picture], options: Options, fixed_size: tuple[int, int] | None, batch_size: int
) -> Iterator[Batch]:
    """Every view of every picture, grouped by canvas, at most `batch_size` a run."""
    groups: dict[tuple[int, int], list[tuple[int, View]]] = {}
    for index, picture in enumerate(pictures):
        for view in views(picture, options, fixed_size):
            groups.setdefault(view.placement.canvas, []).append((index, view))
    for canvas, members in groups.items():
        rest = iter(members)
        while chunk := list(islice(rest, batch_size)):
            indices, chosen = zip(*chunk, strict=True)
            yield Batch(canvas, chosen, indices)


def preprocess(batch: Batch, spec: Input, fixed_batch: int | None) -> Floats:
    """The blob (B, 3, H, W) float32. A network of fixed batch size gets blank pictures for the missing ones."""
    blob = letterbox.blank(fixed_batch or len(batch.views), batch.canvas)
    for slot, view in zip(blob, batch.views, strict=False):
        letterbox.draw(view.pixels, view.placement, slot, spec, reduced=view.reduced)
    blob[len(batch.views) :] = 0
    return blob


def postprocess(
    outputs: Sequence[NDArray[Any]], layout: Layout, batch: Batch, options: Options
) -> list[tuple[int, View, Detections]]:
    """Candidates of every view with its picture's number, in that picture's pixels, before suppression."""
    return [
        (
            index,
            view,
            restore(
                decode.decode(
                    levels_of(outputs, layout, batch.canvas, i), options.score_threshold, logits=layout.logits
                ),
                view,
            ),
        )
        for i, (index, view) in enumerate(zip(batch.pictures, batch.views, strict=True))
    ]


def merge(
    candidates: Sequence[tuple[int, View, Detections]], pictures: Sequence[Picture], options: Options
) -> list[Detections]:
    """One answer a picture: suppression over all its views, of the best rotation if several were tried."""
    turns: list[dict[int, list[Detections]]] = [{} for _ in pictures]
    for index, view, faces in candidates:
        turns[index].setdefault(view.turn, []).append(faces)
    return [_merge_one(parts, picture, options) for parts, picture in zip(turns, pictures, strict=True)]


def _merge_one(turns: dict[int, list[Detections]], picture: Picture, options: Options) -> Detections:
    answers = [decode.suppress(Detections.concatenate(parts), options.nms_threshold) for parts in turns.values()]
    best = max(answers, key=lambda faces: float(faces.scores.sum())) if len(answers) > 1 else answers[0]
    return decode.keep_best(best, options.max_faces, options.rank, picture.width, picture.height)
