"""`scrfd info`: what a network costs, part by part, and what a weight file or a description says about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scrfdkit.cli.flags import parse_size
from scrfdkit.errors import MissingExtraError, WeightError

if TYPE_CHECKING:
    from rich.console import Console

    from scrfdkit.model.cost import Cost
    from scrfdkit.network import Network
    from scrfdkit.spec import ModelSpec
    from scrfdkit.zoo import ZooEntry


def command(
    network: Annotated[
        str, typer.Argument(help="A network's name, its .json description, or an .onnx, .safetensors or .pth file.")
    ],
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

    sizes = [parse_size(text) for text in size or ["640x480"]]
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


def _subject(network: str) -> tuple[str | None, ModelSpec | None, dict[str, Any]]:
    """Name, spec and what the file says; a zoo name has no file."""
    from scrfdkit import network as networks
    from scrfdkit.atomic import is_file
    from scrfdkit.weights import SUFFIXES

    path = Path(network)
    described = networks.is_description(path)
    if path.suffix in SUFFIXES or (is_file(path) and not described):
        if not is_file(path):
            raise WeightError(f"{path}: there is no such file")
        return _of_file(path)
    found = networks.find(network)
    return found.name, found.spec, _of_description(path, found) if described else {}


def _of_description(path: Path, found: Network) -> dict[str, Any]:
    """What a description says, and what is wrong with its weights."""
    from scrfdkit.network import checked_weights

    facts: dict[str, Any] = {"file": str(path), "source": found.source, "measured": dict(found.measured)}
    if found.weights is None:
        facts["weights"] = "none"
    else:
        facts |= {"weights": str(found.weights.path), "weights sha256": found.weights.sha256}
        facts["licence"] = found.weights.licence
        try:
            checked_weights(found, path)
        except WeightError as error:
            facts["problem"] = str(error)
    return {k: v for k, v in facts.items() if v not in ("", {})}


def _of_file(path: Path) -> tuple[str | None, ModelSpec | None, dict[str, Any]]:
    from scrfdkit.atomic import sha256
    from scrfdkit.model.origin import INSIGHTFACE, OFFICIAL_LICENCE, official

    try:
        size, digest = path.stat().st_size, sha256(path)
    except OSError as error:
        raise WeightError(f"{path}: cannot be read: {error.strerror or error}") from None
    facts: dict[str, Any] = {"file": str(path), "bytes": size, "file sha256": digest}
    known = official(digest)
    if known is not None:
        facts |= {"source": INSIGHTFACE, "licence": OFFICIAL_LICENCE}
    if path.suffix == ".onnx":
        return _of_onnx(path, facts, known)
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


def _of_onnx(
    path: Path, facts: dict[str, Any], known: ZooEntry | None
) -> tuple[str | None, ModelSpec | None, dict[str, Any]]:
    """known: the network, where the file is known to the package."""
    from scrfdkit.model.origin import own_words
    from scrfdkit.runtime.ort import start

    session = start(path)
    facts |= {f"input {i.name}": f"{i.type} {i.shape}" for i in session.get_inputs()}
    facts |= {f"output {o.name}": f"{o.type} {o.shape}" for o in session.get_outputs()}
    metadata = session.get_modelmeta().custom_metadata_map
    own = own_words(metadata)
    facts |= {k: v for k, v in (("source", own.source), ("licence", own.licence), ("metrics", own.metrics)) if v}
    spec = _own_spec(metadata)
    shown = ("source", "licence", "license", *(("metrics",) if own.metrics else ()))
    if spec is None:  # else the file is one of this package's own, and all that is in it is shown already
        facts |= {f"metadata {k}": v for k, v in metadata.items() if k not in shown}
    if known is not None:
        return known.name, known.spec, facts
    from scrfdkit.model.onnx_import import recognise_onnx

    try:
        name, found = recognise_onnx(path)
    except (MissingExtraError, WeightError) as error:
        facts["recognition"] = str(error)
        return (metadata.get("name") if spec else None), spec, facts
    return name, found, facts


def _own_spec(metadata: Mapping[str, str]) -> ModelSpec | None:
    """What this package's own files say of their network; others may use the same word for something else."""
    from scrfdkit.spec import ModelSpec

    try:
        return ModelSpec.from_json(metadata["spec"])
    except (KeyError, ValueError, TypeError, RecursionError):
        return None


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
