"""What a file may be asked to take and give."""

from __future__ import annotations

from typing import Any

import pytest

from scrfdkit.errors import OptionError
from scrfdkit.export.contract import Contract, Suppression
from scrfdkit.layout import head_names, head_widths
from scrfdkit.zoo import ZOO


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layout", "rows"),
        ("size", (640, 481)),
        ("size", (0, 640)),
        ("size", (640,)),
        ("size", (32 * 1024, 32)),
        ("batch", 0),
        ("batch", True),
        ("batch", 100_000),
    ],
)
def test_a_bad_field_is_named(field: str, value: Any) -> None:
    with pytest.raises(OptionError, match=rf"^{field}: "):
        Contract(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("score_threshold", 1.1), ("score_threshold", float("nan")), ("nms_threshold", -0.1), ("max_faces", 0)],
)
def test_a_bad_threshold_is_named(field: str, value: Any) -> None:
    with pytest.raises(OptionError, match=rf"^{field}: "):
        Suppression(**{field: value})


def test_only_maps_can_lack_their_sigmoid() -> None:
    assert Contract("maps").logits
    assert not Contract("maps", sigmoid=True).logits
    assert not Contract("reference").logits
    assert not Contract("end2end").logits


def test_names_are_the_official_ones() -> None:
    with_points, without = ZOO["scrfd_500m_kps"].spec, ZOO["scrfd_500m"].spec
    official = ["score_8", "score_16", "score_32", "bbox_8", "bbox_16", "bbox_32", "kps_8", "kps_16", "kps_32"]
    assert head_names(with_points) == official
    assert head_names(without) == official[:6]
    assert head_widths(with_points) == [1, 1, 1, 4, 4, 4, 10, 10, 10]
    assert head_widths(without) == [1, 1, 1, 4, 4, 4]
