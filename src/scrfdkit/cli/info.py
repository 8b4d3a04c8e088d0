"""`scrfd info`: what a network costs, part by part, and what a weight file says about itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scrfdkit.errors import MissingExtraError, ModelError, OptionError, WeightError

if TYPE_CHECKING:
    from rich.console import Console

    from scrfdkit.model.cost import Cost
    from scrfdkit.spec import ModelSpec


def command(
    network: Annotated[str, typer.Argument(help="A network's name, or an .onnx, .safetensors or .pth file.")],
    size: Annotated[
        list[str] | None,
        typer.Option("--size", help="Input size WIDTHxHEIGHT; may be repeated.", show_default="640x480"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show what a network costs: parameters, operations and memory of each part; for a file also its origin.

    FLOPs are counted as in the SCRFD paper, MACs are multiply-adds of convolutions alone. Peak activations are the
    feature maps of one float32 picture that must be in memory at the same time.
    """
    from scrfdkit.model.cost import cost

    sizes = [_size(text) for text in size or ["640x480"]]
    name, spec, file = _subject(network)
    costs = [cost(spec, *each) for each in sizes] if spec else []
    if as_json:
        data = {"name": name, "spec": json.loads(spec.to_json()) if spec else None, "file": file or None}
        typer.echo(json.dumps(data | {"costs": [c.to_dict() for c in costs]}, indent=2))
        return
    from rich.console import Console

    _print_facts({"network": name or "not recognised", **file})
    console = Console()
    if len(costs) == 1:
        _print_parts(console, costs[0])
    elif costs:
        _print_sizes(console, costs)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,4})[xX]([1-9]\d{0,4})", text)
    if match is None:
        raise OptionError(f"--size {text}: WIDTHxHEIGHT in pixels is needed, such as 640x480")
    return int(match[1]), int(match[2])


def _subject(network: str) -> tuple[str | None, ModelSpec | None, dict[str, Any]]:
    """Name, spec and what the file says; a zoo name has no file."""
    from scrfdkit import zoo
    from scrfdkit.weights import SUFFIXES

    path = Path(network)
    if path.suffix in SUFFIXES or path.is_file():
        if not path.is_file():
            raise WeightError(f"{path}: there is no such file")
        return _of_file(path)
    try:
        entry = zoo.find(network)
    except ValueError as error:
        raise ModelError(str(error)) from None
    return entry.name, entry.spec, {}


def _of_file(path: Path) -> tuple[str | None, ModelSpec | None, dict[str, Any]]:
    facts: dict[str, Any] = {"file": str(path), "bytes": path.stat().st_size, **_known_file(path)}
    if path.suffix == ".onnx":
        return _of_onnx(path, facts)
    if path.suffix == ".pth":
        from scrfdkit.model.checkpoint import import_pth

        _, name, spec = import_pth(path)
        return name, spec, facts
    from scrfdkit.model.checkpoint import read_header

    info = read_header(path)
    facts |= {"batch norms": "folded" if info.fused else "kept", "tensor bytes": info.num_bytes}
    facts |= {"source": info.source, "licence": info.licence, "metrics": dict(info.metrics)}
    facts["tensors sha256"] = info.sha256
    return info.name, info.spec, {k: v for k, v in facts.items() if v not in ("", None, {})}


def _known_file(path: Path) -> dict[str, str]:
    """sha256, and where it comes from if this very file is known to the package."""
    from scrfdkit.weights import sha256
    from scrfdkit.zoo import ZOO

    digest = sha256(path)
    facts = {"file sha256": digest}
    for entry in ZOO.values():
        if digest in {official.sha256 for official in entry.official}:
            facts |= {"source": "InsightFace model zoo", "licence": "non-commercial research only"}
    return facts


def _of_onnx(path: Path, facts: dict[str, Any]) -> tuple[str | None, ModelSpec | None, dict[str, Any]]:
    import onnxruntime

    from scrfdkit.model.onnx_import import recognise_onnx
    from scrfdkit.spec import ModelSpec

    onnxruntime.set_default_logger_severity(3)
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no parent of their own
        raise ModelError(f"{path}: onnxruntime cannot load it: {str(error)[:200]}") from None
    facts |= {f"input {i.name}": f"{i.type} {i.shape}" for i in session.get_inputs()}
    facts |= {f"output {o.name}": f"{o.type} {o.shape}" for o in session.get_outputs()}
    metadata = session.get_modelmeta().custom_metadata_map
    if "spec" in metadata:  # a file of this package's own
        facts |= {k: metadata[k] for k in ("source", "licence") if metadata.get(k)}
        facts |= {"metrics": json.loads(metadata.get("metrics") or "{}")}
    else:
        facts |= {f"metadata {k}": v for k, v in metadata.items()}
    try:
        name, spec = recognise_onnx(path)
    except MissingExtraError as error:
        facts["recognition"] = str(error)
    except WeightError as error:
        facts["recognition"] = str(error)
    else:
        return name, spec, facts
    text = metadata.get("spec")
    return metadata.get("name"), ModelSpec.from_json(text) if text else None, facts


def _print_facts(facts: dict[str, Any]) -> None:
    """One line each, never wrapped, so that hashes and paths can be copied."""
    width = max(map(len, facts))
    for key, value in facts.items():
        typer.echo(f"{key:{width}}  {value if isinstance(value, str) else json.dumps(value)}")


def _print_parts(console: Console, total: Cost) -> None:
    from rich.table import Table

    table = Table("part", title=f"One picture of {total.width}x{total.height}")
    for title in ("params", "MMACs", "MFLOPs", "share"):
        table.add_column(title, justify="right")

    def add(name: str, params: int, macs: int, flops: int) -> None:
        numbers = (f"{params:,}", f"{macs / 1e6:,.1f}", f"{flops / 1e6:,.1f}", f"{flops / total.flops:.1%}")
        table.add_row(name, *numbers)

    for part in total.parts:
        add(part.name, part.params, part.macs, part.flops)
    table.add_section()
    add("total", total.params, total.macs, total.flops)
    console.print(table)
    console.print(
        f"weights {_mib(total.weight_bytes)}, peak activations {_mib(total.peak_activation_bytes)}, as float32"
    )


def _print_sizes(console: Console, costs: list[Cost]) -> None:
    from rich.table import Table

    table = Table("size", title=f"{costs[0].params:,} parameters, weights {_mib(costs[0].weight_bytes)} as float32")
    for title in ("GMACs", "GFLOPs", "peak activations"):
        table.add_column(title, justify="right")
    for c in costs:
        numbers = (f"{c.macs / 1e9:.3f}", f"{c.flops / 1e9:.3f}", _mib(c.peak_activation_bytes))
        table.add_row(f"{c.width}x{c.height}", *numbers)
    console.print(table)


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
