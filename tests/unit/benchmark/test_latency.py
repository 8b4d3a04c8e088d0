from __future__ import annotations

from pathlib import Path

import pytest

from scrfdkit import Detector
from scrfdkit.benchmark.latency import STAGES, as_record, latency, spread


def test_spread() -> None:
    values = [float(v) for v in range(100, 0, -1)]
    result = spread(values)
    assert (result.min, result.median, result.p95) == (1.0, 50.5, 96.0)
    assert spread([3.0]).p95 == 3.0


@pytest.mark.parametrize("batch", [1, 3])
def test_stages_add_up_to_about_the_total(batch: int, examples: Path) -> None:
    """No assertion on speed: only that each stage was timed, and that none is counted twice."""
    pictures = [path.read_bytes() for path in sorted(examples.glob("*.jpg"))]
    seen: list[int] = []
    detector = Detector.open(device="cpu", threads=1)
    spreads = latency(detector, pictures, repeat=6, warmup=1, batch=batch, progress=seen.append)
    assert list(spreads) == list(STAGES)
    assert seen == [1, 2, 3, 4, 5, 6]
    assert all(0 < s.min <= s.median <= s.p95 for s in spreads.values())
    assert sum(spreads[stage].min for stage in STAGES[:-1]) < 1.5 * spreads["total"].p95
    assert set(as_record(spreads)["total"]) == {"min", "median", "p95"}
