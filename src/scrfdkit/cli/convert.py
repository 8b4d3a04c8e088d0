"""`scrfd convert`: official `.pth` and `.onnx` files to complete weight files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scrfdkit.errors import WeightError

if TYPE_CHECKING:
    from scrfdkit.zoo import ZooEntry


def command(
    source: Annotated[Path, typer.Argument(help="The .pth or .onnx file to import.")],
    out: Annotated[
        Path | None,
        typer.Argument(help="The .safetensors file to write; left out, it goes into the weight cache by its name."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Accept this network only, instead of recognising it.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="Terms of the weights; by default those of InsightFace's files.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Import an official .pth or .onnx file as a complete .safetensors weight file.

    The network is recognised by its structure. The new file holds the weights, the description of the network, its
    licence and a checksum, and is what the PyTorch runtime loads.
    """
    from scrfdkit import weights
    from scrfdkit.model import checkpoint
    from scrfdkit.zoo import ZOO

    imported = _import(source, model)
    entry = ZOO[imported.name]
    target = out or weights.cache_folder() / f"{entry.name}.safetensors"
    if target.suffix != ".safetensors":
        raise WeightError(f"{target}: the new file's name must end in .safetensors")
    if target.exists() and not force:
        raise WeightError(f"{target}: is there already; --force overwrites it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightError(f"{target.parent}: cannot make this folder: {error.strerror or error}") from None
    fused = source.suffix == ".onnx"
    info = checkpoint.save(
        target,
        imported.net,
        imported.spec,
        name=imported.name,
        fused=fused,
        metrics=_published(source, entry),
        licence=licence or checkpoint.OFFICIAL_LICENCE,
        source=source.name,
    )
    typer.echo(f"{source} is {info.name}" + (", batch norms folded" if fused else ""))
    typer.echo(f"wrote {target} ({info.num_bytes / 1e6:.1f} MB, sha256 of the tensors {info.sha256})")
    typer.echo(f"licence: {info.licence}")
    use = target if out else info.name
    typer.echo(f'use it: Detector.open("{use}", runtime="pytorch"), or `scrfd info {use}`')


def _import(source: Path, model: str | None) -> Any:
    if not source.is_file():
        raise WeightError(f"{source}: there is no such file")
    if source.suffix == ".onnx":
        from scrfdkit.model.onnx_import import import_onnx

        return import_onnx(source, model)
    if source.suffix == ".pth":
        from scrfdkit.model.checkpoint import import_pth

        return import_pth(source, model)
    raise WeightError(f"{source}: only .pth and .onnx files can be imported")


def _published(source: Path, entry: ZooEntry) -> dict[str, Any]:
    """The published AP, if this is, byte for byte, the file that it was published for."""
    from scrfdkit.weights import sha256

    known = {file.sha256 for file in entry.official}
    if entry.published is None or sha256(source) not in known:
        return {}
    ap = entry.published
    return {"published_wider_face_val": {"easy": ap.easy, "medium": ap.medium, "hard": ap.hard}}
