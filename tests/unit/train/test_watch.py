"""What is shown of a run: a bar that goes again on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import pytest
import torch
from rich.console import Console

from scrfdkit.train.tally import memory_bytes
from scrfdkit.train.watch import Watch, _clock

NUMBERS = {
    "scores": 0.5, "boxes": 0.25, "keypoints": 0.125, "lr": 0.01, "pictures_per_second": 321.09, "waiting": 0.034,
    "memory": 3 * 2**29, "gradient": 5.0,
}  # fmt: skip


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)


def text(of: Console) -> str:
    assert isinstance(of.file, io.StringIO)
    return of.file.getvalue()


def test_lines_without_a_terminal() -> None:
    out = console(False)
    with Watch(out, every=0) as watch:
        watch.begin(1000, 100, 100)
        watch.update(150, NUMBERS)
    assert re.fullmatch(
        r"epoch 2/10 · step 150/1,000 · 0:00 left · scores 0.500 · boxes 0.250 · points 0.125 · lr 0.01 · "
        r"321.1 pictures/s · waiting 3% · 1.5 GiB\n",
        text(out),
    )


def test_now_and_then_and_at_the_end() -> None:
    out = console(False)
    with Watch(out, every=3600) as watch:
        watch.begin(50, 0, 0)
        for step in range(1, 51):
            watch.update(step, {"scores": step})
    assert text(out) == "step 50/50 · 0:00 left · scores 50.000\n"


def test_a_number_keeps_its_last_value() -> None:
    out = console(False)
    with Watch(out, every=0) as watch:
        watch.begin(9, 0, 0)
        watch.update(1, {"lr": 0.1})
        watch.update(2, {"scores": 2})
    assert text(out).splitlines()[1] == "step 2/9 · 0:00 left · scores 2.000 · lr 0.1"


@pytest.mark.parametrize("terminal", [True, False])
def test_messages_stay_as_they_are(terminal: bool) -> None:
    out = console(terminal)
    with Watch(out) as watch:
        watch.begin(9, 0, 0)
        watch.update(1, NUMBERS)
        watch.say("[bold]a[/bold] :smile: " + "x" * 120 + "\n\x1b[2Jé\udc80")
        watch.update(2, NUMBERS)
    message = "[bold]a[/bold] :smile: " + "x" * 120 + r"\n\x1b[2Jé\udc80" + "\n"
    assert message in text(out)


def test_a_terminal_is_left_clean() -> None:
    out = console(True)
    with pytest.raises(KeyboardInterrupt), Watch(out) as watch:
        watch.begin(100, 0, 10)
        watch.update(1, NUMBERS)
        assert "epoch 1/10 · step 1/100" in text(out)
        assert "points 0.125" in text(out)
        raise KeyboardInterrupt
    shown = text(out)
    assert shown.endswith("\x1b[1A\x1b[2K")  # up, and the line erased
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is back


def test_clock() -> None:
    assert [_clock(s) for s in (0, 61, 3600, 86400 * 2 + 5)] == ["0:00", "1:01", "1:00:00", "2 d 0:00:05"]


def test_memory() -> None:
    """In a process of its own, as memory that others here gave back would be taken first."""
    program = (
        "import torch; from scrfdkit.train.tally import memory_bytes as size; cpu = torch.device('cpu');"
        "before = size(cpu); held = torch.ones(256, 2**20, dtype=torch.uint8); print(before, size(cpu))"
    )
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    before, after = map(int, told.split())
    assert 2**20 < before < after - 200 * 2**20
    assert after < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.gpu
def test_memory_on_the_gpu() -> None:
    device = torch.device("cuda")
    torch.cuda.reset_peak_memory_stats(device)
    before = memory_bytes(device)
    torch.ones(2**26, dtype=torch.uint8, device=device)
    assert memory_bytes(device) >= before + 2**26
