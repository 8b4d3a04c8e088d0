"""`scrfd convert`: official `.pth` and `.onnx` files to complete weight files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scrfdkit.errors import WeightError

if TYPE_CHECKING:
    from scrfdkit.model.checkpoint import Imported


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
        str | None, typer.Option("--licence", help="Terms of the weights, where the file does not say them.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Import an official .pth or .onnx file as a complete .safetensors weight file.

    The network is recognised by its structure. The new file holds the weights, the description of the network, its
    licence and a checksum, and is what the PyTorch runtime loads. Source, licence and measured AP are taken over from
    an ONNX file that names them; InsightFace's own files are known and get theirs.
    """
    from scrfdkit import weights
    from scrfdkit.atomic import exists
    from scrfdkit.model import checkpoint
    from scrfdkit.model.origin import origin_of

    imported, metadata = _import(source, model)
    target = out or weights.cache_folder() / f"{imported.name}.safetensors"
    if target.suffix != ".safetensors":
        raise WeightError(f"{target}: the new file's name must end in .safetensors")
    if exists(target) and not force:
        raise WeightError(f"{target}: is there already; --force overwrites it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightError(f"{target.parent}: cannot make this folder: {error.strerror or error}") from None
    fused = source.suffix == ".onnx"
    origin = origin_of(source, metadata, imported.name)
    info = checkpoint.save(
        target,
        imported.net,
        imported.spec,
        name=imported.name,
        fused=fused,
        metrics=origin.metrics,
        licence=licence or origin.licence or "unknown",
        source=origin.source,
    )
    typer.echo(f"{source} is {info.name}" + (", batch norms folded" if fused else ""))
    typer.echo(f"wrote {target} ({info.num_bytes / 1e6:.1f} MB, sha256 of the tensors {info.sha256})")
    hint = "" if licence or origin.licence else "; the file does not say, and --licence TEXT (with --force) sets it"
    typer.echo(f"licence: {info.licence}{hint}")
    use = target if out else info.name
    typer.echo(f'use it: Detector.open("{use}", runtime="pytorch"), or `scrfd info {use}`')


def _import(source: Path, model: str | None) -> tuple[Imported, dict[str, str]]:
    """The network of a file, and the file's metadata."""
    from scrfdkit.atomic import is_file

    if source.suffix not in (".onnx", ".pth"):
        raise WeightError(f"{source}: only .pth and .onnx files can be imported")
    if not is_file(source):
        raise WeightError(f"{source}: there is no such file")
    if source.suffix == ".onnx":
        from scrfdkit.model.onnx_import import import_onnx, onnx_metadata

        return import_onnx(source, model), onnx_metadata(source)
    from scrfdkit.model.checkpoint import import_pth

    return import_pth(source, model), {}
