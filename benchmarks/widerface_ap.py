"""Time of WIDER FACE's AP: the engine against a plain loop over detections, on the same data, in the same run.

    python benchmarks/widerface_ap.py --gt shared/data/widerface/gt --detections FILE.npz [--loop-pictures 300]
        [--repeat 5] [--output FILE.json]

Seconds are processor time of one thread, so that other work on the machine matters little. The plain loop does what
the protocol says, a detection at a time, and takes minutes for a million detections; so it gets every n-th picture,
and the ratio is taken on these same pictures. Both must give the same AP, or the benchmark fails.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from scrfdkit.evaluate import results  # noqa: E402
from scrfdkit.evaluate.widerface import Found, GroundTruth, average_precision, read_ground_truth  # noqa: E402
from scrfdkit.machine import machine  # noqa: E402


def plain_average_precision(truth: GroundTruth, found: Found) -> dict[str, float]:
    """The protocol as it is told: picture by picture, detection by detection, setting by setting."""
    scores = found.scores.astype(np.float64)
    low, high = scores.min(), scores.max()
    scores = (scores - low) / (high - low) if high > low else np.zeros_like(scores)
    areas = {}
    for setting, counted in truth.counted.items():
        points = np.zeros((1000, 2))
        first_face = first_found = 0
        for num_faces, num_found in zip(truth.counts.tolist(), found.counts.tolist(), strict=True):
            faces, boxes = slice(first_face, first_face + num_faces), slice(first_found, first_found + num_found)
            first_face, first_found = first_face + num_faces, first_found + num_found
            if num_faces and num_found:
                points += _plain_picture(truth.boxes[faces], counted[faces], found.boxes[boxes], scores[boxes])
        precision = np.divide(points[:, 1], points[:, 0], out=np.zeros(1000), where=points[:, 0] > 0)
        areas[setting] = _plain_area(precision, points[:, 1] / max(int(counted.sum()), 1))
    return areas


def _plain_picture(
    faces: NDArray[Any], counted: NDArray[np.bool_], boxes: NDArray[Any], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(1000, 2) proposals and hits of one picture at each threshold."""
    order = np.argsort(-scores, kind="stable")
    hits, proposals = 0, 0
    hit = np.zeros(len(faces), bool)
    running = []
    for i in order.tolist():
        overlap = _plain_iou(boxes[i], faces)
        best = int(np.argmax(overlap))
        ignored = overlap[best] >= 0.5 and not counted[best]
        if overlap[best] >= 0.5 and counted[best] and not hit[best]:
            hit[best] = True
            hits += 1
        proposals += not ignored
        running.append((proposals, hits))
    points = np.zeros((1000, 2))
    falling = scores[order]
    for k in range(1000):
        reached = np.flatnonzero(falling >= 1 - (k + 1) / 1000)
        if len(reached):
            points[k] = running[reached[-1]]
    return points


def _plain_iou(box: NDArray[Any], faces: NDArray[np.float64]) -> NDArray[np.float64]:
    right, bottom = float(box[0] + box[2]), float(box[1] + box[3])
    box = box.astype(np.float64)
    across = np.minimum(right, faces[:, 0] + faces[:, 2]) - np.maximum(box[0], faces[:, 0]) + 1
    down = np.minimum(bottom, faces[:, 1] + faces[:, 3]) - np.maximum(box[1], faces[:, 1]) + 1
    shared = np.maximum(0, across) * np.maximum(0, down)
    both = (box[2] + 1) * (box[3] + 1) + (faces[:, 2] + 1) * (faces[:, 3] + 1)
    return np.asarray(shared / (both - shared))


def _plain_area(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> float:
    heights = [0.0, *precision.tolist(), 0.0]
    places = [0.0, *recall.tolist(), 1.0]
    for i in range(len(heights) - 2, -1, -1):
        heights[i] = max(heights[i], heights[i + 1])
    return sum((places[i + 1] - places[i]) * heights[i + 1] for i in range(len(places) - 1))


def seconds(work: Callable[[], Any], repeat: int) -> tuple[float, Any]:
    """Median processor time of some runs, and what the last one gave."""
    spent = []
    for _ in range(repeat):
        start = time.process_time()
        result = work()
        spent.append(time.process_time() - start)
    return sorted(spent)[len(spent) // 2], result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gt", type=Path, required=True, help="folder of WIDER FACE's .mat files")
    parser.add_argument("--detections", type=Path, required=True, help="results as `scrfd eval` reads them")
    parser.add_argument("--loop-pictures", type=int, default=300, help="pictures that the plain loop gets, about")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    reading, truth = seconds(lambda: read_ground_truth(args.gt), args.repeat)
    loading, loaded = seconds(lambda: results.read(args.detections), 1)
    truth, found, notes = results.align(truth, loaded)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    engine, curves = seconds(lambda: average_precision(truth, found), args.repeat)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    some = list(range(0, len(truth.images), max(1, len(truth.images) // args.loop_pictures)))
    part, part_found = truth.select([truth.images[i] for i in some]), results.take(found, some)
    loop, plain = seconds(lambda: plain_average_precision(part, part_found), 1)
    part_engine, part_curves = seconds(lambda: average_precision(part, part_found), args.repeat)
    worst = max(abs(plain[setting] - curve.ap) for setting, curve in part_curves.items())
    if worst > 1e-9:
        raise SystemExit(f"the engine and the plain loop disagree by {worst}")
    record = {
        "machine": machine(),
        "pictures": len(truth.images),
        "detections": len(found.scores),
        "ap": {setting: round(100 * curve.ap, 6) for setting, curve in curves.items()},
        "seconds": {"ground truth": reading, "detections": loading, "ap, three settings": engine},
        "peak_megabytes": {"before": round(before / 1024), "after": round(peak / 1024)},
        "plain_loop": {
            "pictures": len(some),
            "detections": len(part_found.scores),
            "seconds": loop,
            "engine_seconds": part_engine,
            "ratio": round(loop / part_engine, 1),
        },
        "notes": notes,
    }
    print(json.dumps(record, indent=2))
    if args.output:
        args.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
