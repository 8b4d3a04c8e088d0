"""Weight files: the ones inside this package, checked by hash, and the user's cache of all others."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import platformdirs

from scrfdkit import zoo
from scrfdkit.atomic import sha256
from scrfdkit.errors import WeightError

DEFAULT = "scrfd_500m_kps"
"""The network that ships with the package."""

SUFFIXES = (".onnx", ".safetensors", ".pth")
"""Kinds of weight files, the default runtime's first."""


@dataclass(frozen=True)
class Embedded:
    """A weight file inside the package: its name there and its sha256. The file itself says where it comes from."""

    file: str
    sha256: str


EMBEDDED = {
    ".onnx": Embedded("scrfd_500m_kps.onnx", "b60bc32a626cb2cc05e3ffa28d6f53af438d574851a538691cd7c72106baadf8"),
    ".safetensors": Embedded(
        "scrfd_500m_kps.safetensors", "431f444a0fb281f0ce7dbfe531b03249bec5723fc838496fe61d77d8eeddf7cd"
    ),
}


def cache_folder() -> Path:
    """Where imported weights live: $SCRFDKIT_WEIGHTS, else the user's cache folder. It need not exist yet."""
    chosen = os.environ.get("SCRFDKIT_WEIGHTS")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_path("scrfdkit")) / "weights"


def embedded(suffix: str = ".onnx") -> Path:
    """The default weights, ".onnx" or ".safetensors". Raises WeightError if the installed file was changed."""
    record = EMBEDDED[suffix]
    path = Path(str(files("scrfdkit"))) / "assets" / record.file
    if not path.is_file():
        raise WeightError(f"{path}: the default weights are missing; reinstall scrfdkit")
    if sha256(path) != record.sha256:
        raise WeightError(f"{path}: its sha256 is not {record.sha256}; the file was changed, reinstall scrfdkit")
    return path


def locate(name: str, suffixes: tuple[str, ...] = SUFFIXES) -> Path | None:
    """The weight file of a zoo network, or None: first from the user's cache, then the embedded one.

    In the cache a file may have the network's name or the usual name of an official file (det_10g.onnx).
    Raises ValueError if no network is called that.
    """
    entry = zoo.find(name)
    folder = cache_folder()
    stems = dict.fromkeys([entry.name, *(Path(official.name).stem for official in entry.official)])
    for suffix in suffixes:
        for stem in stems:
            path = folder / (stem + suffix)
            try:
                found = path.is_file()
            except OSError as error:
                raise WeightError(f"{path}: cannot be looked at: {error.strerror}") from None
            if found:
                return path
    if entry.name == DEFAULT:
        for suffix in suffixes:
            if suffix in EMBEDDED:
                return embedded(suffix)
    return None


def find(name: str, suffixes: tuple[str, ...] = SUFFIXES) -> Path:
    """As `locate`, but a missing file raises WeightError that says where it can be downloaded and how to import it."""
    path = locate(name, suffixes)
    if path is not None:
        return path
    entry = zoo.find(name)
    if not entry.official:
        raise WeightError(f"{entry.name}: no weights were ever published for it; `scrfd models` shows which have some")
    places = "\n".join(f"  {official.name}  {official.url}" for official in entry.official)
    raise WeightError(
        f"{entry.name}: its weights are not on this machine. InsightFace publishes them for non-commercial research:\n"
        f"{places}\n"
        f"Put an .onnx file into {cache_folder()} as it is, or import any of them with"
        f" `scrfd convert {entry.official[0].name}`."
    )
