"""What int8 costs and what it gains: average precision and speed of networks beside their float forms.

    python benchmarks/int8.py --pair FLOAT INT8 [--pair FLOAT INT8]... [--data WIDER/val [--gt WIDER/gt]]
        [--size 640x640] [--threads 1]... [--repeat 60] [--output benchmarks/results/int8.json]

Files may be of any format that is opened here. The two of a pair take turns, run by run, in one process; a ratio is
that of their medians, and of their shortest runs, which other programs disturb least. With --data every file is scored
as `scrfd eval` does it at that size.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from scrfdkit import certificate
from scrfdkit.cli.validation import scorer
from scrfdkit.detector import Detector
from scrfdkit.machine import machine
from scrfdkit.runtime.formats import open_runtime, version

RESULTS = Path(__file__).resolve().parent / "results" / "int8.json"
WARM_UP = 5


def interleaved(files: list[Path], size: tuple[int, int], threads: int, repeat: int) -> dict[str, Any]:
    """Milliseconds of a run of each file with one picture, in turn."""
    runtimes = [open_runtime(path, device="cpu", threads=threads) for path in files]
    noise = np.random.default_rng(0).uniform(-1, 1, (1, 3, size[1], size[0])).astype(np.float32)
    times: list[list[float]] = [[] for _ in files]
    for run in range(-WARM_UP, repeat):
        for runtime, spent in zip(runtimes, times, strict=True):
            start = time.perf_counter()
            runtime.run(noise)
            if run >= 0:
                spent.append(1000 * (time.perf_counter() - start))
    medians, shortest = [statistics.median(t) for t in times], [min(t) for t in times]
    return {
        "threads": threads,
        "median_ms": [round(t, 2) for t in medians],
        "min_ms": [round(t, 2) for t in shortest],
        "ratio_of_medians": round(medians[0] / medians[1], 3),
        "ratio_of_minima": round(shortest[0] / shortest[1], 3),
    }


def megabytes(path: Path) -> float:
    """Of all files that belong to a network, as its certificate has them."""
    made = certificate.read(path)
    return round((made.num_bytes if made else path.stat().st_size) / 1e6, 2)


def side_by_side(
    files: list[Path], size: tuple[int, int], threads: list[int], repeat: int, score: Any
) -> dict[str, Any]:
    """A row of the record, which is printed too."""
    row: dict[str, Any] = {
        "files": [path.name for path in files],
        "runtime": version(files[1]),
        "megabytes": [megabytes(path) for path in files],
        "speed": [interleaved(files, size, number, repeat) for number in threads],
    }
    print(f"{files[0].name} and {files[1].name} ({row['runtime']}), {row['megabytes']} MB")
    for found in row["speed"]:
        print(
            f"  {found['threads']} thread(s): median {found['median_ms']} ms, ratio {found['ratio_of_medians']};"
            f" shortest {found['min_ms']} ms, ratio {found['ratio_of_minima']}"
        )
    if score is not None:
        row["ap"] = [
            {
                name: round(value, 3)
                for name, value in score(Detector(open_runtime(path, device="cpu", threads=1))).items()
            }
            for path in files
        ]
        row["drop"] = {name: round(value - row["ap"][1][name], 3) for name, value in row["ap"][0].items()}
        print(f"  AP {row['ap'][0]} and {row['ap'][1]}: drop {row['drop']}")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", type=Path, nargs=2, action="append", required=True, metavar=("FLOAT", "INT8"))
    parser.add_argument("--data", type=Path, help="labels with their pictures, or with --gt WIDER FACE's pictures")
    parser.add_argument("--gt", type=Path, help="folder of WIDER FACE's .mat files")
    parser.add_argument("--size", default="640x640", help="WxH of the timed input, and of scoring")
    parser.add_argument("--threads", type=int, action="append", help="of a run; 1 and 2 if left out")
    parser.add_argument("--repeat", type=int, default=60)
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    sides = re.fullmatch(r"(\d+)x(\d+)", args.size)
    if sides is None:
        parser.error(f"--size: {args.size!r} is not WIDTHxHEIGHT")
    size = int(sides[1]), int(sides[2])
    score = scorer(args.data, args.gt, None, args.size) if args.data else None
    computer = machine()
    print(json.dumps(computer, indent=2))
    rows = [side_by_side(pair, size, args.threads or [1, 2], args.repeat, score) for pair in args.pair]
    record = {"machine": computer, "size": args.size, "repeat": args.repeat, "rows": rows}
    args.output.write_text(json.dumps(record, indent=2) + "\n")
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
