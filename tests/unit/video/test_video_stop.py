from __future__ import annotations

from pathlib import Path

from video_files import make_video

from scrfdkit.types import Detections
from scrfdkit.video import frames, process


def test_stop_ends_the_source_and_keeps_a_whole_output(tmp_path: Path) -> None:
    """As a camera ends: what was seen so far is there, and playable."""
    source = make_video(tmp_path / "in.mp4", 30, audio="aac")
    output = tmp_path / "out.mp4"
    seen: list[int] = []
    results = process(source, lambda _: Detections.empty(5), output=output, stop=lambda: len(seen) >= 12)
    for result in results:
        seen.append(result.index)  # noqa: PERF401  # `stop` looks at it meanwhile
    assert seen == list(range(len(seen)))
    assert 12 <= len(seen) < 30
    assert len(list(frames(output))) == len(seen)
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []
