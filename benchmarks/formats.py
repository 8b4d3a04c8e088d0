"""Every format of some networks: exported, certified, and set side by side in one table.

    python benchmarks/formats.py NETWORK... --calibrate PICTURES [--pictures PICTURES] [--data WIDER_VAL --gt GT]
        [--only TEXT] [--threads 1] [--max-ap-drop 5] [--output FILE.json] [--table FILE.md]

NETWORK: names or weight files. Files are written into a temporary folder, or into --keep FOLDER, where those that are
there already are taken as they are. A file that fails its certificate is listed with the reason. Times are the medians
of runs of 640x640 in one process, all files of a network in turn, round after round, so that they can be compared.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import cv2

from scrfdkit import certificate
from scrfdkit.benchmark import latency
from scrfdkit.certificate import Certificate
from scrfdkit.cli.trial import files
from scrfdkit.cli.validation import scorer
from scrfdkit.detector import Detector
from scrfdkit.errors import ScrfdError
from scrfdkit.export.calibration import choose
from scrfdkit.export.contract import Contract
from scrfdkit.export.measure import Score, Trial
from scrfdkit.export.order import Order
from scrfdkit.export.parity import blob_of, pictures
from scrfdkit.export.reference import Reference
from scrfdkit.export.run import export
from scrfdkit.export.source import open_source
from scrfdkit.export.table import COLUMNS, markdown, row
from scrfdkit.export.targets import TARGETS
from scrfdkit.machine import machine
from scrfdkit.runtime.formats import open_runtime
from scrfdkit.spec import Input

SIZE = (640, 640)
OPEN, FIXED = Contract(), Contract(size=SIZE, batch=1)


@dataclass(frozen=True)
class Row:
    """One file a network: file's end, target, and what is asked of it."""

    end: str
    target: str
    contract: Contract = OPEN
    precision: Any = "fp32"


ROWS = (
    Row(".onnx", "onnx"),
    Row("_640.onnx", "onnx", FIXED),
    Row("_maps.onnx", "onnx", Contract("maps")),
    Row("_end2end.onnx", "onnx", Contract("end2end")),
    Row("_fp16.onnx", "onnx", precision="fp16"),
    Row("_int8.onnx", "onnx", precision="int8"),
    Row(".xml", "openvino"),
    Row("_fp16.xml", "openvino", precision="fp16"),
    Row("_int8.xml", "openvino", precision="int8"),
    Row(".tflite", "tflite", FIXED),
    Row("_fp16.tflite", "tflite", FIXED, "fp16"),
    Row("_int8.tflite", "tflite", FIXED, "int8"),
    Row("_ncnn.param", "ncnn", Contract("maps")),
    Row("_ncnn_fp16.param", "ncnn", Contract("maps"), "fp16"),
    Row(".torchscript", "torchscript"),
    Row("_faces.torchscript", "torchscript", Contract("end2end")),
    Row(".pt2", "torchexport"),
    Row(".engine", "tensorrt", FIXED),
    Row("_fp16.engine", "tensorrt", FIXED, "fp16"),
)


def main() -> None:
    args = _arguments()
    cv2.setNumThreads(1)
    calibration = choose(files(args.calibrate, "--calibrate"))
    score = scorer(args.data, args.gt) if args.data else None
    trial = Trial(files(args.pictures, "--pictures"), score, args.max_ap_drop, args.repeat, args.threads)
    host = machine()
    print(f"{host['cpu']}, {host['cores']} cores; {args.threads} thread(s)")
    record: dict[str, Any] = {"machine": host, "threads": args.threads, "networks": {}}
    text = ""
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        for network in args.networks:
            name, lines, made = one_network(
                network, folder, [r for r in ROWS if args.only in r.end], calibration, trial
            )
            record["networks"][Path(network).name] = made
            text += f"\n`{name}`\n\n{markdown(lines, [c for c in COLUMNS if c != 'sha256'])}"
            for path, content in ((args.output, json.dumps(record, indent=2) + "\n"), (args.table, text.lstrip())):
                if path is not None:
                    path.write_text(content)  # after each network, as all of them take long


def one_network(
    network: str, folder: Path, rows: Sequence[Row], calibration: tuple[Path, ...], trial: Trial
) -> tuple[str, list[list[str]], list[dict[str, Any]]]:
    """The network's name, lines of the table, and certificates or reasons."""
    source = open_source(network)
    trial = replace(trial, score=_remembered(trial.score))
    made: dict[Path, Certificate] = {}
    records = []
    for one in rows:
        path = folder / f"{source.info.name}{one.end}"
        order = Order(one.contract, one.precision, calibration if one.precision == "int8" else ())
        try:
            there = certificate.check(path) if path.exists() else None
            how = trial if one.contract.layout != "end2end" else Trial(threads=trial.threads)
            made[path] = there or export(source, path, TARGETS[one.target], order, how)
        except ScrfdError as error:
            print(f"{path.name}: {error}", flush=True)
            records.append({"file": path.name, "target": one.target, "error": str(error)})
            continue
        print(" | ".join(row(path.name, made[path])), flush=True)
    times = milliseconds([path for path, known in made.items() if "latency" in known.measured], trial)
    place, last = COLUMNS.index("sha256"), COLUMNS.index("ms")
    lines = []
    for path, known in made.items():
        cells = [*row(path.name, known)[:last], f"{times[path]:.1f}" if path in times else "-"]
        lines.append(cells[:place] + cells[place + 1 :])
        found = {**asdict(known), "source": Path(known.source).name, "file": path.name, "milliseconds": times.get(path)}
        records.append(found)
    return source.info.name, lines, records


def milliseconds(files: Sequence[Path], trial: Trial) -> dict[Path, float]:
    """Median time of a run of each, all of them in turn."""
    runtimes = {path: open_runtime(path, device="cpu", threads=trial.threads) for path in files}
    blob = blob_of(pictures(SIZE, 1), Input())
    found: dict[Path, list[float]] = {path: [] for path in files}
    for _ in range(trial.repeat):
        for path, runtime in runtimes.items():
            found[path].append(latency.network(runtime, blob, repeat=1, warmup=1).median)
    return {path: median(values) for path, values in found.items()}


def _remembered(score: Score | None) -> Score | None:
    """PyTorch's own score is the same for every file."""
    if score is None:
        return None
    known: dict[str, float] = {}

    def once(detector: Detector) -> Mapping[str, float]:
        if not isinstance(detector.runtime, Reference):
            return score(detector)
        known.update(known or score(detector))
        return known

    return once


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--calibrate", type=Path, nargs="+", required=True)
    parser.add_argument("--pictures", type=Path, nargs="*", default=[])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--gt", type=Path)
    parser.add_argument("--only", default="", help="rows whose end of the file name has this in it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=30)
    parser.add_argument("--max-ap-drop", type=float, default=5.0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--table", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
