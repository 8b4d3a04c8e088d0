"""What the JPEG decoder's short cuts (`fast_decoding`) cost in AP: WIDER FACE pictures with them and without.

    python benchmarks/fast_decoding_ap.py --data shared/data/widerface [--model FILE.onnx]... [--output FILE.json]

The pictures are 1,024 pixels wide, so that at the usual long side of 640 the decoder only spreads chroma coarsely and
uses its faster arithmetic. Two more settings make it shrink: the pictures enlarged to a width of 4,000 (about 12
megapixels, bicubic, JPEG quality 90) at 640, and as they are at a long side of 320.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.progress import track

from scrfdkit import Detector, weights
from scrfdkit.evaluate.widerface import Found, GroundTruth, average_precision, read_ground_truth
from scrfdkit.machine import machine


def enlarged(data: bytes) -> bytes:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    factor = 4000 / image.shape[1]
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def score(
    detector: Detector, files: list[Path], truth: GroundTruth, prepare: Callable[[bytes], bytes], **options: Any
) -> tuple[dict[str, float], dict[str, float]]:
    """AP in percent with the short cuts and without them."""
    faces: dict[bool, list[Any]] = {True: [], False: []}
    for path in track(files, transient=True):
        original = path.read_bytes()
        data = prepare(original)
        for fast, results in faces.items():
            found = detector.detect(data, fast_decoding=fast, **options)
            width = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[1]
            back = 1024 / width
            results.append(found.scale(back, back))
    result = []
    for results in faces.values():
        boxes = np.concatenate([r.boxes for r in results])
        boxes[:, 2:] -= boxes[:, :2]
        scores = np.concatenate([r.scores for r in results])
        curves = average_precision(truth, Found(np.array([len(r) for r in results]), boxes, scores))
        result.append({setting: round(100 * curve.ap, 2) for setting, curve in curves.items()})
    return result[0], result[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with val/images and gt")
    parser.add_argument("--model", type=Path, action="append")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    images = args.data / "val" / "images"
    files = sorted(images.rglob("*.jpg"))
    truth = read_ground_truth(args.data / "gt").select([str(p.relative_to(images))[:-4] for p in files])
    rows = []
    for path in args.model or [weights.embedded()]:
        detector = Detector.open(path, device="cpu", score_threshold=0.02, nms_threshold=0.45)
        for case, prepare, size in (
            ("as they are, long side 640", lambda data: data, 640),
            ("12 megapixels, long side 640", enlarged, 640),
            ("as they are, long side 320", lambda data: data, 320),
        ):
            fast, full = score(detector, files, truth, prepare, input_size=size)
            change = {setting: round(fast[setting] - full[setting], 2) for setting in full}
            rows.append({"model": path.name, "case": case, "full": full, "fast": fast, "change": change})
            print(path.name, case, "full", full, "fast", fast, "change", change)
    if args.output:
        record = {"machine": machine(), "pictures": len(files), "rows": rows}
        args.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
