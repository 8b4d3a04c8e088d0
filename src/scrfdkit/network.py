"""A network by its description: a row of the zoo by name, or a .json file that is such a row of one's own."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from scrfdkit import atomic, weights, zoo
from scrfdkit.errors import ModelError, WeightError
from scrfdkit.model.checkpoint import WeightInfo, read_header
from scrfdkit.spec import ModelSpec

FORMAT = "scrfdkit-network-1"
SUFFIX = ".json"
WEIGHTS_SUFFIX = ".safetensors"
"""The kind of weight file that holds its own spec, whatever the network."""

_LONGEST_NAME = 100
_MOST_BYTES = 1 << 20
"""A description has some kilobytes; what is larger is none."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class Weights:
    """Trained weights of a network: a .safetensors file, the sha256 of the whole file as hex digits, and their terms,
    "" where unknown. Raises ValueError, naming the field."""

    path: Path
    sha256: str
    licence: str = ""

    def __post_init__(self) -> None:
        _require(self.path.suffix == WEIGHTS_SUFFIX, f"weights.file: the name of a {WEIGHTS_SUFFIX} file is needed")
        digits = isinstance(self.sha256, str) and re.fullmatch(r"[0-9a-f]{64}", self.sha256) is not None
        _require(digits, "weights.sha256: 64 hex digits are needed")
        _require(isinstance(self.licence, str), "weights.licence: a text is needed")

    @classmethod
    def of(cls, path: Path, licence: str = "") -> Weights:
        """Of a file as it is now. licence: "" for what the file itself says. Raises WeightError."""
        own = read_header(path).licence
        return cls(path, atomic.sha256(path), licence or own)


@dataclass(frozen=True)
class Network:
    """A network as a zoo has it. Raises ValueError, naming the field.

    name: at most 100 printable characters. weights: trained ones that belong to it, or None. measured: finite numbers
    by name, like AP in percent {"hard": 41.2}. source: where the network comes from, "" where unknown.
    """

    name: str
    spec: ModelSpec
    weights: Weights | None = None
    measured: Mapping[str, float] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        text = isinstance(self.name, str) and bool(self.name.strip()) and self.name.isprintable()
        fits = text and len(self.name) <= _LONGEST_NAME
        _require(fits, f"name: 1 to {_LONGEST_NAME} printable characters are needed")
        numbers = isinstance(self.measured, Mapping) and all(
            isinstance(key, str) and type(value) in (int, float) and abs(value) < math.inf
            for key, value in self.measured.items()
        )
        _require(numbers, "measured: an object with numbers is needed")
        _require(isinstance(self.source, str), "source: a text is needed")


def is_description(model: str | Path) -> bool:
    """Whether this is the name of a description's file, be it there or not."""
    return Path(model).suffix == SUFFIX


def read(path: str | Path) -> Network:
    """The network that a .json file describes; the weights are neither looked for nor compared.

    Reads what `save` writes, and the bare JSON of a ModelSpec, which is called like its file. Raises ModelError,
    naming the file and the field.
    """
    path = Path(path)
    try:
        if atomic.is_special(path) or path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is no regular file of at most {_MOST_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ModelError(f"{path}: not the description of a network: {error}") from None
    try:
        data = json.loads(text)
        if isinstance(data, dict) and "format" in data:
            return _from_dict(data, path.parent)
        return Network(path.stem[:_LONGEST_NAME], ModelSpec.from_json(text))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not the description of a network: {error}") from None


def _from_dict(data: dict[str, Any], folder: Path) -> Network:
    form = data.pop("format")
    _require(form == FORMAT, f"format: {form!r} is not {FORMAT!r}, which this version reads")
    _check_fields(data, {"name", "spec"}, {"weights", "measured", "source"}, "")
    spec = ModelSpec.from_json(json.dumps(data.pop("spec")))
    stored = data.pop("weights", None)
    return Network(spec=spec, weights=None if stored is None else _weights(stored, folder), **data)


def _weights(data: Any, folder: Path) -> Weights:
    _require(isinstance(data, dict), "weights: must be an object")
    _check_fields(data, {"file", "sha256"}, {"licence"}, "weights.")
    file = data.pop("file")
    inside = isinstance(file, str) and not Path(file).is_absolute()
    _require(inside, "weights.file: a path from the folder of the description is needed")
    return Weights(folder / file, **data)


def _check_fields(data: Mapping[str, Any], needed: set[str], optional: set[str], prefix: str) -> None:
    for name in sorted(needed - set(data)):
        raise ValueError(f"{prefix}{name}: is missing")
    for name in sorted(set(data) - needed - optional):
        raise ValueError(f"{prefix}{name}: is no field of a description")


def save(path: str | Path, network: Network) -> None:
    """Writes a description; its weights are named by their path from its folder. Raises ScrfdError where it cannot be
    written, ValueError for a name that does not end in .json."""
    path = Path(path)
    _require(is_description(path), f"{path}: the name of a description must end in {SUFFIX}")
    data: dict[str, Any] = {"format": FORMAT, "name": network.name, "spec": asdict(network.spec)}
    if network.weights is not None:
        file = network.weights.path
        from_here = os.path.relpath(file.parent.resolve() / file.name, path.parent.resolve())
        data["weights"] = {"file": from_here, "sha256": network.weights.sha256, "licence": network.weights.licence}
    data |= {"measured": dict(network.measured), "source": network.source}
    atomic.save(path, (json.dumps(data, indent=2) + "\n").encode())


def find(model: str | Path) -> Network:
    """The network of that name in the zoo, without weights, or the one that a .json file describes. Raises ModelError
    for neither."""
    if is_description(model):
        return read(model)
    entry = _entry(model)
    return Network(entry.name, entry.spec)


def find_weights(model: str | Path, suffixes: tuple[str, ...] = weights.SUFFIXES) -> tuple[Path, Network | None]:
    """The weight file that belongs to a network: by its name in the zoo, as `weights.find` does with `suffixes`; or the
    one that a .json file names, which comes with what that file says of the network.

    Raises ModelError for neither a name nor a description, WeightError for weights that are missing, have changed, or
    are of another network.
    """
    if not is_description(model):
        return weights.find(_entry(model).name, suffixes), None
    found = read(model)
    return checked_weights(found, Path(model)), found


def checked_weights(network: Network, path: Path) -> Path:
    """The weight file that the description in `path` names, after comparing its hash and spec. Raises WeightError."""
    if network.weights is None:
        raise WeightError(
            f"{path}: has no weights; train it first with `scrfd train --model {shlex.quote(str(path))} --data ...`"
        )
    file, wanted = network.weights.path, network.weights.sha256
    if not atomic.is_file(file):
        raise WeightError(f"{file}: there is no such file; it has the weights that {path} names: put it back there")
    try:
        digest = atomic.sha256(file)
    except OSError as error:
        raise WeightError(f"{file}: cannot be read: {error.strerror or error}") from None
    if digest != wanted:
        raise WeightError(
            f"{file}: its sha256 is not the {wanted[:12]}... of {path}: it was changed. Put the right file back,"
            " or name this one by itself"
        )
    if read_header(file).spec != network.spec:
        raise WeightError(f"{file}: is of another network than {path}, which names it: their specs differ")
    return file


def described(info: WeightInfo, network: Network) -> WeightInfo:
    """What a weight file says of itself, with what the description that it belongs to knows: its name, its origin, what
    was measured, and terms where the file has none."""
    source = "; ".join(dict.fromkeys(text for text in (network.source, info.source) if text))
    licence = info.licence or (network.weights.licence if network.weights else "")
    metrics = {**info.metrics, **network.measured}
    return replace(info, name=network.name, licence=licence, source=source, metrics=metrics)


def _entry(model: str | Path) -> zoo.ZooEntry:
    try:
        return zoo.find(str(model))
    except ValueError as error:
        if str(model) and atomic.exists(Path(model)):
            kinds = ", ".join(weights.SUFFIXES)
            raise ModelError(
                f"{model}: is neither the description of a network ({SUFFIX}) nor weights ({kinds})"
            ) from None
        raise ModelError(f"{error}; nor is there a file of that name") from None
