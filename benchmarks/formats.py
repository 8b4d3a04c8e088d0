"""Every format of some networks: exported, certified, and set side by side in one table.

    python benchmarks/formats.py NETWORK... --calibrate PICTURES [--pictures PICTURES] [--data WIDER_VAL --gt GT]
        [--only TEXT] [--threads 1] [--max-ap-drop 5] [--output FILE.json] [--table FILE.md]

NETWORK: names or weight files. Files are written into a temporary folder, or --keep FOLDER. A file that fails its
certificate is listed with the reason. Times are of one run of 640x640, in milliseconds, one format after another in
one process; so compare them within a table only.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2

from scrfdkit.certificate import Certificate
from scrfdkit.cli.trial import files
from scrfdkit.cli.validation import scorer
from scrfdkit.errors import ScrfdError
from scrfdkit.export.calibration import choose
from scrfdkit.export.contract import Contract
from scrfdkit.export.measure import Trial
from scrfdkit.export.order import Order
from scrfdkit.export.run import export
from scrfdkit.export.source import open_source
from scrfdkit.export.table import COLUMNS, markdown, row
from scrfdkit.export.targets import TARGETS
from scrfdkit.machine import machine

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
    Row(".param", "ncnn", Contract("maps")),
    Row("_fp16.param", "ncnn", Contract("maps"), "fp16"),
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
            lines, made = one_network(network, folder, [r for r in ROWS if args.only in r.end], calibration, trial)
            record["networks"][network] = made
            text += f"\n`{Path(network).stem}`\n\n{markdown(lines, [c for c in COLUMNS if c != 'sha256'])}"
            for path, content in ((args.output, json.dumps(record, indent=2) + "\n"), (args.table, text.lstrip())):
                if path is not None:
                    path.write_text(content)  # after each network, as all of them take long


def one_network(
    network: str, folder: Path, rows: Sequence[Row], calibration: tuple[Path, ...], trial: Trial
) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """Lines of the table, and certificates or reasons."""
    source = open_source(network)
    lines, records = [], []
    place = COLUMNS.index("sha256")
    for one in rows:
        path = folder / f"{source.info.name}{one.end}"
        order = Order(one.contract, one.precision, calibration if one.precision == "int8" else ())
        try:
            made: Certificate = export(source, path, TARGETS[one.target], order, trial)
        except ScrfdError as error:
            print(f"{path.name}: {error}")
            records.append({"file": path.name, "target": one.target, "error": str(error)})
            continue
        cells = list(row(path.name, made))
        print(" | ".join(cells), flush=True)
        lines.append(cells[:place] + cells[place + 1 :])
        records.append({"file": path.name, **asdict(made)})
    return lines, records


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
