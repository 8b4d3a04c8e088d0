"""What Vastai's compiler and runner need, in a folder: the graph with its maps as they are, build files, parameters.

None of their software is needed to write it. The names of all fields are those of their model zoo.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2

from scrfdkit import atomic, image
from scrfdkit.errors import ImageError, OptionError, ScrfdError
from scrfdkit.export import onnx
from scrfdkit.export.calibration import choose
from scrfdkit.export.heads import BLOB
from scrfdkit.export.order import Order, Target
from scrfdkit.export.source import Source
from scrfdkit.spec import Input

GRAPH = "maps.onnx"
PARAMETERS = "vdsp_params.json"
CALIBRATION = "calibration"
CALIBRATION_LIST = "calibration.txt"
DTYPES = ("fp16", "int8")
MOST_CALIBRATION = 50
_QUALITY = 95


def write(source: Source, path: Path, order: Order) -> None:
    """Makes the folder. Raises OptionError for maps or sizes that the flow has no word for, ModelError, ScrfdError."""
    size = order.contract.size
    if not order.contract.logits:
        raise OptionError("layout: what decodes a device's outputs takes the sigmoid itself; leave out --sigmoid")
    if size is None or size[0] != size[1]:
        raise OptionError("size: the build file pads pictures to squares, so width and height must be the same")
    name, spec, side, batch = source.safe_name, source.info.spec, size[0], order.contract.batch or 1
    atomic.make_folder(path)
    onnx.write(source, path / GRAPH, order)
    count = _write_calibration(path, order) if order.calibration else MOST_CALIBRATION
    for dtype in DTYPES:
        _save(path / f"build_{dtype}.yaml", build_file(f"{name}_{dtype}", dtype, side, batch, spec.input, count))
    _save(path / PARAMETERS, json.dumps(parameters(side, spec.input), indent=4) + "\n")
    _save(path / "README.md", _readme(name, side, batch, calibrated=bool(order.calibration)))


def build_file(name: str, dtype: str, side: int, batch: int, spec: Input, count: int) -> str:
    """The YAML that `vamc compile` takes, for a square input. count: calibration pictures, which int8 looks at."""
    backend: dict[str, object] = {"compile": {"data_transport_mode": 1, "cluster_mode": 0}}
    if dtype == "int8":
        backend["quantize"] = {"calibrate_mode": "max", "quantize_per_channel": True}
    steps = [
        {"type": "DecodeImage"},
        {"type": "Resize", "size": [side, -1], "adaptive_side": "long"},
        {"type": "Pad", "pad_to_square": True},
        {"type": "Normalize", "div255": None, "mean": [spec.mean] * 3, "std": [spec.std] * 3},
        {"type": "ToTensor"},
    ]
    sections = {
        "name": name,
        "frontend": {
            "type": "onnx", "checkpoint": GRAPH, "dtype": "fp32", "shape": {BLOB: [batch, 3, side, side]},
        },
        "backend": {"type": "tvm_vacc", "dtype": dtype, **backend},
        "dataset": {
            "type": "tvm", "path": CALIBRATION, "sampler": {"suffix": "jpg", "get_data_num": count},
            "process_ops": steps,
        },
        "workspace": {"path": "./deploy_weights/"},
    }  # fmt: skip
    return "\n".join(_yaml(sections)) + "\n"


def parameters(side: int, spec: Input) -> dict[str, object]:
    """The letterbox that the device does itself, as its runners read it."""
    sides = ("IimageWidth", "IimageHeight", "OimageWidth", "OimageHeight", "IimageWidthPitch", "IimageHeightPitch")
    config: dict[str, object] = {"IimageFormat": "RGB_PLANAR", **dict.fromkeys(sides, side)}
    config |= {"Mean": [spec.mean] * 3, "Std": [spec.std] * 3, "NormaType": "MINUSMEAN_DIVSTD"}
    config |= {"ColorCvtCode": "NO_CHANGE", "ResizeType": "BILINEAR_CV"}
    return {"OpType": "FUSION_OP_RGB_LETTERBOX_CVTCOLOR_NORM_TENSOR", "OpConfig": config}


def _yaml(value: object, indent: str = "") -> list[str]:
    """Lines of nested dictionaries and lists of them; everything else as JSON, which YAML includes."""
    if isinstance(value, list):
        items = [_yaml(item, indent + "  ") for item in value]
        return [line for first, *rest in items for line in (f"{indent}- {first.lstrip()}", *rest)]
    assert isinstance(value, dict)
    lines = []
    for key, inner in value.items():
        if isinstance(inner, dict) or (isinstance(inner, list) and isinstance(inner[0], dict)):
            lines += [f"{indent}{key}:", *_yaml(inner, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {json.dumps(inner, ensure_ascii=False)}")
    return lines


def _write_calibration(path: Path, order: Order) -> int:
    """Saves pictures as JPEG, which the build file asks for, and a list of them; how many there are."""
    names: list[str] = []
    for source in choose(order.calibration, MOST_CALIBRATION):
        try:
            pixels = image.load(source).pixels
        except ImageError:
            continue
        done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        if not done:
            raise ScrfdError(f"{source}: cannot be saved as a JPEG")
        names.append(f"{CALIBRATION}/{len(names):03d}.jpg")
        atomic.save(path / names[-1], data.tobytes())
    if not names:
        raise OptionError("calibrate: none of the pictures can be read")
    _save(path / CALIBRATION_LIST, "".join(f"{name}\n" for name in names))
    return len(names)


def _save(path: Path, text: str) -> None:
    atomic.save(path, text.encode())


def _readme(name: str, side: int, batch: int, *, calibrated: bool) -> str:
    pictures = (
        f"The pictures of `{CALIBRATION}/` are those that were given to `--calibrate`; `{CALIBRATION_LIST}` lists them."
        if calibrated
        else f"Put about {MOST_CALIBRATION} JPEGs (`.jpg`) of the kind it will see into `{CALIBRATION}/` first; only"
        " int8 looks at them. `scrfd export --calibrate DIR` does it."
    )
    return f"""# {name} for Vastai

| file | what |
|---|---|
| `{GRAPH}` | the network, {batch} x 3 x {side} x {side}; scores are logits, all outputs are maps |
| `build_fp16.yaml`, `build_int8.yaml` | for `vamc compile` |
| `{PARAMETERS}` | the letterbox on the device, for `vamp --vdsp_params` |

All commands are meant to be run in this folder.

1. `vamc compile build_fp16.yaml`, or `build_int8.yaml`. {pictures}
2. `scrfd vastai pack WIDER/val/images -o packed` writes one .npz file a picture and `packed/list.txt`.
3. `vamp -m deploy_weights/{name}_fp16/mod --vdsp_params {PARAMETERS} -i 1 -p 1 -b {batch} -s [3,{side},{side}] \\
   --datalist packed/list.txt --path_output outputs`
4. `scrfd vastai decode outputs --list packed/list.txt --data WIDER/val/images --size {side}x{side} -o results`
5. `scrfd eval widerface --gt WIDER/gt --detections results`

With `pack --letterbox {side}x{side}` pictures are resized here and not on the device, exactly as `scrfd eval` does it.
`decode --published` decodes as Vastai's published figures were made: scores from 0.5, boxes in whole pixels.
"""


TARGET = Target(
    name="vastai",
    suffix="",
    layouts=("maps",),
    precisions=("fp32",),
    open_size=False,
    open_batch=False,
    write=write,
    folder=True,
    inside=lambda folder: folder / GRAPH,
    calibrates=True,
)
