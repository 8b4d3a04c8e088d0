"""Pictures a second of `scrfd detect FOLDER` on one core and on two: the real command, start-up included.

    python benchmarks/folder_throughput.py FOLDER [--repeat 3] [--save-dir] [--output FILE.json]

Linux only: `sched_setaffinity` gives the command its cores, and it takes as many jobs as it has cores. One core and
two take turns; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scrfdkit.machine import machine


def run(folder: Path, cores: set[int], pictures: bool) -> tuple[float, int]:
    """Seconds and number of records."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "scrfdkit", "detect", str(folder), "--json", f"{place}/faces.jsonl"]
        if pictures:
            command += ["--save-dir", f"{place}/marked"]
        start = time.perf_counter()
        subprocess.run(command, check=True, preexec_fn=lambda: os.sched_setaffinity(0, cores), capture_output=True)
        spent = time.perf_counter() - start
        return spent, len(Path(f"{place}/faces.jsonl").read_text().splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--save-dir", action="store_true", help="write marked pictures too")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    one, two = ({0}, {0, 1})
    times: dict[int, list[float]] = {1: [], 2: []}
    number = 0
    for _ in range(args.repeat):
        for cores in (one, two):
            spent, number = run(args.folder, cores, args.save_dir)
            times[len(cores)].append(spent)
    medians = {cores: statistics.median(values) for cores, values in times.items()}
    record = {
        "machine": machine(),
        "pictures": number,
        "save_dir": args.save_dir,
        "seconds": times,
        "pictures_per_second": {cores: round(number / seconds, 1) for cores, seconds in medians.items()},
        "ratio": round(medians[1] / medians[2], 3),
    }
    print(f"{number} pictures: {record['pictures_per_second']} pictures/s by cores, ratio {record['ratio']}")
    if args.output:
        args.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
