from __future__ import annotations

import pytest

from scrfdkit import machine


@pytest.mark.parametrize(
    ("pictures", "jobs", "expected"),
    [
        (0, None, (1, 4)),
        (1, None, (1, 4)),
        (2, None, (2, 2)),
        (3, None, (3, 1)),
        (9, None, (4, 1)),
        (1, 1, (1, 1)),
        (9, 2, (2, 1)),
        (1, 2, (1, 2)),
        (9, 8, (8, 1)),
        (1, 100_000, (1, 4)),
        (200_000, 100_000, (64, 1)),
    ],
)
def test_cores_are_shared(
    pictures: int, jobs: int | None, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 4)
    assert machine.share_cores(jobs, pictures) == expected


def test_machine_names_what_figures_depend_on() -> None:
    facts = machine.machine()
    assert facts["cores"] >= 1
    assert facts["cpu"]
    assert {"scrfdkit", "numpy", "onnxruntime"} <= set(facts["packages"])
    assert machine.package_version("no such package") is None
    assert machine.resident_bytes() > 10_000_000
