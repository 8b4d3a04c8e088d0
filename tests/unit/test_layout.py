from __future__ import annotations

import numpy as np
import pytest

from scrfdkit.decode import decode
from scrfdkit.errors import ModelError
from scrfdkit.layout import identify, levels_of

RNG = np.random.default_rng(0)


def head(canvas: tuple[int, int], levels: int, anchors: int, points: int, batch: int = 1) -> list[list[np.ndarray]]:
    """Maps (B, A * C, h, w) of every level: probabilities, distances, offsets."""
    result = []
    for i in range(levels):
        height, width = (-(-side // (8 << i)) for side in canvas[::-1])
        groups = [anchors, 4 * anchors] + ([2 * points * anchors] if points else [])
        level = [RNG.random((batch, c, height, width)).astype(np.float32) for c in groups]
        result.append(level)
    return result


def rows(array: np.ndarray, width: int) -> np.ndarray:
    return np.moveaxis(array, 1, -1).reshape(len(array), -1, width)


CASES = [(3, 2, 0), (3, 2, 5), (5, 1, 0), (5, 1, 5), (3, 2, 1), (3, 2, 2), (3, 1, 5), (3, 2, 68), (4, 2, 5)]


@pytest.mark.parametrize(("levels", "anchors", "points"), CASES)
@pytest.mark.parametrize("form", ["rows", "unbatched", "maps"])
@pytest.mark.parametrize("canvas", [(640, 640), (256, 256), (320, 192)])
def test_any_form_and_any_order(levels: int, anchors: int, points: int, form: str, canvas: tuple[int, int]) -> None:
    maps = head(canvas, levels, anchors, points)
    widths = [1, 4] + ([2 * points] if points else [])
    flat = [m if form == "maps" else rows(m, w) for level in maps for m, w in zip(level, widths, strict=True)]
    if form == "unbatched":
        flat = [a[0] for a in flat]
    # Two key points make four channels, as boxes have: then only the order tells them apart.
    order = list(range(len(flat))) if points == 2 else list(RNG.permutation(len(flat)))
    outputs = [flat[i] for i in order]
    layout = identify(outputs, canvas)
    assert (len(layout.strides), layout.num_anchors, layout.num_keypoints) == (levels, anchors, points)
    assert (layout.maps, layout.batched, layout.logits) == (form == "maps", form != "unbatched", False)
    found = decode(levels_of(outputs, layout, canvas, 0), 0.5)
    expected = decode(levels_of(flat, identify(flat, canvas), canvas, 0), 0.5)
    assert np.array_equal(found.boxes, expected.boxes)
    straight = np.concatenate([rows(level[0], 1)[0, :, 0] for level in maps])
    assert np.array_equal(found.scores, straight[straight >= 0.5])
    if points:
        assert np.array_equal(found.keypoints, expected.keypoints)
        assert found.keypoints.shape[1:] == (points, 2)


def test_map_channels_are_anchor_major() -> None:
    """Channel anchor * 4 + k, as in the reference's maps."""
    maps = head((64, 64), 3, 2, 0)
    for level in maps:
        level[0][:] = 0
    maps[0][0][0, 1, 2, 3] = 0.9
    distances = maps[0][1][0, 4:8, 2, 3]
    flat = [m for level in maps for m in level]
    found = decode(levels_of(flat, identify(flat, (64, 64)), (64, 64), 0), 0.5)
    left, top, right, bottom = distances * 8
    assert np.allclose(found.boxes, [[24 - left, 16 - top, 24 + right, 16 + bottom]])


def test_logits_are_told_and_decoded() -> None:
    maps = head((256, 256), 3, 2, 5)
    probabilities = [[np.clip(level[0], 0.01, 0.99), *level[1:]] for level in maps]
    logits = [[np.log(level[0] / (1 - level[0])), *level[1:]] for level in probabilities]
    flat = [m for level in probabilities for m in level]
    raw = [m for level in logits for m in level]
    layout = identify(raw, (256, 256))
    assert layout.logits
    expected = decode(levels_of(flat, identify(flat, (256, 256)), (256, 256), 0), 0.3)
    found = decode(levels_of(raw, layout, (256, 256), 0), 0.3, logits=True)
    assert np.allclose(found.scores, expected.scores, atol=1e-6)
    assert np.array_equal(found.boxes, expected.boxes)
    for threshold, number in ((0.0, sum(level[0].size for level in maps)), (1.0, 0)):
        assert len(decode(levels_of(raw, layout, (256, 256), 0), threshold, logits=True)) == number


def test_batch_items_do_not_mix() -> None:
    flat = [m for level in head((128, 96), 3, 2, 5, batch=3) for m in level]
    layout = identify([a[:1] for a in flat], (128, 96))
    for index in range(3):
        alone = decode(levels_of([a[index : index + 1] for a in flat], layout, (128, 96), 0), 0.5)
        together = decode(levels_of(flat, layout, (128, 96), index), 0.5)
        assert np.array_equal(alone.boxes, together.boxes)


@pytest.mark.parametrize(
    "shapes",
    [
        [(1, 1000)],
        [(1, 512)] * 6,
        [(1, 3, 224, 224)],
        [(1, 12800, 1), (1, 12800, 4)],
        [(1, 100, 1), (1, 100, 4), (1, 25, 1), (1, 25, 4), (1, 6, 1), (1, 6, 4)],
        [(1, 12800, 1), (1, 12800, 4), (1, 3200, 1), (1, 3200, 4), (1, 800, 1), (1, 800, 5)],
        [(12800, 1), (1, 12800, 4)],
    ],
)
def test_other_networks_are_refused(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ModelError, match="not an SCRFD head"):
        identify([np.zeros(s, np.float32) for s in shapes], (640, 640))
