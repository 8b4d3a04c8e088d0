"""Filling in: faces in frames where they were missed or where nobody looked, from the frames around.

Frames are held back only while a face that is gone may still come back, and so are few.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from scrfdkit.types import Detections

T = TypeVar("T")

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Filled(Generic[T]):
    """A frame with all its faces. bridged: (N,) bool, true for faces that were filled in. detected: whether the
    detector looked at this frame."""

    item: T
    detections: Detections
    bridged: Bools
    detected: bool


@dataclass(eq=False)
class _Track:
    """Where one face was seen: frame numbers, rising, and one-row Detections."""

    indices: list[int]
    faces: list[Detections]


def bridge(
    seen: Iterable[tuple[T, Detections | None]], *, every: int = 1, max_gap: int = 0, hold: int = 0
) -> Iterator[Filled[T]]:
    """Every item in order, its faces completed from the frames around it.

    seen: one item a frame, with the detections, or None for a frame that was not looked at; frames 0, every,
        2 * every ... are looked at. Without ids a face is not known to be another frame's face.
    max_gap: a face with an id that is found again after at most this many frames moves between the two places
        in a straight line: box, key points and score. Frames not looked at are always bridged.
    hold: frames for which a face stays in place before its first and after its last sighting.

    In a frame that was not looked at, a face that is known on one side only stays in place there: too much is
    covered rather than too little. At most max(max_gap, hold) + 2 * every items are held at a time.
    """
    limit = max(max_gap, every - 1)
    held: deque[tuple[int, T, Detections | None]] = deque()
    tracks: dict[int, _Track] = {}
    nameless, latest = 0, -1
    for index, (item, found) in enumerate(seen):
        held.append((index, item, found))
        del item
        if found is None:
            continue
        previous, latest = latest, index
        for row in range(len(found)):
            nameless -= 1
            key = nameless if found.ids is None else int(found.ids[row])
            track = tracks.setdefault(key, _Track([], []))
            track.indices.append(index)
            track.faces.append(found[[row]])
        while held and _settled(held[0][0], tracks, latest, every, limit, hold):
            yield _fill(*held.popleft(), tracks, every, limit, hold)
        _forget(tracks, held[0][0] if held else latest + 1, max(limit, hold, latest - previous))
    while held:
        yield _fill(*held.popleft(), tracks, every, limit, hold)


def _settled(index: int, tracks: dict[int, _Track], latest: int, every: int, limit: int, hold: int) -> bool:
    """Whether no frame after `latest` can add a face to frame `index`."""
    if latest < index + hold:
        return False
    for key, track in tracks.items():
        last = track.indices[-1]
        if key >= 0 and last < index and latest + every - last - 1 <= limit:
            return False
    return True


def _forget(tracks: dict[int, _Track], oldest: int, reach: int) -> None:
    """Drops what no frame from `oldest` on can need; without it a long video would fill the memory."""
    for key in [k for k, t in tracks.items() if t.indices[-1] + reach + 1 < oldest]:
        del tracks[key]
    for track in tracks.values():
        spare = bisect_left(track.indices, oldest) - 1
        if spare > 0:
            del track.indices[:spare], track.faces[:spare]


def _fill(
    index: int, item: T, found: Detections | None, tracks: dict[int, _Track], every: int, limit: int, hold: int
) -> Filled[T]:
    added = []
    for key, track in tracks.items():
        face = _face_at(index, track, index % every != 0, every, limit, hold)
        if face is not None:
            added.append(replace(face, ids=None if key < 0 else np.array([key], np.int64)))
    parts = ([found] if found is not None and len(found) else []) + added
    empty = Detections.empty() if found is None else found
    detections = Detections.concatenate(parts) if parts else empty
    bridged = np.zeros(len(detections), np.bool_)
    bridged[len(detections) - len(added) :] = bool(added)
    return Filled(item, detections, bridged, found is not None)


def _face_at(index: int, track: _Track, skipped: bool, every: int, limit: int, hold: int) -> Detections | None:
    """Where the face is taken to be in a frame without a sighting of it, or None where it is taken to be gone."""
    after = bisect_left(track.indices, index)
    if after < len(track.indices) and track.indices[after] == index:
        return None
    since = index - track.indices[after - 1] if after else None
    until = track.indices[after] - index if after < len(track.indices) else None
    if since is not None and until is not None and since + until - 1 <= limit:
        return _between(track.faces[after - 1], track.faces[after], since / (since + until))
    # Of a frame nobody looked at, the frames looked at on either side are fewer than `every` away.
    reach = max(hold, every - 1 if skipped else 0)
    near = [(d, track.faces[i]) for d, i in ((since, after - 1), (until, after)) if d is not None and d <= reach]
    return min(near, key=lambda n: n[0])[1] if near else None


def _between(a: Detections, b: Detections, part: float) -> Detections:
    w = np.float32(part)

    def mix(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
        return x + (y - x) * w

    points = None
    if a.keypoints is not None and b.keypoints is not None:
        points = mix(a.keypoints, b.keypoints)
    return Detections(mix(a.boxes, b.boxes), mix(a.scores, b.scores), points)
