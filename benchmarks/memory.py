"""Growth of resident memory over 5,000 pictures with one detector.

    python benchmarks/memory.py FOLDER [--pictures 5000] [--output FILE.json]

The folder's pictures are read again and again, each time cropped to another size, so that neither the network nor the
caches meet the same shape all the time. Memory is read every 500 pictures; growth is counted after the first 1,000,
within which the network's allocator has met most shapes.
"""

from __future__ import annotations

import argparse
import gc
import json
from itertools import cycle
from pathlib import Path

from rich.progress import track

from scrfdkit import Detector
from scrfdkit.image import load
from scrfdkit.machine import machine, resident_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--warmup", type=int, default=1000)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    detector = Detector.open(device="cpu", threads=1)
    paths = cycle(sorted(args.folder.rglob("*.jpg")))
    readings = []
    for number in track(range(1, args.warmup + args.pictures + 1), transient=True):
        path = next(paths)
        if number % 2:
            detector.detect(path)
        else:
            pixels = load(path).pixels
            detector.detect(pixels[: pixels.shape[0] - number % 97, : pixels.shape[1] - number % 89])
        if number % 500 == 0:
            gc.collect()
            readings.append(round(resident_bytes() / 1e6, 2))
    growth = round(readings[-1] - readings[args.warmup // 500 - 1], 2)
    print(f"resident MB every 500 pictures: {readings}; growth {growth} MB")
    if args.output:
        record = {
            "machine": machine(),
            "warmup": args.warmup,
            "pictures": args.pictures,
            "resident_mb": readings,
            "growth_mb": growth,
        }
        args.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
