"""Detections made fit for scoring: what is no box or has no score is put aside, sorted out and counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from scrfdkit.data.words import plural
from scrfdkit.evaluate.widerface import Found

_FARTHEST = 1e8  # pixels; whatever lies farther out is no picture's, and squares of it leave the range of float32
_NOWHERE = (-1e9, -1e9, 1e6, 1e6)  # where no face can be, and too large to be left out for its size
_ROUNDING = 0.01  # pixels; a box that was cut away at an edge can come out that much below zero


def clean(found: Found) -> tuple[Found, list[str]]:
    """Detections that `average_precision` takes, and a note for every kind of thing that was wrong with them."""
    notes = []
    rank = np.isfinite(found.scores)
    if not rank.all():
        notes.append(f"left out: {plural(int((~rank).sum()), 'detection')} whose score is not a finite number")
        picture = np.repeat(np.arange(len(found.counts)), found.counts)
        counts = np.bincount(picture[rank], minlength=len(found.counts))
        found = Found(counts, found.boxes[rank], found.scores[rank])
    found = _put_aside(found, notes)
    picture = np.repeat(np.arange(len(found.counts)), found.counts)
    rising = (found.scores[1:] > found.scores[:-1]) & (picture[1:] == picture[:-1])
    if rising.any():
        pictures = len(np.unique(picture[1:][rising]))
        notes.append(f"sorted by score, which they were not: the detections of {plural(pictures, 'picture')}")
    if len(found.scores) > 1 and found.scores.min() == found.scores.max():
        notes.append("all scores are the same, so that precision and recall are known at one threshold only")
    if not len(found.scores):
        notes.append("there is no detection at all")
    return found, notes


def _put_aside(found: Found, notes: list[str]) -> Found:
    """Moves boxes that are none to where they are false alarms in every protocol."""
    finite = np.isfinite(found.boxes).all(axis=1)
    far = finite & (np.abs(found.boxes) > _FARTHEST).any(axis=1)
    negative = finite & ~far & (found.boxes[:, 2:] < -_ROUNDING).any(axis=1)
    for mask, what in (
        (~finite, "whose numbers are not finite"),
        (far, f"beyond {_FARTHEST:,.0f} pixels"),
        (negative, "of negative width or height"),
    ):
        if mask.any():
            notes.append(f"counted as false alarms: {plural(int(mask.sum()), 'box', 'boxes')} {what}")
    broken = ~finite | far | negative
    if not broken.any():
        return found
    boxes = found.boxes.astype(np.float64)
    boxes[broken] = _NOWHERE
    return replace(found, boxes=boxes)
