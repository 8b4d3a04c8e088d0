"""JPEG bytes to faces: this package and the `insightface` package in turn, in one process, on the same pictures.

    python benchmarks/vs_insightface.py [--model FILE.onnx]... [--photos FOLDER] [--threads 1] [--output FILE.json]

Same ONNX file, same number of threads, same JPEG bytes. Each repetition times one package right after the other on
the same picture; a ratio is that of the two medians. Pictures are made from real photographs: cropped to 4:3,
resized to the size measured, given the noise of a camera sensor (sigma 2 of 255) so that they compress as photographs
of that size do, and saved at quality 90 with 4:2:0 chroma.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime

from scrfdkit import Detector, weights
from scrfdkit.machine import machine, package_version

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
CASES = (  # name, size of the pictures, our input size, ratio aimed at
    ("1 megapixel, fixed 640x640", (1152, 864), (640, 640), 0.95),
    ("1 megapixel, auto", (1152, 864), "auto", 0.75),
    ("12 megapixels, auto", (4000, 3000), "auto", 0.45),
    ("12 megapixels, fixed 640x640", (4000, 3000), (640, 640), None),
)


def photographs(folder: Path, size: tuple[int, int], number: int) -> list[bytes]:
    """Up to `number` photographs of the folder, evenly chosen, as JPEG files of that size."""
    paths = sorted(folder.rglob("*.jpg"))
    files = []
    for path in paths[:: max(1, len(paths) // number)][:number]:
        image = cv2.imread(str(path))
        height, width = image.shape[:2]
        across, down = min(width, height * 4 // 3), min(height, width * 3 // 4)
        x, y = (width - across) // 2, (height - down) // 2
        image = cv2.resize(image[y : y + down, x : x + across], size, interpolation=cv2.INTER_CUBIC)
        noise = np.random.default_rng(len(files)).normal(0, 2, image.shape)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
        files.append(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return files


def peer(path: Path, threads: int) -> Callable[[bytes], tuple[Any, Any]]:
    """insightface's detector on JPEG bytes, as its examples use it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from insightface import model_zoo

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        model = model_zoo.get_model(str(path), providers=["CPUExecutionProvider"], sess_options=options)
        model.prepare(ctx_id=-1, input_size=(640, 640), det_thresh=0.5)

    def detect(data: bytes) -> tuple[Any, Any]:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        return model.detect(image, input_size=(640, 640))  # type: ignore[no-any-return]

    return detect


def measure(path: Path, files: list[bytes], size: Any, threads: int, repeat: int) -> dict[str, Any]:
    """Medians, their ratio, and how far the detections lie apart (only of interest for the fixed size)."""
    theirs, ours = peer(path, threads), Detector.open(path, device="cpu", threads=threads, input_size=size)
    times: tuple[list[float], list[float]] = ([], [])
    apart = 0.0
    counts = [0, 0]
    for run in range(-len(files), repeat):
        data = files[run % len(files)]
        start = time.perf_counter()
        boxes, _ = theirs(data)
        middle = time.perf_counter()
        faces = ours.detect(data)
        end = time.perf_counter()
        if run < 0:
            counts = [counts[0] + len(boxes), counts[1] + len(faces)]
            if size == (640, 640):
                assert len(faces) == len(boxes), "the detections differ"
                apart = max(apart, float(np.abs(faces.boxes - boxes[:, :4]).max(initial=0)))
            continue
        times[0].append(1000 * (middle - start))
        times[1].append(1000 * (end - middle))
    medians = [statistics.median(t) for t in times]
    return {
        "insightface_ms": round(medians[0], 2),
        "scrfdkit_ms": round(medians[1], 2),
        "ratio": round(medians[1] / medians[0], 3),
        "faces_insightface": counts[0],
        "faces_scrfdkit": counts[1],
        "largest_box_difference_px": apart if size == (640, 640) else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, action="append", help="ONNX file; the embedded weights if left out")
    parser.add_argument("--photos", type=Path, default=EXAMPLES, help="folder of .jpg photographs")
    parser.add_argument("--number", type=int, default=8, help="pictures a case")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=80)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(args.threads)
    rows = []
    for path in args.model or [weights.embedded()]:
        for name, shape, size, aim in CASES:
            files = photographs(args.photos, shape, args.number)
            row = measure(path, files, size, args.threads, args.repeat)
            row = {
                "model": path.name,
                "case": name,
                "aim": aim,
                "mean_kilobytes": sum(map(len, files)) // len(files) // 1000,
            } | row
            rows.append(row)
            print(
                f"{row['model']:22} {name:30} {row['insightface_ms']:7.2f} ms {row['scrfdkit_ms']:7.2f} ms"
                f"  ratio {row['ratio']:.3f}" + (f" (aim {aim})" if aim else "")
            )
    record = {
        "machine": machine() | {"insightface": package_version("insightface")},
        "threads": args.threads,
        "repeat": args.repeat,
        "pictures": args.number,
        "rows": rows,
    }
    if args.output:
        args.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
