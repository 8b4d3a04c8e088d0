"""`scrfd doctor`: what is installed, what runs where, and what is missing for each extra."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Annotated, Any

import typer

from scrfdkit.errors import ScrfdError

_EXTRAS = {  # what each turns on, and the modules it needs by package
    "torch": ("PyTorch runtime, weight conversion", {"torch": "torch", "safetensors": "safetensors", "onnx": "onnx"}),
    "video": ("video files and cameras", {"av": "av"}),
    "track": ("stable face ids in video", {"trackforge": "trackforge"}),
    "eval": ("WIDER FACE and COCO evaluation", {"scipy": "scipy", "faster-coco-eval": "faster_coco_eval"}),
    "tensorrt": ("TensorRT engines, by TensorRT-RTX", {"tensorrt-rtx": "tensorrt_rtx", "torch": "torch"}),
    "triton": ("networks on a server", {"tritonclient": "tritonclient.grpc", "geventhttpclient": "geventhttpclient"}),
    "search": ("network search", {"optuna": "optuna"}),
    "ray": ("searching on a cluster", {"ray": "ray"}),
    "openvino": ("OpenVINO files", {"openvino": "scrfdkit.runtime.openvino", "nncf": "nncf"}),  # no telemetry this way
    "ncnn": ("ncnn files", {"ncnn": "ncnn", "pnnx": "pnnx"}),
    "heif": ("HEIC pictures", {"pillow-heif": "pillow_heif"}),
    "tflite": ("TFLite runtime", {"ai-edge-litert": "ai_edge_litert"}),
    "tflite-export": (
        "TFLite files",
        {"litert-torch": "litert_converter", "ai-edge-quantizer": "ai_edge_quantizer"},  # the first alone takes 8 s
    ),
}


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Show versions, providers and devices, run the detector once, and say what is missing for each extra.

    Exit code 1 if the detector itself does not run, or if a weight file is damaged.
    """
    report = examine()
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print(report)
    raise typer.Exit(1 if "error" in report["detector"] or report["weights"]["problems"] else 0)


def examine() -> dict[str, Any]:
    """Everything the command prints, as plain data."""
    from scrfdkit.machine import machine

    return {
        "machine": machine(),
        "onnxruntime": _onnxruntime(),
        "torch": _torch(),
        "extras": {name: _extra(needs) for name, (_, needs) in _EXTRAS.items()},
        "weights": _weights(),
        "detector": _run_detector(),
    }


def _onnxruntime() -> dict[str, Any]:
    from scrfdkit.runtime.ort import ort

    return {"providers": ort.get_available_providers()}


def _torch() -> dict[str, Any] | None:
    try:
        import torch
    except ImportError:
        return None
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"version": torch.__version__, "cuda": torch.cuda.is_available(), "devices": names}


def _extra(needs: dict[str, str]) -> dict[str, Any]:
    """Importing is the only proof: a package can be installed and still not load."""
    missing: list[str] = []
    broken: dict[str, str] = {}
    for package, module in needs.items():
        try:
            import_module(module)
        except ModuleNotFoundError:
            missing.append(package)
        except Exception as error:
            broken[package] = f"{type(error).__name__}: {error}"
    return {"ready": not missing and not broken, "missing": missing, "broken": broken}


def _weights() -> dict[str, Any]:
    from scrfdkit import weights, zoo

    found: dict[str, str] = {}
    problems: dict[str, str] = {}
    for name in zoo.ZOO:
        try:
            path = weights.locate(name)
        except (ScrfdError, OSError) as error:
            problems[name] = str(error)
        else:
            found |= {} if path is None else {name: str(path)}
    return {"folder": str(weights.cache_folder()), "found": found, "problems": problems}


def _run_detector() -> dict[str, Any]:
    import numpy as np

    from scrfdkit.detector import Detector

    try:
        detector = Detector.open(device="auto")
        detector.detect(np.zeros((480, 640, 3), np.uint8))
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"device": detector.device, "runtime": "onnxruntime", "weights": str(detector.path)}


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(soft_wrap=True, highlight=False)
    host, torch = report["machine"], report["torch"]
    facts = Table(show_header=False, box=None, pad_edge=False)
    facts.add_row("machine", f"{host['cpu']}, {host['cores']} cores, {host['system']}")
    facts.add_row("python", host["python"])
    facts.add_row("packages", ", ".join(f"{name} {version}" for name, version in host["packages"].items()))
    facts.add_row("onnxruntime", ", ".join(report["onnxruntime"]["providers"]))
    if torch:
        facts.add_row("torch", f"{torch['version']}, CUDA {'yes' if torch['cuda'] else 'no'} {torch['devices'] or ''}")
    facts.add_row("weights", "\n".join(f"{n}: {p}" for n, p in report["weights"]["found"].items()))
    for name, problem in report["weights"]["problems"].items():
        facts.add_row("[red]damaged[/]", escape(f"{name}: {problem}"))
    facts.add_row("weight folder", report["weights"]["folder"])
    console.print(facts)
    console.print()
    for name, state in report["extras"].items():
        what = _EXTRAS[name][0]
        if state["ready"]:
            console.print(f"[green]ready[/]    {name}: {what}")
        elif state["broken"]:
            console.print(f"[red]broken[/]   {name}: {what}: {state['broken']}")
        else:
            hint = f"pip install 'scrfdkit\\[{name}]'"
            console.print(f"[yellow]missing[/]  {name}: {what} (no {', '.join(state['missing'])}): {hint}")
    detector = report["detector"]
    if "error" in detector:
        console.print(f"[red]detector does not run[/]: {escape(detector['error'])}")
    else:
        console.print(f"[green]detector runs[/] on {detector['device']} with {detector['runtime']}")
