"""Charts as SVG: axes hold every value with round numbers, and every mark lies where its numbers say."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from scrfdkit.search import charts
from scrfdkit.search.bootstrap import Range
from scrfdkit.search.charts import Point, Span

WIDTH, HEIGHT = 480, 320
NUMBERS = st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6)


def marks(drawing: Element, kind: str) -> list[Element]:
    return [one for one in drawing.iter() if kind in one.get("class", "").split()]


def place(mark: Element) -> tuple[float, float]:
    return float(mark.get("cx", "nan")), float(mark.get("cy", "nan"))


def words(drawing: Element) -> list[str]:
    return [one.text or "" for one in drawing.iter("text")]


@given(st.lists(NUMBERS, min_size=1, max_size=20))
def test_axis_holds_all_values_with_round_numbers(values: list[float]) -> None:
    spread = max(values) - min(values)
    assume(spread == 0 or spread > 1e-6 * max(map(abs, values)))
    axis = charts.axis(values, "x")
    assert axis.low <= min(values)
    assert max(values) <= axis.high
    assert axis.low < axis.high
    assert axis.low >= 0 or min(values) < 0
    assert 2 <= len(axis.ticks) <= 8
    assert all(axis.low - 1e-6 <= tick <= axis.high + 1e-6 for tick in axis.ticks)
    shown = [axis.number(tick) for tick in axis.ticks]
    assert len(set(shown)) == len(shown)
    assert all(math.isclose(float(text), tick, abs_tol=1e-9) for text, tick in zip(shown, axis.ticks, strict=True))
    step = axis.ticks[1] - axis.ticks[0]
    assert re.fullmatch(r"0*[125]0*", f"{step:.9f}".replace(".", ""))


def test_axis_of_a_narrow_budget() -> None:
    axis = charts.axis([2.451, 2.549], "GFLOPs")
    assert [axis.number(tick) for tick in axis.ticks] == ["2.46", "2.48", "2.50", "2.52", "2.54"]


def test_axis_of_nothing_and_of_zeros() -> None:
    assert (charts.axis([], "x").low, charts.axis([], "x").ticks[0]) == (0, 0)
    zeros = charts.axis([0.0, 0.0], "score")
    assert zeros.low == 0
    assert zeros.high > 0


def test_scatter_puts_points_where_they_belong() -> None:
    points = [Point(1.0, 60.0, "a"), Point(2.0, 70.0, "b", won="0002"), Point(3.0, 65.0, "c")]
    drawing = ElementTree.fromstring(charts.scatter(points, "GFLOPs", "score", "three points", front=[0, 1]))
    assert drawing.get("aria-label") == "three points"
    seen = marks(drawing, "point")
    assert [one.findtext("title") for one in seen] == ["a", "b", "c"]
    (ax, ay), (bx, by), (cx, cy) = map(place, seen)
    assert bx - ax == pytest.approx(cx - bx, abs=0.2)
    assert ay - cy == pytest.approx(cy - by, abs=0.2)
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in map(place, seen))
    assert [place(one) for one in marks(drawing, "won")] == [(bx, by)]
    assert "0002" in words(drawing)
    (stairs,) = marks(drawing, "front")
    assert stairs.get("d", "").startswith(f"M{ax} {ay}H{bx}V{by}H")


def test_scatter_tells_kinds_apart_by_shape() -> None:
    points = [Point(1.0, 60.0, "round"), Point(2.0, 61.0, "square", 1), Point(3.0, 62.0, "triangle", 2)]
    drawing = ElementTree.fromstring(charts.scatter(points, "x", "y", "three kinds"))
    assert [(one.tag, one.get("class")) for one in marks(drawing, "point")] == [
        ("circle", "point m0"),
        ("rect", "point m1"),
        ("path", "point m2"),
    ]
    assert ["aria-hidden" in charts.sample(kind) for kind in range(3)] == [True] * 3


def test_scatter_keeps_a_failure_at_its_edge() -> None:
    """One score of 3 among many around 65 must not press the others flat."""
    points = [Point(i, 60.0 + i % 10, str(i)) for i in range(40)]
    drawing = ElementTree.fromstring(charts.scatter([*points, Point(5, 3.0, "lost")], "x", "score", "with a failure"))
    (lost,) = marks(drawing, "off")
    assert lost.findtext("title") == "lost"
    heights = [place(one)[1] for one in marks(drawing, "point") if one is not lost]
    assert place(lost)[1] > max(heights)
    assert max(heights) - min(heights) > HEIGHT / 3
    assert any(re.fullmatch(r"1 below \d+\.?\d*", text) for text in words(drawing))


def test_scatter_with_a_band_and_escaped_words() -> None:
    points = [Point(0.1, 1.0, "<b>&"), Point(0.5, 2.0, "two")]
    text = charts.scatter(points, "<x>", "score", '"label" & <more>', band=Range(0.2, 0.3, 0.4, 0.3))
    assert "<b>" not in text
    drawing = ElementTree.fromstring(text)
    assert drawing.get("aria-label") == '"label" & <more>'
    assert marks(drawing, "point")[0].findtext("title") == "<b>&"
    (band,) = marks(drawing, "band")
    (median,) = marks(drawing, "median")
    left, width = float(band.get("x", "nan")), float(band.get("width", "nan"))
    (ax, _), (bx, _) = map(place, marks(drawing, "point"))
    assert ax < left < float(median.get("x1", "nan")) < left + width < bx
    assert float(median.get("x1", "nan")) == pytest.approx(left + width / 2, abs=0.2)


def test_many_winners_have_rings_and_no_numbers() -> None:
    points = [Point(i, i, "", won=f"000{i}") for i in range(1, 5)]
    drawing = ElementTree.fromstring(charts.scatter(points, "x", "y", "four winners"))
    assert len(marks(drawing, "won")) == 4
    assert not any(text.startswith("000") for text in words(drawing))


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60))
def test_cdf_rises_from_nothing_to_all(scores: list[float]) -> None:
    drawing = ElementTree.fromstring(charts.cdf({"all": scores}, "score", "share by score"))
    (curve,) = marks(drawing, "curve")
    steps = [tuple(map(float, pair.split())) for pair in re.split("[ML]", curve.get("d", ""))[1:]]
    xs, ys = [x for x, _ in steps], [y for _, y in steps]
    assert xs == sorted(xs)
    assert ys == sorted(ys, reverse=True), "upward is less"
    assert (ys[0], ys[-1]) == (HEIGHT - 38, 12), "the bottom and the top of the chart"


def test_cdf_says_which_share_has_at_most_a_score() -> None:
    groups = {"basic": [60.0, 62.0, 64.0, 66.0], "bottleneck": [58.0, 60.0]}
    drawing = ElementTree.fromstring(charts.cdf(groups, "score", "share by score"))
    curves = marks(drawing, "curve")
    assert [one.get("class") for one in curves] == ["curve m0", "curve m1"]
    heights = sorted({float(pair.split()[1]) for pair in re.split("[ML]", curves[0].get("d", ""))[1:]})
    assert [round((HEIGHT - 38 - y) / (HEIGHT - 50), 3) for y in heights] == [1, 0.75, 0.5, 0.25, 0]


def test_spans_share_one_scale() -> None:
    rows = [
        Span("stem", [5, 10, 20], Range(6, 9, 15, 10), [10]),
        Span("C2 <&>", [20, 40], None, [40]),
    ]
    drawing = ElementTree.fromstring(charts.spans(rows, "% of FLOPs", "ranges of two traits"))
    specks = [place(one) for one in marks(drawing, "speck")]
    assert len(specks) == 5
    assert specks[2][0] == specks[3][0], "twenty is twenty in both rows"
    assert specks[2][1] < specks[3][1]
    rings = [place(one) for one in marks(drawing, "won")]
    assert [x for x, _ in rings] == [specks[1][0], specks[4][0]]
    (band,) = marks(drawing, "band")
    assert band.findtext("title") == "stem: 6 to 15, median 9"
    left, width = float(band.get("x", "nan")), float(band.get("width", "nan"))
    assert specks[0][0] < left < specks[1][0] < left + width < specks[2][0]
    assert {"stem", "C2 <&>"} <= set(words(drawing))
    assert all(abs(y - rings[0][1]) < 13 for _, y in specks[:3]), "dots stay within their row"
